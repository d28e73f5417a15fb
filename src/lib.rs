//! Kvorum: a Redis-protocol cache and store that never loses a write it acknowledged.

pub mod admin;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod keyspace;
pub mod metrics;
pub mod node;
pub mod protocol;
pub mod raft;
pub mod rebalance;
pub mod server;
pub mod slot;
pub mod workers;
