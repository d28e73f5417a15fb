//! The topology: slot -> group -> replicas -> nodes, as the meta group replicates it.
//!
//! It changes through `Topology::apply` (in `meta.rs`) alone, which is deterministic, so every node holds the same one.
//! It says where replicas *should* be; who leads is a hint (`hints.rs`), and what a group owns is the group's own
//! state: the topology only routes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Absence, ClusterId, Draining, Epoch, Event, GroupId, Move, MoveId, NodeId, ReplicaId, Settings};
use crate::slot::{SLOT_COUNT, Slot};

/// Voters of the meta group. More would slow its commits and protect nothing that five do not.
pub const META_VOTER_COUNT_MAX: usize = 5;
/// Nodes of one cluster. Every node holds the whole topology and talks to every other one.
pub const NODE_COUNT_MAX: usize = 1024;

/// A client address as given to `--initial-cluster` and printed in MOVED.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// A host name, an IPv4 or a bare IPv6 address.
    pub host: String,
    pub port: u16,
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeInfo {
    pub host: String,
    /// Where clients connect.
    pub port: u16,
    /// Where peers connect; printed as the cluster bus port.
    pub peer_port: u16,
    /// Metrics and health. 0: off.
    pub http_port: u16,
}

/// One data group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The replica that creates the group, with `founding` as its members. Moves to another founding replica if its node is
    /// away or replaced, which is safe at any time: initializing with the same members twice is the same as once.
    pub initializer: ReplicaId,
    /// The group's first members. Never changes.
    pub founding: BTreeMap<ReplicaId, NodeId>,
    /// The voters that the group should have.
    pub replicas: BTreeMap<ReplicaId, NodeId>,
    /// Replicas that are to go, and run until the group's leader has committed a membership without them.
    pub departing: BTreeMap<ReplicaId, NodeId>,
    /// Who should lead when all is well, so that leaders are spread evenly. One of `replicas`.
    pub preferred: ReplicaId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MetaRole {
    Voter,
    Learner,
}

/// The feature level that a cluster begins with.
pub const FIRST_LEVEL: u16 = 1;

/// See the module's text. Only a founded topology exists; a node that has none yet holds `None`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub(super) cluster_id: ClusterId,
    pub(super) epoch: Epoch,
    pub(super) settings: Settings,
    /// Seeds the hash of keys inside buckets, so that nobody outside can aim at one sub-table.
    pub(super) hash_secret: [u64; 4],
    pub(super) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(super) groups: BTreeMap<GroupId, GroupInfo>,
    /// The group of each of the 1024 slots, in order.
    pub(super) slots: Vec<GroupId>,
    /// One meta replica per node.
    pub(super) meta: BTreeMap<ReplicaId, NodeId>,
    pub(super) next_replica_id: ReplicaId,
    /// Nodes that were replaced or forgotten. A late duplicate of such a node's Join must not evict its successor.
    pub(super) forgotten: BTreeSet<NodeId>,
    /// Nodes that the meta leader has no connection to.
    pub(super) absent: BTreeMap<NodeId, Absence>,
    /// Nodes that are to leave.
    pub(super) draining: BTreeMap<NodeId, Draining>,
    /// The scheduler begins nothing new.
    pub(super) paused: bool,
    /// Oldest first.
    pub(super) events: VecDeque<Event>,
    /// Moves of slots that are not over, or not cleaned up by both groups.
    pub(super) moves: BTreeMap<MoveId, Move>,
    pub(super) next_move: MoveId,
    pub(super) next_group: GroupId,
    /// Groups that an operator has moved slots to or from, with the slots that he has put there: these stay until the scheduler is told to even them out.
    pub(super) placed_by_hand: BTreeMap<GroupId, BTreeSet<Slot>>,
    /// How often an operator has told it to.
    pub(super) evening_asked: u64,
    /// See `RaiseLevel`.
    pub(super) level: u16,
}

/// Why bytes from the disk or a peer are not a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    #[error("topology cannot be decoded: {0}")]
    Codec(#[from] postcard::Error),
    #[error("topology maps {0} slots instead of {SLOT_COUNT}")]
    SlotCount(usize),
    #[error("topology has {0} nodes, at most {NODE_COUNT_MAX} are possible")]
    NodeCount(usize),
    #[error("slot {0} belongs to group {1}, which does not exist")]
    SlotWithoutGroup(u16, GroupId),
    #[error("replica {1} of group {0} is on node {2}, which does not exist")]
    ReplicaWithoutNode(GroupId, ReplicaId, NodeId),
    #[error("replica id {0} is used twice or was not handed out yet")]
    ReplicaId(ReplicaId),
    #[error("group {0} has no replica, two on one node, or names one that it does not have")]
    Group(GroupId),
    #[error("node {0} is away or leaves, and is no member")]
    NotAMember(NodeId),
    #[error("{0} nodes have {1} different addresses and {2} meta replicas")]
    NodesDiffer(usize, usize, usize),
    #[error("there are {0} groups; 1 to {SLOT_COUNT} are possible")]
    GroupCount(usize),
    #[error("move {0} does not fit the slots and groups")]
    Move(MoveId),
    #[error("slots are held in group {0}, which does not have them")]
    Held(GroupId),
}

impl Topology {
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    pub fn hash_secret(&self) -> [u64; 4] {
        self.hash_secret
    }

    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeInfo> {
        &self.nodes
    }

    pub fn node(&self, node: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&node)
    }

    /// The node registered under this client address.
    pub fn node_at(&self, address: &Address) -> Option<NodeId> {
        self.nodes.iter().find(|(_, info)| info.address() == *address).map(|(node, _)| *node)
    }

    pub fn was_forgotten(&self, node: NodeId) -> bool {
        self.forgotten.contains(&node)
    }

    pub fn groups(&self) -> &BTreeMap<GroupId, GroupInfo> {
        &self.groups
    }

    pub fn group(&self, group: GroupId) -> Option<&GroupInfo> {
        self.groups.get(&group)
    }

    pub fn group_of(&self, slot: Slot) -> GroupId {
        self.slots[slot.index()]
    }

    /// The group of each of the 1024 slots, in order.
    pub fn slots(&self) -> &[GroupId] {
        &self.slots
    }

    /// Ascending.
    pub fn slots_of(&self, group: GroupId) -> impl Iterator<Item = Slot> + '_ {
        Slot::all().filter(move |slot| self.group_of(*slot) == group)
    }

    /// The data replicas that this node hosts, those that are to go included.
    pub fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = (GroupId, ReplicaId)> + '_ {
        self.groups.iter().flat_map(move |(group, info)| {
            let all = info.replicas.iter().chain(&info.departing);
            all.filter(move |(_, home)| **home == node).map(move |(replica, _)| (*group, *replica))
        })
    }

    /// The meta group's members: one replica per node. Voters are the smallest ids of nodes that stay and are not given up, then of
    /// those that are. Ids only grow, so founding nodes come first, and a node that replaces a voter takes part again when it has caught up.
    pub fn meta_members(&self) -> BTreeMap<ReplicaId, (NodeId, MetaRole)> {
        let mut order: Vec<(bool, bool, ReplicaId)> = (self.meta.iter())
            .map(|(replica, node)| (self.draining.contains_key(node), self.is_given_up(*node), *replica))
            .collect();
        order.sort_unstable();
        let voters = order.iter().take(meta_voter_count(self.staying().count()));
        let voters: BTreeSet<ReplicaId> = voters.map(|(_, _, replica)| *replica).collect();
        let role = |replica| if voters.contains(replica) { MetaRole::Voter } else { MetaRole::Learner };
        self.meta.iter().map(|(replica, node)| (*replica, (*node, role(replica)))).collect()
    }

    /// What was decided, the oldest first.
    pub fn events(&self) -> &VecDeque<Event> {
        &self.events
    }

    pub fn meta_replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.meta.iter().find(|(_, home)| **home == node).map(|(replica, _)| *replica)
    }

    /// The node to name as a group's leader before any leader was heard of: the one that creates it, or the one that should
    /// lead if that one is gone. `None` only for a group that does not exist.
    pub fn presumed_leader(&self, group: GroupId) -> Option<NodeId> {
        let info = self.groups.get(&group)?;
        info.replicas.get(&info.initializer).or_else(|| info.replicas.get(&info.preferred)).copied()
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a topology holds nothing that postcard cannot encode")
    }

    /// Refuses what is not a consistent topology; never panics on damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TopologyError> {
        let topology: Self = postcard::from_bytes(bytes)?;
        topology.validate()?;
        Ok(topology)
    }

    /// Checks every relation between the fields that the rest of the program relies on.
    pub fn validate(&self) -> Result<(), TopologyError> {
        if self.slots.len() != SLOT_COUNT {
            return Err(TopologyError::SlotCount(self.slots.len()));
        }
        if self.nodes.is_empty() || self.nodes.len() > NODE_COUNT_MAX {
            return Err(TopologyError::NodeCount(self.nodes.len()));
        }
        for (slot, group) in (0..).zip(&self.slots) {
            if !self.groups.contains_key(group) {
                return Err(TopologyError::SlotWithoutGroup(slot, *group));
            }
        }
        let addresses: BTreeSet<Address> = self.nodes.values().map(NodeInfo::address).collect();
        let meta_homes: BTreeSet<NodeId> = self.meta.values().copied().collect();
        let counts = (self.nodes.len(), addresses.len(), self.meta.len());
        if counts.0 != counts.1 || counts.0 != counts.2 || !meta_homes.iter().eq(self.nodes.keys()) {
            return Err(TopologyError::NodesDiffer(counts.0, counts.1, counts.2));
        }
        let mut named = self.absent.keys().chain(self.draining.keys());
        if let Some(stranger) = named.find(|node| !self.nodes.contains_key(node)) {
            return Err(TopologyError::NotAMember(*stranger));
        }
        if !(1..=SLOT_COUNT).contains(&self.groups.len()) {
            return Err(TopologyError::GroupCount(self.groups.len()));
        }
        self.groups.iter().try_for_each(|(group, info)| self.validate_group(*group, info))?;
        self.validate_moves()?;
        self.validate_held()?;
        self.validate_replica_ids()
    }

    fn validate_group(&self, group: GroupId, info: &GroupInfo) -> Result<(), TopologyError> {
        let homes: BTreeSet<NodeId> = info.homes().collect();
        let named = info.replicas.contains_key(&info.preferred) && info.founding.contains_key(&info.initializer);
        if group == GroupId::META
            || group >= self.next_group
            || !named
            || homes.len() != info.replicas.len() + info.departing.len()
        {
            return Err(TopologyError::Group(group));
        }
        match info.replicas.iter().chain(&info.departing).find(|(_, node)| !self.nodes.contains_key(node)) {
            Some((replica, node)) => Err(TopologyError::ReplicaWithoutNode(group, *replica, *node)),
            None => Ok(()),
        }
    }

    /// A replica id belongs to one replica of one group, for ever: openraft takes two replicas with one id for one voter.
    fn validate_replica_ids(&self) -> Result<(), TopologyError> {
        let mut seen = BTreeSet::new();
        let of_groups = self.groups.values().flat_map(|info| {
            let now = info.replicas.keys().chain(info.departing.keys());
            let ids: BTreeSet<ReplicaId> = info.founding.keys().chain(now).copied().collect();
            ids
        });
        for replica in self.meta.keys().copied().chain(of_groups) {
            if replica >= self.next_replica_id || !seen.insert(replica) {
                return Err(TopologyError::ReplicaId(replica));
            }
        }
        Ok(())
    }

    /// A new group without slots, preferred to be led by the first of its homes. § Its id was never used before: what is late from a dissolved one must not
    /// reach it.
    pub(super) fn make_group(&mut self, homes: impl Iterator<Item = NodeId>) -> GroupId {
        let group = self.next_group;
        self.next_group = GroupId(group.0 + 1);
        let preferred = self.next_replica_id;
        let founding: BTreeMap<ReplicaId, NodeId> = homes.map(|node| (self.draw_replica_id(), node)).collect();
        let (replicas, departing) = (founding.clone(), BTreeMap::new());
        self.groups.insert(group, GroupInfo { initializer: preferred, founding, replicas, departing, preferred });
        group
    }

    pub(super) fn draw_replica_id(&mut self) -> ReplicaId {
        let id = self.next_replica_id;
        self.next_replica_id = ReplicaId(id.0 + 1);
        id
    }
}

/// An even number survives no more failures than the odd one below it; but what two nodes hold survives the loss of one disk.
fn meta_voter_count(nodes: usize) -> usize {
    match nodes.min(META_VOTER_COUNT_MAX) {
        few @ 0..=2 => few,
        count => count - usize::from(count.is_multiple_of(2)),
    }
}

impl NodeInfo {
    /// Of a node that is not where it was registered, while nobody knows where it is. § No other node may have this address, and none can: no
    /// host has such a name (RFC 2606).
    pub(super) fn unknown(node: NodeId, before: &Self) -> Self {
        Self { host: format!("{node}.invalid"), peer_port: 0, ..before.clone() }
    }

    pub fn is_known(&self) -> bool {
        self.peer_port != 0
    }

    pub fn address(&self) -> Address {
        Address { host: self.host.clone(), port: self.port }
    }
}

impl Address {
    /// `host:port`; the last colon splits, so a bare IPv6 address works. `None` without a host or a port above 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // A blank would split the lines of CLUSTER NODES and the three words of MOVED, a comma announces a host name.
        let sound =
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '@' | '[' | ']'));
        sound.then(|| Self { host: host.to_owned(), port })
    }
}

/// Without the 1024 slots, which would drown the rest.
impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("cluster_id", &self.cluster_id)
            .field("epoch", &self.epoch)
            .field("settings", &self.settings)
            .field("nodes", &self.nodes)
            .field("groups", &self.groups)
            .field("meta", &self.meta)
            .field("next_replica_id", &self.next_replica_id)
            .field("absent", &self.absent)
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
