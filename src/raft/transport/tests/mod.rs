//! The transport over real loopback sockets: nodes with fake replicas, raw sockets that misbehave, real Raft groups.

mod groups;
mod links;
mod nodes;
mod store;
