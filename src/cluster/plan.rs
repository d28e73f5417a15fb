//! The founding plan: everything about a new cluster, fixed by one node before anything is initialized, and how groups and
//! replicas are laid out over the founding nodes. Who may write a plan and when it takes effect is in `founding.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Address, ClusterId, Epoch, FIRST_LEVEL, GroupId, MoveId, NodeId, NodeInfo, ReplicaId, Settings, Topology,
    TopologyError, WantedSettings,
};
use crate::planted::{self, Bug};
use crate::slot::SLOT_COUNT;

/// Replicas of one group. Raft's commit waits for a majority of them.
pub const REPLICA_COUNT_MAX: u32 = 7;

/// What a node was told of the cluster it should found. All listed nodes must have been told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// Client addresses of all founding nodes.
    pub addresses: BTreeSet<Address>,
    pub settings: WantedSettings,
}

/// Random bytes that a plan needs; drawn by the caller, since nothing here may draw them.
#[derive(Clone, Copy)]
pub struct PlanSeed {
    pub cluster_id: ClusterId,
    pub hash_secret: [u64; 4],
}

/// A founding node, as it answered for its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Founder {
    pub node: NodeId,
    pub info: NodeInfo,
}

/// See the module's text. A plan's cluster id is fresh, so it names the plan too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingPlan {
    /// Rises with each plan of one founder.
    number: u64,
    /// The incarnation that wrote the plan, and the only one that may initialize the meta group.
    founder: NodeId,
    intent: Intent,
    /// Who answered for each address of the intent.
    members: BTreeMap<Address, NodeId>,
    topology: Topology,
}

/// Something that works but that the operator may not have meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanWarning {
    /// Groups get one replica per node; writes survive fewer failures than asked for.
    FewerNodesThanReplicas { nodes: u32, replicas: u32 },
    /// Some nodes lead no group at first.
    FewerGroupsThanNodes { groups: u32, nodes: u32 },
}

/// Why no plan can be made, or a plan from a peer or the disk is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("group count {0} is not between 1 and {SLOT_COUNT}")]
    GroupCount(u32),
    #[error("replica count {0} is not between 1 and {REPLICA_COUNT_MAX}")]
    ReplicaCount(u32),
    #[error("one node answers at two of the listed addresses")]
    SameNodeTwice,
    #[error("the plan's nodes are not those that its list names")]
    Members,
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Intent {
    /// The settings that a cluster founded on this intent has: by default one group per founding node, three replicas.
    pub fn settings(&self) -> Result<Settings, PlanError> {
        const REPLICAS_DEFAULT: u32 = 3;
        let WantedSettings { groups, replicas, hash_check } = self.settings;
        let replicas = replicas.unwrap_or(REPLICAS_DEFAULT);
        if let Some(groups) = groups.filter(|groups| !(1..=SLOT_COUNT).contains(&(*groups as usize))) {
            return Err(PlanError::GroupCount(groups));
        }
        if replicas == 0 || replicas > REPLICA_COUNT_MAX {
            return Err(PlanError::ReplicaCount(replicas));
        }
        Ok(Settings { groups, replicas, hash_check })
    }
}

impl FoundingPlan {
    /// Lays out a cluster. The same arguments give the same plan. `members` holds one node per address of the intent.
    pub fn new(
        number: u64,
        founder: NodeId,
        intent: Intent,
        members: &BTreeMap<Address, Founder>,
        seed: PlanSeed,
    ) -> Result<Self, PlanError> {
        let topology = lay_out(&intent, members, seed)?;
        let members = members.iter().map(|(address, member)| (address.clone(), member.node)).collect();
        let plan = Self { number, founder, intent, members, topology };
        plan.validate()?;
        Ok(plan)
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn founder(&self) -> NodeId {
        self.founder
    }

    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    pub fn members(&self) -> &BTreeMap<Address, NodeId> {
        &self.members
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.topology.cluster_id
    }

    /// The topology that the cluster starts with.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    pub fn warnings(&self) -> Vec<PlanWarning> {
        let Settings { groups: _, replicas, hash_check: _ } = self.topology.settings;
        let (nodes, groups) = (self.topology.nodes.len() as u32, self.topology.groups.len() as u32);
        let few_nodes = (nodes < replicas).then_some(PlanWarning::FewerNodesThanReplicas { nodes, replicas });
        let few_groups = (groups < nodes).then_some(PlanWarning::FewerGroupsThanNodes { groups, nodes });
        few_nodes.into_iter().chain(few_groups).collect()
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a founding plan holds nothing that postcard cannot encode")
    }

    /// Refuses what is not a consistent plan; never panics on damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        let plan: Self = postcard::from_bytes(bytes).map_err(TopologyError::Codec)?;
        plan.validate()?;
        Ok(plan)
    }

    fn validate(&self) -> Result<(), PlanError> {
        let homes: BTreeSet<NodeId> = self.members.values().copied().collect();
        if homes.len() != self.members.len() {
            return Err(PlanError::SameNodeTwice);
        }
        self.topology.validate()?;
        let listed = self.members.keys().eq(&self.intent.addresses) || planted::is(Bug::WipedNodeFounds);
        let known = homes.iter().eq(self.topology.nodes.keys()) && homes.contains(&self.founder);
        if listed && known { Ok(()) } else { Err(PlanError::Members) }
    }
}

/// Nodes count in the order of their addresses. Group i starts at slot i x 1024 / groups, prefers to be led by node i mod
/// nodes, and has its other replicas on the nodes after that one: each node leads, and holds, as many as any other give
/// or take one.
fn lay_out(intent: &Intent, members: &BTreeMap<Address, Founder>, seed: PlanSeed) -> Result<Topology, PlanError> {
    let settings = intent.settings()?;
    let order: Vec<NodeId> = members.values().map(|member| member.node).collect();
    if order.is_empty() {
        return Err(PlanError::Members);
    }
    let mut topology = Topology {
        cluster_id: seed.cluster_id,
        epoch: Epoch(1),
        settings,
        hash_secret: seed.hash_secret,
        nodes: members.values().map(|member| (member.node, member.info.clone())).collect(),
        groups: BTreeMap::new(),
        slots: Vec::with_capacity(SLOT_COUNT),
        meta: BTreeMap::new(),
        next_replica_id: ReplicaId(1),
        forgotten: BTreeSet::new(),
        absent: BTreeMap::new(),
        draining: BTreeMap::new(),
        paused: false,
        events: VecDeque::new(),
        moves: BTreeMap::new(),
        next_move: MoveId(1),
        next_group: GroupId(1),
        placed_by_hand: BTreeMap::new(),
        evening_asked: 0,
        level: FIRST_LEVEL,
    };
    for node in &order {
        let replica = topology.draw_replica_id();
        topology.meta.insert(replica, *node);
    }
    let group_count = settings.groups.map_or(order.len(), |groups| groups as usize);
    let replica_count = order.len().min(settings.replicas as usize);
    for index in 0..group_count {
        let homes = order.iter().cycle().skip(index % order.len()).take(replica_count);
        let group = topology.make_group(homes.copied());
        let slot_end = (index + 1) * SLOT_COUNT / group_count;
        topology.slots.resize(slot_end, group);
    }
    Ok(topology)
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes ")?;
        for (position, address) in self.addresses.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            write!(f, "{separator}{address}")?;
        }
        write!(f, ", {}", self.settings)
    }
}

impl fmt::Display for PlanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewerNodesThanReplicas { nodes, replicas } => {
                write!(f, "{replicas} replicas were asked for but there are {nodes} nodes: each group has {nodes}")
            }
            Self::FewerGroupsThanNodes { groups, nodes } => {
                write!(f, "{nodes} nodes share {groups} groups: {} of them lead none", nodes - groups)
            }
        }
    }
}
