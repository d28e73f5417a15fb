//! Starting one replica of a group: its log, its snapshot, its Raft task and the tasks around it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::{GroupId, NodeId, ReplicaId, Topology};
use crate::keyspace::{HashSecret, Keyspace};
use crate::planted::{self, Bug};
use crate::raft::acks::Acks;
use crate::raft::blocking::blocking;
use crate::raft::group::{Group, GroupState};
use crate::raft::leadership::{LeaderSighting, LeadershipTask, won};
use crate::raft::log::Disk;
use crate::raft::machine::{GroupMachine, GroupRaft};
use crate::raft::meta::{MetaMachine, MetaRaft, MetaState};
use crate::raft::promise;
use crate::raft::proposer::{Intake, Proposer};
use crate::raft::retention::replica_directory;
use crate::raft::snapshot::SnapshotStore;
use crate::raft::space::Space;
use crate::raft::submissions;
use crate::raft::succession::Leaderships;
use crate::raft::types::Member;
use crate::raft::upkeep::{FoundingSlots, Upkeep};
use crate::raft::walls::Walls;
use crate::raft::{GroupLog, NodeLog, SnapshotPlace, SnapshotTurns, Transport};

const TRANSFERS_MAX: usize = 8;

/// What every replica of a node is started with.
#[derive(Clone)]
pub struct ReplicaSeed {
    pub data_directory: PathBuf,
    pub log: NodeLog,
    /// Where snapshots are.
    pub disk: Arc<dyn Disk>,
    pub transport: Transport,
    pub raft_config: Arc<openraft::Config>,
    pub timers: Timers,
    /// Other leaders' leases may last by this election timeout: see `promise.rs`.
    pub promised: Duration,
    /// Random, drawn at process start.
    pub nonce: u64,
    pub started: tokio::time::Instant,
    pub log_bytes_max: u64,
    pub snapshot_turns: SnapshotTurns,
    pub space: Arc<Space>,
    pub walls: Arc<Walls>,
    pub leaderships: Arc<ArcSwap<Leaderships>>,
    /// The feature level that entries are written with.
    pub level: Arc<AtomicU16>,
    pub reads: Reads,
    pub sightings: mpsc::Sender<LeaderSighting>,
    /// Bumped when what is served here changes.
    pub changes: watch::Sender<u64>,
    pub founding_slots: FoundingSlots,
    /// Where a fatal error of a replica goes: the node must stop.
    pub failed: mpsc::Sender<String>,
}

/// How a leader may know that it may answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// By its lease, which assumes that clocks of different nodes run at nearly the same speed.
    ByLease,
    /// By a quorum round for each turn; assumes nothing about clocks.
    ByReadIndex,
}

#[derive(Debug, Clone, Copy)]
pub struct Timers {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

/// Who founds a group, and with whom.
#[derive(Debug, Clone)]
pub struct Founding {
    pub initializer: ReplicaId,
    pub members: BTreeMap<ReplicaId, NodeId>,
}

impl Timers {
    /// openraft's configuration; see DESIGN "Timers". Errors name the value that does not fit.
    pub fn raft_config(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "kvorum".to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            heartbeat_min_interval: Some(ms(self.heartbeat)),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            max_payload_entries: 64,
            enable_pre_vote: Some(true),
            // A restarted leader must win an election: it could otherwise serve what it had not applied.
            enable_leader_restore: Some(planted::is(Bug::PendingKeyWithoutNonce)),
            // Snapshots and purges go by bytes: see `raft/upkeep.rs`.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            removed_leader_step_down: openraft::StepDownPolicy::Never,
            ..Default::default()
        }
        .validate()
    }
}

impl ReplicaSeed {
    fn directory(&self, group: GroupId, replica: ReplicaId) -> PathBuf {
        replica_directory(&self.data_directory, group, replica)
    }

    fn place(&self, directory: PathBuf) -> SnapshotPlace {
        SnapshotPlace { disk: self.disk.clone(), directory, space: self.space.clone() }
    }

    /// § A restarted voter reloads its vote with a zero lease: it could vote at once and break a lease that still runs. With any
    /// non-empty vote it takes no part until 1.2 election timeouts after process start.
    async fn wait_out_lost_leases(&self, has_voted: bool) {
        if has_voted && !planted::is(Bug::NoWaitAfterRestart) {
            tokio::time::sleep_until(self.started + promise::wait_after_restart(self.promised)).await;
        }
    }
}

/// A running replica of a data group and the tasks that serve it.
#[derive(Debug)]
pub struct Replica {
    pub group: Arc<Group>,
    acks: Arc<Acks>,
    /// From here on its core may end: nobody is to take that for a failure.
    stopping: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Replica {
    /// Takes up to 1.2 election timeouts, and as long as its snapshot needs to load.
    pub async fn start(
        seed: &ReplicaSeed,
        runtime: &Handle,
        group: GroupId,
        replica: ReplicaId,
        secret: HashSecret,
        founding: Founding,
    ) -> io::Result<Self> {
        let log = seed.log.group(group, replica);
        let keyspace = Keyspace::new(secret);
        let mut state = GroupState::new(group, replica, seed.nonce, keyspace, log.last_log_id());
        state.changes = seed.changes.clone();
        state.found_term = term_of(&log);
        state.level = seed.level.clone();
        let state = Arc::new(state);
        let (loading, opening, directory) = (state.clone(), log.clone(), seed.directory(group, replica));
        let (disk, turns) = (seed.disk.clone(), seed.snapshot_turns.clone());
        let open = move || SnapshotStore::open(disk, directory, turns, &loading, &opening);
        let snapshots = blocking(open).await??;
        seed.wait_out_lost_leases(log.vote().is_some()).await;
        let received = snapshots.directory().to_owned();
        let machine = GroupMachine { state: state.clone(), log: log.clone(), snapshots };
        let (acks, (floor, floor_seen)) = (Arc::new(Acks::default()), watch::channel(0));
        let network = seed.transport.network(group, acks.clone(), floor_seen);
        let (config, store) = (seed.raft_config.clone(), log.clone());
        let start = async move { openraft::Raft::new(replica.0, config, network, store, machine).await };
        let raft = runtime.spawn(start).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        {
            // Its requests are served on the runtime it lives on.
            let _on_runtime = runtime.enter();
            seed.transport.register(group, replica, raft.clone(), seed.place(received));
        }
        initialize(&raft, replica, &founding).await?;
        Ok(Self::run(seed, runtime, state, raft, log, acks, floor))
    }

    /// Starts the tasks beside openraft's own.
    fn run(
        seed: &ReplicaSeed,
        runtime: &Handle,
        state: Arc<GroupState>,
        raft: GroupRaft,
        log: GroupLog,
        acks: Arc<Acks>,
        floor: watch::Sender<u64>,
    ) -> Self {
        let (queue, queued) = submissions::channel();
        let (transfers, transfer_requests) = mpsc::channel(TRANSFERS_MAX);
        let (intake, intake_seen) = watch::channel(Intake::Closed);
        let (leads, leads_seen) = watch::channel(false);
        let handle = Arc::new(Group {
            state: state.clone(),
            raft: raft.clone(),
            log: log.clone(),
            queue,
            transfers,
            leads: leads_seen,
            acks: acks.clone(),
            read_index_wait: seed.timers.election_max,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(Proposer::new(state.clone(), raft.clone(), queued, intake_seen).run(), runtime);
        let leadership = LeadershipTask {
            state,
            raft: raft.clone(),
            intake,
            leads,
            transfers: transfer_requests,
            sightings: seed.sightings.clone(),
            election_timeout_max: seed.timers.election_max,
            reads: seed.reads,
            acks: acks.clone(),
            space: seed.space.clone(),
            walls: seed.walls.clone(),
            leaderships: seed.leaderships.clone(),
            current: None,
            last_sighting: None,
            clock_warned: None,
            waits_for_walls: None,
        };
        tasks.spawn_on(leadership.run(), runtime);
        let upkeep = Upkeep {
            group: handle.clone(),
            log,
            founding_slots: seed.founding_slots.clone(),
            log_bytes_max: seed.log_bytes_max,
            space: seed.space.clone(),
            floor,
        };
        tasks.spawn_on(upkeep.run(), runtime);
        let stopping = Arc::new(AtomicBool::new(false));
        tasks.spawn_on(end_with_failure(handle.clone(), stopping.clone(), seed.failed.clone()), runtime);
        Self { group: handle, acks, stopping, tasks }
    }

    /// Meant for a leader: whether a quorum has answered it within this time.
    pub fn hears_quorum(&self, within: Duration) -> bool {
        let state = self.group.state();
        let leader = won(self.group.raft(), state.found_term);
        leader.is_some_and(|leader| self.acks.hears_quorum(leader, state.replica, &state.applied().membership, within))
    }

    /// Stops the Raft task; clients still waiting get "unknown".
    pub async fn stop(mut self) {
        self.stopping.store(true, Ordering::Release);
        // A core that has failed is stopped already.
        let _ = self.group.raft().shutdown().await;
        self.group.state().pending.unknown_all();
        self.tasks.shutdown().await;
        self.group.state().metrics.end();
    }
}

/// Of the stored vote.
fn term_of(log: &GroupLog) -> u64 {
    log.vote().map_or(0, |vote| vote.leader_id.term)
}

/// § Only the replica that the meta group names initializes a group, and always with its first members: another is named when its node is away, and writes the
/// same entry. A wiped node has other replica ids, so it never does.
pub async fn initialize<SM: openraft::storage::RaftStateMachine<crate::raft::TypeConfig>>(
    raft: &openraft::Raft<crate::raft::TypeConfig, SM>,
    replica: ReplicaId,
    founding: &Founding,
) -> io::Result<()> {
    let initialized = raft.is_initialized().await.map_err(io::Error::other)?;
    if founding.initializer != replica || initialized {
        return Ok(());
    }
    let members: BTreeMap<u64, Member> =
        founding.members.iter().map(|(replica, node)| (replica.0, Member { node: *node })).collect();
    raft.initialize(members).await.map_err(io::Error::other)
}

async fn end_with_failure(group: Arc<Group>, stopping: Arc<AtomicBool>, failed: mpsc::Sender<String>) {
    watch_for_failure(group.raft().clone(), group.id(), stopping, failed).await;
    // Rule (e): a fatal error. Whoever waits is told before the node is gone.
    group.state().pending.unknown_all();
}

/// A replica whose core has stopped by itself (a failed log, a panic while applying) takes the node with it.
async fn watch_for_failure<SM: openraft::storage::RaftStateMachine<crate::raft::TypeConfig>>(
    raft: openraft::Raft<crate::raft::TypeConfig, SM>,
    group: GroupId,
    stopping: Arc<AtomicBool>,
    failed: mpsc::Sender<String>,
) {
    let mut changes = raft.metrics();
    loop {
        let running = changes.borrow_watched().running_state.clone();
        if let Err(error) = running {
            if stopping.load(Ordering::Acquire) {
                return;
            }
            let _ = failed.send(format!("group {group}: {error}")).await;
            return;
        }
        // Once in a while is enough, and cheaper than waking at every entry.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if matches!(tokio::time::timeout(Duration::ZERO, changes.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// Nothing is served under a lease of the meta group, so its leader only has to be known.
async fn report_meta_leader(raft: MetaRaft, state: Arc<MetaState>, sightings: mpsc::Sender<LeaderSighting>) {
    let mut changes = raft.server_metrics();
    loop {
        let (term, leader) = state.leader(&raft);
        let replica = state.replica;
        let leads_here = leader == Some(replica);
        let led_before = state.led_before(&raft);
        let sighting = LeaderSighting { group: GroupId::META, replica, term, leader, led_before, leads_here };
        if sightings.send(sighting).await.is_err() || changes.changed().await.is_err() {
            return;
        }
    }
}

/// The node's replica of the meta group.
#[derive(Debug)]
pub struct MetaReplica {
    pub raft: MetaRaft,
    acks: Arc<Acks>,
    pub state: Arc<MetaState>,
    tasks: JoinSet<()>,
}

impl MetaReplica {
    pub async fn start(
        seed: &ReplicaSeed,
        runtime: &Handle,
        replica: ReplicaId,
        known: Arc<Topology>,
        founding: Option<Founding>,
    ) -> io::Result<Self> {
        let group = GroupId::META;
        let log = seed.log.group(group, replica);
        let state = Arc::new(MetaState::new(replica, seed.nonce, term_of(&log), seed.level.clone(), Some(known)));
        let machine = MetaMachine::open(seed.disk.clone(), state.clone(), log.clone(), seed.directory(group, replica))?;
        seed.wait_out_lost_leases(log.vote().is_some()).await;
        let received = machine.files.directory().to_owned();
        // Nothing is read under a lease of the meta group, and its log stays small.
        let acks = Arc::<Acks>::default();
        let network = seed.transport.network(group, acks.clone(), watch::channel(0).1);
        let (config, store) = (seed.raft_config.clone(), log);
        let start = async move { openraft::Raft::new(replica.0, config, network, store, machine).await };
        let raft = runtime.spawn(start).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        {
            // Its requests are served on the runtime it lives on.
            let _on_runtime = runtime.enter();
            seed.transport.register(group, replica, raft.clone(), seed.place(received));
        }
        if let Some(founding) = founding {
            initialize(&raft, replica, &founding).await?;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn_on(watch_for_failure(raft.clone(), group, Arc::default(), seed.failed.clone()), runtime);
        tasks.spawn_on(report_meta_leader(raft.clone(), state.clone(), seed.sightings.clone()), runtime);
        Ok(Self { raft, acks, state, tasks })
    }

    /// Meant for a leader: whether a quorum has answered it within this time.
    pub fn hears_quorum(&self, within: Duration) -> bool {
        let membership = self.raft.metrics().borrow_watched().membership_config.clone();
        let leader = self.state.leadership(&self.raft);
        leader.is_some_and(|leader| self.acks.hears_quorum(leader, self.state.replica, &membership, within))
    }

    pub async fn stop(mut self) {
        let _ = self.raft.shutdown().await;
        self.tasks.shutdown().await;
    }
}
