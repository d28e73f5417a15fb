//! Kvorum: a Redis-protocol cache and store that never loses a write it acknowledged.

pub mod admin;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod metrics;
pub mod keyspace;
pub mod command;
pub mod protocol;
pub mod raft;
pub mod slot;
