//! The topology (slot -> group -> replicas), leader hints and routing. Pure: no sockets, no files, no clock.

mod hints;
mod ids;
mod status;
mod meta;
mod plan;
mod settings;
mod topology;

pub use hints::{Ballot, Hints, HintsError, LeaderHint};
pub use ids::{ClusterId, Epoch, GroupId, NodeId, ReplicaId};
pub use status::{ClusterStatus, GroupStatus, NodeState, NodeStatus, ReplicaStatus};
pub use meta::{MetaError, MetaOp, MetaOutcome, apply_meta};
pub use plan::{Founder, FoundingPlan, Intent, PlanError, PlanSeed, PlanWarning, REPLICA_COUNT_MAX};
pub use settings::{Settings, SettingsMismatch, WantedSettings};
pub use topology::{
    Address, GroupInfo, META_VOTER_COUNT_MAX, MetaRole, NODE_COUNT_MAX, NodeInfo, Topology, TopologyError,
};
