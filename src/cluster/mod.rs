//! The topology (slot -> group -> replicas), leader hints and routing. Pure: no sockets, no files, no clock.

mod ids;

pub use ids::{ClusterId, Epoch, GroupId, NodeId, ReplicaId};
