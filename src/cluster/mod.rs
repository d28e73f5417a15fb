//! The topology (slot -> group -> replicas), leader hints and routing. Pure: no sockets, no files, no clock.

mod ids;
mod status;

pub use ids::{ClusterId, Epoch, GroupId, NodeId, ReplicaId};
pub use status::{ClusterStatus, GroupStatus, NodeState, NodeStatus, ReplicaStatus};
