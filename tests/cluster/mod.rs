//! Clusters of real nodes: formation, commands over real sockets, failures.

mod addresses;
mod clocks;
mod commands;
pub mod disks;
mod failing_start;
mod failing_sync;
mod failures;
mod formation;
mod full_disk;
mod growing;
pub mod harness;
mod moves;
mod open_files;
mod power_loss;
mod recovery;
mod redisraft;
pub mod shim;
mod tools;
mod transcripts;
mod unread;
