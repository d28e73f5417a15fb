//! The topology (slot -> group -> replicas), leader hints and routing. Pure: no sockets, no files, no clock.

mod changes;
#[cfg(test)]
mod changes_tests;
mod events;
#[cfg(test)]
mod fixture;
mod founding;
#[cfg(test)]
mod founding_tests;
mod hints;
mod ids;
mod meta;
#[cfg(test)]
mod meta_tests;
mod moves;
#[cfg(test)]
mod moves_tests;
mod plan;
#[cfg(test)]
mod plan_tests;
mod receivers;
mod route;
mod settings;
mod status;
mod topology;
mod view;

pub use changes::{Absence, Draining};
pub use events::Event;
#[cfg(test)]
pub(crate) use fixture::{info as fixture_info, node as fixture_node, topology as fixture_topology};
pub use founding::{Action, FormingNode, PlanRefusal, Probe, Purpose, WaitReason};
pub use hints::{Ballot, DiskSpace, Hints, HintsError, LeaderHint, News};
pub use ids::{ClusterId, Epoch, GroupId, MoveId, NodeId, ReplicaId};
pub use meta::{MetaError, MetaOp, MetaOutcome, apply_meta};
#[cfg(test)]
pub use moves::MOVE_TRIES_MAX;
pub use moves::{Move, MoveEnd, MoveState};
pub use plan::{Founder, FoundingPlan, Intent, PlanError, PlanSeed, PlanWarning, REPLICA_COUNT_MAX};
pub use route::{Route, RouteTable};
pub use settings::{Settings, SettingsMismatch, WantedSettings};
pub use status::{ClusterStatus, GroupStatus, MoveProgress, MoveStatus, NodeState, NodeStatus, ReplicaStatus};
pub use topology::{
    Address, FIRST_LEVEL, GroupInfo, META_VOTER_COUNT_MAX, MetaRole, NODE_COUNT_MAX, NodeInfo, Topology, TopologyError,
};
pub use view::{Absent, ClusterShard, ClusterView, Leaderless, PeerTraffic, SlotRange};
