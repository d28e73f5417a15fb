//! Clusters of real nodes: formation, commands over real sockets, failures.

mod commands;
mod failures;
mod formation;
pub mod harness;
mod power_loss;
mod recovery;
mod redisraft;
mod transcripts;
