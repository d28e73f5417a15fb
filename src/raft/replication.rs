//! Replication of one node: its replicas, the topology, leader hints and routing, behind one handle.
//!
//! One task (`replication/coordinator.rs`) owns what changes; everybody else reads swapped values and never waits.

mod coordinator;
mod hand_over;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::cluster::{
    self, Absent, Event, GroupId, Hints, Leaderless, MetaOp, MetaOutcome, News, NodeId, NodeInfo, ReplicaId,
    RouteTable, Topology,
};
use crate::config::{ConfigTable, Secret};
use crate::raft::batch::FEATURE_LEVEL;
use crate::raft::group::Group;
use crate::raft::membership::{self, ChangeError, MembershipStatus};
use crate::raft::meta::{self, MetaRaft, MetaState, ProposeError};
use crate::raft::page_parts::PageParts;
use crate::raft::slot_loads::SlotRequests;
use crate::raft::slots::Held;
use crate::raft::space::Space;
use crate::raft::succession::Leaderships;
use crate::raft::walls::Walls;
use crate::raft::{PeerState, Transport};
use crate::slot::KeySlot;

/// A node without a connection for so long is shown as failed: a fifth of Redis's cluster-node-timeout, and longer than a restart's
/// or a network's hiccup that nobody should see.
const FAILED_AFTER: Duration = Duration::from_secs(3);

pub use coordinator::{Coordinator, Start};

/// Where a key slot's commands go.
#[derive(Debug, Clone)]
pub enum Route {
    /// This node leads the group.
    Local(Arc<Group>),
    /// Another node leads it: its client address, `host:port`.
    Moved(Arc<str>),
    /// No leader is known at this moment: wait for one, within bounds.
    Park,
    /// The topology has no place for the slot to go.
    Down,
}

pub struct Replication {
    node: NodeId,
    /// Where this node is; the topology may not say so yet.
    announced: NodeInfo,
    meta_raft: MetaRaft,
    meta: Arc<MetaState>,
    transport: Transport,
    parameters: Arc<ConfigTable>,
    topology: ArcSwap<Topology>,
    hints: ArcSwap<Hints>,
    groups: ArcSwap<BTreeMap<GroupId, Arc<Group>>>,
    routes: ArcSwap<RouteTable>,
    /// Groups without a leader, and since when; see `Coordinator::leaderless_now`.
    leaderless: ArcSwap<BTreeMap<GroupId, Instant>>,
    /// Peers whose connection was lost a moment ago.
    lost: ArcSwap<BTreeSet<NodeId>>,
    /// Peers that have said that they are about to stop.
    leaving: ArcSwap<BTreeSet<NodeId>>,
    /// This node is.
    leaves: AtomicBool,
    pub(super) page_parts: PageParts,
    changes: watch::Sender<u64>,
    removed: watch::Sender<bool>,
    space: Arc<Space>,
    walls: Arc<Walls>,
    leaderships: Arc<ArcSwap<Leaderships>>,
    /// The highest feature levels that the nodes know that are connected.
    levels: Mutex<BTreeMap<NodeId, u16>>,
    slot_requests: SlotRequests,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replication({:?})", self.node)
    }
}

impl Replication {
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// What the meta group's state machine holds here, which `topology()` follows a moment later.
    pub fn newest_topology(&self) -> Arc<Topology> {
        self.meta.topology().borrow().clone().unwrap_or_else(|| self.topology())
    }

    /// Each of them, as the meta group's state machine here gets to know it.
    pub fn newest_topologies(&self) -> watch::Receiver<Option<Arc<Topology>>> {
        self.meta.topology()
    }

    pub fn events(&self) -> VecDeque<Event> {
        self.meta.events()
    }

    /// This node's client address.
    pub fn address(&self) -> cluster::Address {
        self.topology().node(self.node).map(NodeInfo::address).expect("a member knows itself")
    }

    pub(super) fn announced(&self) -> &NodeInfo {
        &self.announced
    }

    /// Where a peer says that it is.
    pub(super) fn hear_address(&self, node: NodeId, info: &NodeInfo) {
        self.transport.hear_address(node, &info.host, info.peer_port);
    }

    /// The cluster's password, for calls to other nodes' client ports.
    pub(super) fn password(&self) -> Option<Secret> {
        self.parameters.tunables().requirepass.clone()
    }

    pub(super) async fn ask(
        &self,
        node: NodeId,
        kind: u8,
        body: &[u8],
        wait_max: Duration,
    ) -> Result<bytes::Bytes, crate::raft::CallError> {
        self.transport.ask(node, kind, body, wait_max).await
    }

    pub fn hints(&self) -> Arc<Hints> {
        self.hints.load_full()
    }

    /// Bumped at every change of leadership, hints or topology.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Bumped with `changes`: two routes given at one version agree.
    pub fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    pub fn route(&self, key_slot: KeySlot) -> Route {
        let slot = key_slot.slot();
        let routes = self.routes.load();
        let route = routes.route(key_slot);
        let groups = self.groups.load();
        if let cluster::Route::Local(group) = route
            && let Some(group) = groups.get(&group).filter(|group| group.keyspace().owns(slot))
        {
            return Route::Local(group.clone());
        }
        // § What a group owns is its own state, which may be ahead of the topology known here: a slot that has come is served, and one that
        // is coming waits. Sent to where it came from, the client would be sent back.
        let named = routes.group_of(key_slot);
        for group in groups.values().filter(|group| Some(group.id()) != named && group.leads()) {
            if group.keyspace().owns(slot) {
                return Route::Local(group.clone());
            }
            if matches!(group.held(slot), Some(Held::Adopted { .. })) {
                return Route::Park;
            }
        }
        match route {
            cluster::Route::Moved(address) => Route::Moved(address.clone()),
            // The slot is frozen, or has left and the topology is behind.
            cluster::Route::Local(_) | cluster::Route::Park(_) => Route::Park,
            cluster::Route::Down => Route::Down,
        }
    }

    /// Where commands for all keys of a group go.
    pub fn route_group(&self, group: GroupId) -> Route {
        match self.routes.load().route_group(group) {
            cluster::Route::Local(group) => self.group(group).map_or(Route::Park, Route::Local),
            cluster::Route::Moved(address) => Route::Moved(address.clone()),
            cluster::Route::Park(_) => Route::Park,
            cluster::Route::Down => Route::Down,
        }
    }

    /// This node's replicas of data groups.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.load().values().cloned().collect()
    }

    pub fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.load().get(&group).cloned()
    }

    pub fn led_groups(&self) -> Vec<Arc<Group>> {
        self.groups.load().values().filter(|group| group.leads()).cloned().collect()
    }

    /// On this node's disk and its peers'.
    pub fn slot_requests(&self) -> &SlotRequests {
        &self.slot_requests
    }

    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub fn peers(&self) -> Vec<PeerState> {
        self.transport.peers()
    }

    /// From now on nobody is to hand leaderships to this node: it would be gone a moment later.
    pub fn announce_departure(&self) {
        self.leaves.store(true, Ordering::Release);
        self.announce();
    }

    fn announce(&self) {
        let news = News {
            hints: Hints::clone(&self.hints.load()),
            space: self.space.own(),
            level: FEATURE_LEVEL,
            wall: Timestamp::wall_now(),
            leaving: self.leaves.load(Ordering::Acquire),
            connected: self.peers().iter().filter(|peer| peer.lost_for.is_none()).map(|peer| peer.node).collect(),
        };
        let fits = self.transport.broadcast_hint(news.encode().into());
        debug_assert!(fits, "hints of every group fit a frame");
    }

    /// Nodes that this one is connected to, and itself.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let peers = self.peers();
        let connected = peers.iter().filter(|peer| peer.connected_for.is_some()).map(|peer| peer.node);
        connected.chain([self.node()]).collect()
    }

    /// A feature level above the present one that every node knows.
    pub fn next_level(&self) -> Option<u16> {
        let topology = self.newest_topology();
        let (own, levels) = (self.node(), self.levels.lock());
        let known = |node: &NodeId| if *node == own { FEATURE_LEVEL } else { levels.get(node).copied().unwrap_or(0) };
        let common = topology.nodes().keys().map(known).min();
        common.filter(|level| *level > topology.level())
    }

    /// Resolves when the cluster has let go of this node.
    pub async fn removed(&self) {
        // The sender is in `self`, so waiting cannot fail.
        self.removed.subscribe().wait_for(|removed| *removed).await.ok();
    }

    pub(super) fn mark_removed(&self) {
        self.removed.send_replace(true);
    }

    /// Who is not there, for clients to see. Nothing is decided by it: a group replaces a silent leader by its own vote.
    pub fn absent(&self) -> Absent {
        let leaderless = self.leaderless.load();
        let leaderless = leaderless.iter().map(|(group, since)| {
            let long = since.elapsed() > FAILED_AFTER;
            (*group, if long { Leaderless::Long } else { Leaderless::Shortly })
        });
        let leaderless = leaderless.collect();
        Absent { lost: BTreeSet::clone(&self.lost.load()), failed: self.failed_nodes(), leaderless }
    }

    /// Without a connection for so long that they are shown as failed.
    fn failed_nodes(&self) -> BTreeSet<NodeId> {
        let failed = |peer: &PeerState| peer.lost_for.is_some_and(|lost_for| lost_for > FAILED_AFTER);
        self.peers().iter().filter(|peer| failed(peer)).map(|peer| peer.node).collect()
    }

    /// Whether the group has a leader, as far as this node can tell.
    pub fn is_led(&self, group: GroupId) -> bool {
        !self.leaderless.load().contains_key(&group)
    }

    /// True while this node leads the meta group.
    pub fn leads_meta(&self) -> bool {
        self.meta.leadership(&self.meta_raft).is_some()
    }

    /// True once the founding plan is committed and every group that is in use has had a leader or an election. Stays true through elections, during which
    /// requests wait, while a group is made, and when all nodes are started again and a group finds no quorum: the others must be looked after.
    pub fn is_formed(&self) -> bool {
        let hints = self.hints();
        self.meta.is_founded() && self.topology().groups_in_use().all(|group| hints.has_begun(group))
    }

    /// Err says what is missing: a replica that has not started, or a group without a known leader.
    pub fn readiness(&self) -> Result<(), String> {
        let topology = self.topology();
        for (group, _) in topology.replicas_on(self.node) {
            if self.group(group).is_none() {
                return Err(format!("the replica of group {group} is starting"));
            }
        }
        match topology.groups_in_use().find(|group| !self.is_led(*group)) {
            Some(group) => Err(format!("group {group} has no leader now")),
            None => Ok(()),
        }
    }

    pub async fn propose(&self, op: &MetaOp) -> Result<MetaOutcome, ProposeError> {
        let leader = self.meta.leadership(&self.meta_raft).ok_or(ProposeError::NotLeader)?;
        self.check_address(op).await?;
        meta::propose(&self.meta_raft, &self.meta, leader, op).await
    }

    pub fn meta_membership(&self) -> MembershipStatus {
        membership::status(&self.meta_raft)
    }

    pub fn membership(&self, group: &Group) -> MembershipStatus {
        membership::status(group.raft())
    }

    /// `group` of META changes the meta group; the caller leads it.
    pub async fn add_learner(&self, group: GroupId, replica: ReplicaId, node: NodeId) -> Result<(), ChangeError> {
        match self.group(group) {
            Some(group) => membership::add_learner(group.raft(), replica, node).await,
            None if group == GroupId::META => membership::add_learner(&self.meta_raft, replica, node).await,
            None => Err(ChangeError(format!("group {group} has no replica here"))),
        }
    }

    /// See `add_learner`. Voters that are to be none stay as learners in the meta group, where every node has one; data groups they leave.
    pub async fn change_voters(&self, group: GroupId, voters: &BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        match self.group(group) {
            Some(group) => membership::change_voters(group.raft(), voters, false).await,
            None if group == GroupId::META => membership::change_voters(&self.meta_raft, voters, true).await,
            None => Err(ChangeError(format!("group {group} has no replica here"))),
        }
    }

    /// See `add_learner`. Changing the voters leaves those alone that were learners before.
    pub async fn remove_learners(&self, group: GroupId, gone: &BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        match self.group(group) {
            Some(group) => membership::remove_learners(group.raft(), gone).await,
            None if group == GroupId::META => membership::remove_learners(&self.meta_raft, gone).await,
            None => Err(ChangeError(format!("group {group} has no replica here"))),
        }
    }
}
