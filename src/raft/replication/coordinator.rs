//! The task that changes what `Replication` shows: it hears sightings of leaders, hints, connections and topologies, starts the replicas that
//! the topology puts here, stops those that it takes away, and swaps the route table.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Replication;
use crate::cluster::{
    self, Ballot, FoundingPlan, GroupId, Hints, LeaderHint, MetaOp, News, NodeId, ReplicaId, RouteTable, Topology,
};
use crate::config::ConfigTable;
use crate::keyspace::HashSecret;
use crate::raft::Transport;
use crate::raft::blocking::blocking;
use crate::raft::leadership::LeaderSighting;
use crate::raft::membership;
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

/// How long a leader whose connection was lost is not named. Elections take less, also on a busy machine.
const LOST_LEADER_DOUBT: Duration = Duration::from_secs(5);

/// A peer that still has its connection to a node so long after this one's was lost does not only lack the news that the node is dead.
const LOST_HERE_ALONE_AFTER: Duration = Duration::from_secs(1);

/// Everything the coordinator is started with.
pub struct Start {
    pub file: NodeFile,
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
        let founding = plan.as_ref().filter(|plan| plan.founder() == node).map(|_| Founding {
            initializer: replica,
            members: topology
                .meta_members()
                .into_iter()
                .filter(|(_, (_, role))| *role == cluster::MetaRole::Voter)
                .map(|(replica, (node, _))| (replica, node))
                .collect(),
        });
        let runtime = &start.runtimes[0];
        let meta = MetaReplica::start(&start.seed, runtime, replica, topology.clone(), founding).await?;
        let routes = RouteTable::new(&topology, &Hints::default(), node, &BTreeSet::new());
        let replication = Arc::new(Replication {
            node,
            meta_raft: meta.raft.clone(),
            meta: meta.state.clone(),
            transport: start.transport,
            parameters: start.parameters,
            topology: ArcSwap::new(topology),
            hints: ArcSwap::default(),
            groups: ArcSwap::default(),
            routes: ArcSwap::from_pointee(routes),
            lost: ArcSwap::default(),
            leaving: ArcSwap::default(),
            leaves: AtomicBool::new(false),
            page_parts: PageParts::default(),
            changes: start.seed.changes.clone(),
            removed: watch::Sender::new(false),
            space: start.seed.space.clone(),
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
                    self.part();
                    self.release_log();
                    if std::mem::take(&mut self.untaken) {
                        topologies.mark_changed();
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

    fn learn_sighting(&mut self, sighting: LeaderSighting) {
        if self.own_replica(sighting.group) != Some(sighting.replica) {
            // It is told once: dropped, it would leave the group without a known leader for as long as that one leads.
            self.early.insert(sighting.group, sighting);
            return;
        }
        let was_leading = self.leads.contains(&sighting.group);
        if sighting.leads_here {
            self.leads.insert(sighting.group);
        } else {
            self.leads.remove(&sighting.group);
        }
        let mut changed = was_leading != sighting.leads_here;
        // A leader hears of itself before its first entry is applied; it is announced when it can serve.
        match sighting.leader.filter(|leader| *leader != sighting.replica || sighting.leads_here) {
            Some(replica) => {
                if let Some(node) = self.node_of(sighting.group, replica) {
                    let hint = LeaderHint { term: sighting.term, replica, node };
                    changed |= self.hints.learn(sighting.group, hint);
                }
            }
            None => {
                let ballot = Ballot { term: sighting.term, replica: ReplicaId(0) };
                changed |= self.hints.learn_election(sighting.group, ballot);
            }
        }
        if changed {
            self.publish();
            self.replication.announce();
        }
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
                if let Err(error) = blocking(move || std::fs::remove_dir_all(&removed)).await.flatten() {
                    tracing::warn!(%error, directory = %directory.display(), "a removed replica's directory stays");
                }
            });
        }
    }

    fn learn_connection(&mut self, node: NodeId, connected: bool) {
        if connected {
            self.lost.remove(&node);
        } else {
            self.lost.insert(node, Instant::now());
            self.replication.space.forget(node);
            self.learn_departure(node, false);
            self.succeed(node);
        }
        self.publish();
    }

    /// Elects others in place of a leader whose process has most likely ended.
    fn succeed(&mut self, lost: NodeId) {
        for (group, (own, replica)) in &self.replicas {
            if let Some(leader) = self.hints.leader(*group).filter(|leader| leader.node == lost) {
                let (raft, timers) = (replica.group.raft().clone(), self.start.seed.timers);
                self.proposals.spawn(succession::succeed(raft, *group, *own, leader.replica, timers));
            }
        }
    }

    fn forget_lost(&mut self) {
        let before = self.lost.len();
        self.lost.retain(|_, since| since.elapsed() < LOST_LEADER_DOUBT);
        if self.lost.len() != before {
            self.publish();
        }
    }

    /// What requests are routed by: a leader whose connection was just lost is most likely dead, and a MOVED to it would only make the client
    /// give up. Requests wait for its successor instead. If none appears the others still hear it, so it is named again.
    fn hints_for_routing(&self, topology: &Topology) -> Hints {
        let mut hints = self.hints.clone();
        for group in topology.groups().keys() {
            if let Some(leader) = hints.leader(*group).filter(|leader| self.lost.contains_key(&leader.node)) {
                hints.learn_election(*group, Ballot { term: leader.term, replica: ReplicaId(u64::MAX) });
            }
        }
        hints
    }

    fn learn_news(&mut self, from: NodeId, bytes: &[u8]) {
        match News::decode(bytes) {
            Ok(News { mut hints, space, leaving, connected }) => {
                hints.forget_dissolved(&self.replication.topology.load());
                self.replication.space.learn(from, space);
                self.learn_departure(from, leaving);
                let lost = self.lost.len();
                // Alive, and cut off from this node alone: its leaderships go on.
                self.lost.retain(|node, since| since.elapsed() < LOST_HERE_ALONE_AFTER || !connected.contains(node));
                if self.hints.merge(&hints) || self.lost.len() != lost {
                    self.publish();
                }
            }
            Err(error) => tracing::warn!(%error, "a peer's leader hints were dropped"),
        }
    }

    fn learn_departure(&self, node: NodeId, leaving: bool) {
        let known = self.replication.leaving.load();
        if known.contains(&node) != leaving {
            let mut leaving_now = BTreeSet::clone(&known);
            if leaving {
                leaving_now.insert(node)
            } else {
                leaving_now.remove(&node)
            };
            self.replication.leaving.store(Arc::new(leaving_now));
        }
    }

    fn own_replica(&self, group: GroupId) -> Option<ReplicaId> {
        if group == GroupId::META {
            return Some(self.meta.state.replica);
        }
        self.replicas.get(&group).map(|(replica, _)| *replica)
    }

    /// The raft membership knows replicas that the topology has let go of already.
    fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        let status = match self.replicas.get(&group) {
            Some((_, replica)) => membership::status(replica.group.raft()),
            None => membership::status(&self.meta.raft),
        };
        status.members.get(&replica).copied()
    }

    /// Makes the current knowledge visible to requests.
    fn publish(&self) {
        let topology = self.replication.topology.load();
        let hints = self.hints_for_routing(&topology);
        let routes = RouteTable::new(&topology, &hints, self.replication.node, &self.leads);
        self.replication.hints.store(Arc::new(self.hints.clone()));
        self.replication.routes.store(Arc::new(routes));
        self.replication.lost.store(Arc::new(self.lost.keys().copied().collect()));
        self.replication.changes.send_modify(|count| *count += 1);
    }

    async fn take_topology(&mut self, topology: Arc<Topology>) {
        let node = self.replication.node;
        for (peer, info) in topology.nodes() {
            self.replication.transport.set_peer(*peer, &info.host, info.peer_port);
        }
        for peer in self.replication.topology.load().nodes().keys().filter(|peer| topology.node(**peer).is_none()) {
            self.parting.entry(*peer).or_insert_with(Instant::now);
        }
        self.part();
        self.hints.forget_dissolved(&topology);
        let (file, record) = (self.start.file.clone(), topology.clone());
        let write = move || file.lock().update_topology(&record);
        let written = blocking(write).await;
        if let Err(error) = written.and_then(|written| written) {
            if is_full(&error) {
                self.untaken = true;
                // § Replicas are started and stopped only by what the file says. Requests follow a slot all the same: its old group has let go of it.
                if topology.differs_in_slots_alone(&self.replication.topology.load()) {
                    self.replication.topology.store(topology);
                    self.publish();
                }
                return;
            }
            // § Nothing is removed that the file still names: the next start would bring it back empty, under its old id.
            return self.fail(format!("cannot write the node file: {error}"));
        }
        if topology.node(node).is_none() {
            // It goes on by the last topology that it is in until it has stopped.
            return self.replication.mark_removed();
        }
        self.replication.topology.store(topology);
        self.stop_removed().await;
        self.arrange_replicas();
        self.initialize_named();
        self.publish();
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
