//! The task that changes what `Replication` shows: it hears sightings of leaders, hints, connections and topologies, starts the replicas that
//! the topology puts here, and stops those that it takes away. What it knows of leaders, and the route table that comes of it, are in `leaders.rs`.

mod leaders;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Replication;
use crate::cluster::{self, FoundingPlan, GroupId, Hints, MetaOp, NodeId, NodeInfo, ReplicaId, RouteTable, Topology};
use crate::config::ConfigTable;
use crate::keyspace::HashSecret;
use crate::raft::Transport;
use crate::raft::blocking::blocking;
use crate::raft::leadership::LeaderSighting;
use crate::raft::log::remove_directory;
use crate::raft::node_file::NodeFile;
use crate::raft::page_parts::PageParts;
use crate::raft::replica::{Founding, MetaReplica, Replica, ReplicaSeed, initialize};
use crate::raft::retention;
use crate::raft::slot_loads::SlotRequests;
use crate::raft::space::is_full;
use crate::raft::succession;

/// Hints are sent at every change, and this often for peers that missed one.
const HINT_INTERVAL: Duration = Duration::from_millis(500);

/// How long the connection to a node that was removed stays.
const PARTING: Duration = Duration::from_secs(3);

const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Everything the coordinator is started with.
pub struct Start {
    pub file: NodeFile,
    /// Where this node is.
    pub announced: NodeInfo,
    pub topology: Topology,
    pub seed: ReplicaSeed,
    pub transport: Transport,
    pub parameters: Arc<ConfigTable>,
    /// Where replicas run, in turn.
    pub runtimes: Vec<Handle>,
    pub sightings: mpsc::Receiver<LeaderSighting>,
    /// Hints from peers, encoded.
    pub hints: mpsc::Receiver<(NodeId, bytes::Bytes)>,
    /// Peers whose connection was made (true) or lost.
    pub connections: mpsc::Receiver<(NodeId, bool)>,
}

/// Owns the replicas; see the module's text.
pub struct Coordinator {
    replication: Arc<Replication>,
    meta: MetaReplica,
    plan: Option<FoundingPlan>,
    replicas: BTreeMap<GroupId, (ReplicaId, Replica)>,
    hints: Hints,
    leads: BTreeSet<GroupId>,
    /// Peers whose connection was lost a moment ago.
    lost: BTreeMap<NodeId, Instant>,
    /// Nodes that neither this one nor any that it hears has a connection to, for long.
    gone: BTreeSet<NodeId>,
    /// The connections of those that this node has one to, as they told last.
    connected: BTreeMap<NodeId, BTreeSet<NodeId>>,
    leaderless: BTreeMap<GroupId, Instant>,
    /// Peers that were members until a moment ago.
    parting: BTreeMap<NodeId, Instant>,
    start: StartRest,
    /// Replicas that are still being started, so that one slow snapshot does not hold up the rest.
    starting: BTreeSet<GroupId>,
    /// What replicas have seen that this task has yet to hear of.
    early: BTreeMap<GroupId, LeaderSighting>,
    proposals: JoinSet<()>,
    log_checked: Instant,
    /// The newest topology is to be taken when the disk has space for it.
    untaken: bool,
    /// The node file has another owner of some slot than the topology here.
    unwritten: bool,
    started: (mpsc::Sender<StartedReplica>, mpsc::Receiver<StartedReplica>),
}

struct StartRest {
    file: Arc<Mutex<NodeFile>>,
    seed: ReplicaSeed,
    runtimes: Vec<Handle>,
    sightings: mpsc::Receiver<LeaderSighting>,
    hint_messages: mpsc::Receiver<(NodeId, bytes::Bytes)>,
    connections: mpsc::Receiver<(NodeId, bool)>,
}

type StartedReplica = (GroupId, ReplicaId, io::Result<Replica>);

/// Replicas that may be starting at once; more wait for a place in the channel.
const STARTING_MAX: usize = 64;

fn all_groups(topology: &Topology) -> impl Iterator<Item = GroupId> {
    std::iter::once(GroupId::META).chain(topology.groups().keys().copied())
}

fn founding_of_meta(topology: &Topology, initializer: ReplicaId) -> Founding {
    let voters = topology.meta_members().into_iter().filter(|(_, (_, role))| *role == cluster::MetaRole::Voter);
    Founding { initializer, members: voters.map(|(replica, (node, _))| (replica, node)).collect() }
}

impl Coordinator {
    /// Starts the meta replica and returns; data replicas follow in `run`.
    pub async fn start(start: Start) -> io::Result<Self> {
        let node = start.file.record.node;
        let topology = Arc::new(start.topology);
        let replica = topology.meta_replica_on(node).ok_or_else(|| {
            io::Error::other("this node is no longer a member of its cluster: wipe its data directory to join anew")
        })?;
        for (peer, info) in topology.nodes() {
            start.transport.set_peer(*peer, &info.host, info.peer_port);
        }
        // § The founder alone initializes the meta group, and does so again after a crash in between: a log that is not empty
        // refuses it.
        let plan = start.file.plan().cloned();
        let founding =
            plan.as_ref().filter(|plan| plan.founder() == node).map(|_| founding_of_meta(&topology, replica));
        let runtime = &start.runtimes[0];
        let meta = MetaReplica::start(&start.seed, runtime, replica, topology.clone(), founding).await?;
        let routes = RouteTable::new(&topology, &Hints::default(), node, &BTreeSet::new());
        let now = Instant::now();
        let leaderless: BTreeMap<GroupId, Instant> = all_groups(&topology).map(|group| (group, now)).collect();
        let replication = Arc::new(Replication {
            node,
            announced: start.announced,
            meta_raft: meta.raft.clone(),
            meta: meta.state.clone(),
            transport: start.transport,
            parameters: start.parameters,
            topology: ArcSwap::new(topology),
            hints: ArcSwap::default(),
            groups: ArcSwap::default(),
            routes: ArcSwap::from_pointee(routes),
            leaderless: ArcSwap::from_pointee(leaderless.clone()),
            lost: ArcSwap::default(),
            leaving: ArcSwap::default(),
            leaves: AtomicBool::new(false),
            page_parts: PageParts::default(),
            changes: start.seed.changes.clone(),
            removed: watch::Sender::new(false),
            space: start.seed.space.clone(),
            walls: start.seed.walls.clone(),
            leaderships: start.seed.leaderships.clone(),
            levels: Mutex::default(),
            slot_requests: SlotRequests::default(),
        });
        Ok(Self {
            replication,
            meta,
            plan,
            replicas: BTreeMap::new(),
            hints: Hints::default(),
            leads: BTreeSet::new(),
            lost: BTreeMap::new(),
            gone: BTreeSet::new(),
            connected: BTreeMap::new(),
            leaderless,
            parting: BTreeMap::new(),
            start: StartRest {
                file: Arc::new(Mutex::new(start.file)),
                seed: start.seed,
                runtimes: start.runtimes,
                sightings: start.sightings,
                hint_messages: start.hints,
                connections: start.connections,
            },
            starting: BTreeSet::new(),
            early: BTreeMap::new(),
            proposals: JoinSet::new(),
            log_checked: Instant::now(),
            untaken: false,
            unwritten: false,
            started: mpsc::channel(STARTING_MAX),
        })
    }

    pub fn replication(&self) -> Arc<Replication> {
        self.replication.clone()
    }

    /// Runs until `stop` changes, then stops every replica.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut topologies = self.meta.state.topology();
        // One applied before this line is taken too.
        topologies.mark_changed();
        let mut interval = tokio::time::interval(HINT_INTERVAL);
        self.forget_removed();
        self.arrange_replicas();
        loop {
            tokio::select! {
                biased;
                // A closed channel stops the node as well.
                _ = stop.changed() => break,
                _ = interval.tick() => {
                    self.replication.announce();
                    self.propose_founding();
                    self.forget_lost();
                    self.look_for_leaders();
                    self.part();
                    self.release_log();
                    if std::mem::take(&mut self.untaken) {
                        topologies.mark_changed();
                    } else if std::mem::take(&mut self.unwritten) {
                        let topology = self.replication.topology.load_full();
                        self.write_down(topology).await;
                    }
                }
                Some(sighting) = self.start.sightings.recv() => self.learn_sighting(sighting),
                Some((from, bytes)) = self.start.hint_messages.recv() => self.learn_news(from, &bytes),
                Some((node, connected)) = self.start.connections.recv() => self.learn_connection(node, connected),
                Ok(()) = topologies.changed() => {
                    let topology = topologies.borrow_and_update().clone();
                    if let Some(topology) = topology {
                        self.take_topology(topology).await;
                    }
                }
                Some(started) = self.started.1.recv() => self.take_replica(started).await,
            }
        }
        for (_, (_, replica)) in self.replicas {
            replica.stop().await;
        }
        self.meta.stop().await;
    }

    /// The meta log's first op is the plan. Whichever founding node leads proposes it until it is applied.
    fn propose_founding(&mut self) {
        if self.meta.state.is_founded() {
            self.plan = None;
        }
        if let Some(plan) = &self.plan
            && self.replication.leads_meta()
        {
            let (replication, op) = (self.replication.clone(), MetaOp::Found(Box::new(plan.clone())));
            self.proposals.spawn(async move {
                if let Err(error) = replication.propose(&op).await {
                    tracing::info!(%error, "the founding plan is not in the meta log yet");
                }
            });
        }
        while self.proposals.try_join_next().is_some() {}
    }

    /// A segment of the log stays until every group is purged past it, and a quiet group, the meta group above all, would hold them all: when there are
    /// more than busy groups keep by themselves, those that hold the oldest let go of them.
    fn release_log(&mut self) {
        if self.log_checked.elapsed() < LOG_CHECK_INTERVAL {
            return;
        }
        self.log_checked = Instant::now();
        let seed = &self.start.seed;
        for pin in seed.log.pins(retention::log_bytes_of(self.replicas.len(), seed.log_bytes_max)) {
            if (pin.group, pin.replica) == (GroupId::META, self.meta.state.replica) {
                self.proposals.spawn(retention::release(self.meta.raft.clone(), pin));
            } else if let Some((_, replica)) = self.replicas.get(&pin.group).filter(|(id, _)| *id == pin.replica) {
                self.proposals.spawn(retention::release(replica.group.raft().clone(), pin));
            }
        }
    }

    /// Removes what is left of replicas that the topology took away, now, before a crash, or while this node was down.
    fn forget_removed(&mut self) {
        let topology = self.replication.topology.load_full();
        let mut kept: BTreeSet<(GroupId, ReplicaId)> = topology.replicas_on(self.replication.node).collect();
        kept.extend(self.replicas.iter().map(|(group, (replica, _))| (*group, *replica)));
        kept.insert((GroupId::META, self.meta.state.replica));
        let seed = &self.start.seed;
        for directory in retention::forget_others(&seed.log, &seed.data_directory, &kept, &self.starting) {
            self.proposals.spawn(async move {
                let removed = directory.clone();
                // Tried again at the next change or start.
                if let Err(error) = blocking(move || remove_directory(&removed)).await.flatten() {
                    tracing::warn!(%error, directory = %directory.display(), "a removed replica's directory stays");
                }
            });
        }
    }

    fn own_replica(&self, group: GroupId) -> Option<ReplicaId> {
        if group == GroupId::META {
            return Some(self.meta.state.replica);
        }
        self.replicas.get(&group).map(|(replica, _)| *replica)
    }

    async fn take_topology(&mut self, topology: Arc<Topology>) {
        // § Replicas are started and stopped only by what the file says. Slots are not: their groups know what they own, and who asks for one is sent on.
        // The file follows; clients of a slot that has moved do not wait for it, nor for a disk that is full.
        if topology.differs_in_slots_alone(&self.replication.topology.load()) {
            self.unwritten = true;
            self.replication.topology.store(topology);
            return self.publish();
        }
        let node = self.replication.node;
        for (peer, info) in topology.nodes() {
            self.replication.transport.set_peer(*peer, &info.host, info.peer_port);
        }
        for peer in self.replication.topology.load().nodes().keys().filter(|peer| topology.node(**peer).is_none()) {
            self.parting.entry(*peer).or_insert_with(Instant::now);
        }
        self.part();
        self.hints.forget_dissolved(&topology);
        // § Nothing is removed that the file still names: the next start would bring it back empty, under its old id.
        if !self.write_down(topology.clone()).await {
            return;
        }
        if topology.node(node).is_none() {
            // It goes on by the last topology that it is in until it has stopped.
            return self.replication.mark_removed();
        }
        self.start.seed.level.store(topology.level(), Ordering::Relaxed);
        self.replication.topology.store(topology);
        self.stop_removed().await;
        self.arrange_replicas();
        self.initialize_named();
        self.publish();
    }

    /// Writes the node file. False if it could not: on a full disk that is tried again, else the node stops.
    async fn write_down(&mut self, topology: Arc<Topology>) -> bool {
        let file = self.start.file.clone();
        let written = blocking(move || file.lock().update_topology(&topology)).await;
        match written.and_then(|written| written) {
            Ok(()) => self.unwritten = false,
            Err(error) if is_full(&error) => {
                self.untaken = true;
                return false;
            }
            Err(error) => {
                self.fail(format!("cannot write the node file: {error}"));
                return false;
            }
        }
        true
    }

    /// A node that was removed is to hear of it: the entry that says so comes by the connection that is about to end.
    fn part(&mut self) {
        let transport = &self.replication.transport;
        self.parting.retain(|node, since| {
            let stays = since.elapsed() < PARTING && transport.is_connected(*node);
            if !stays {
                transport.remove_peer(*node);
            }
            stays
        });
    }

    /// A running replica may be named initializer when the node that was is lost; see `GroupInfo::initializer`.
    fn initialize_named(&mut self) {
        let topology = self.replication.topology.load_full();
        for (group, (id, replica)) in &self.replicas {
            let Some(info) = topology.group(*group).filter(|info| info.initializer == *id) else { continue };
            let founding = Founding { initializer: info.initializer, members: info.founding.clone() };
            let (id, handle) = (*id, replica.group.clone());
            self.proposals.spawn(async move {
                if let Err(error) = initialize(handle.raft(), id, &founding).await {
                    tracing::warn!(group = %handle.id(), %error, "the group was not initialized");
                }
            });
        }
    }

    fn fail(&self, reason: String) {
        // A full channel means that the node is stopping for another reason already.
        let _ = self.start.seed.failed.try_send(reason);
    }

    /// Stops replicas that the topology no longer puts here.
    async fn stop_removed(&mut self) {
        let topology = self.replication.topology.load_full();
        let wanted: BTreeMap<GroupId, ReplicaId> = topology.replicas_on(self.replication.node).collect();
        let removed: Vec<GroupId> = self
            .replicas
            .iter()
            .filter(|(group, (replica, _))| wanted.get(group) != Some(replica))
            .map(|(group, _)| *group)
            .collect();
        for group in removed {
            let Some((id, replica)) = self.replicas.remove(&group) else { continue };
            self.leads.remove(&group);
            self.publish_groups();
            self.replication.transport.deregister(group, id);
            replica.stop().await;
        }
        self.forget_removed();
    }

    /// Starts replicas that the topology puts here.
    fn arrange_replicas(&mut self) {
        let topology = self.replication.topology.load_full();
        for (group, replica) in topology.replicas_on(self.replication.node) {
            if self.replicas.contains_key(&group) || !self.starting.insert(group) {
                continue;
            }
            let Some(info) = topology.group(group) else { continue };
            let founding = Founding { initializer: info.initializer, members: info.founding.clone() };
            let runtime = self.start.runtimes[group.0 as usize % self.start.runtimes.len()].clone();
            let (seed, started) = (self.start.seed.clone(), self.started.0.clone());
            let secret = HashSecret(topology.hash_secret());
            let target = runtime.clone();
            runtime.spawn(async move {
                let result = Replica::start(&seed, &target, group, replica, secret, founding).await;
                // The coordinator is gone only when the node stops.
                let _ = started.send((group, replica, result)).await;
            });
        }
    }

    async fn take_replica(&mut self, (group, id, result): StartedReplica) {
        self.starting.remove(&group);
        match result {
            Ok(replica) => {
                let handle = replica.group.clone();
                let preferred = self.replication.topology.load().group(group).is_some_and(|info| info.preferred == id);
                if preferred && handle.state().found_term > 0 {
                    self.proposals.spawn(succession::stand_first(handle, self.start.seed.timers));
                }
                self.replicas.insert(group, (id, replica));
                self.publish_groups();
                if let Some(sighting) = self.early.remove(&group).filter(|sighting| sighting.replica == id) {
                    self.learn_sighting(sighting);
                }
                // The topology may have moved on meanwhile, even to another replica of the same group here.
                self.stop_removed().await;
                self.arrange_replicas();
                self.publish();
            }
            Err(error) => self.fail(format!("replica {id} of group {group} does not start: {error}")),
        }
    }

    fn publish_groups(&self) {
        let groups = self.replicas.iter().map(|(group, (_, replica))| (*group, replica.group.clone())).collect();
        self.replication.groups.store(Arc::new(groups));
    }
}
