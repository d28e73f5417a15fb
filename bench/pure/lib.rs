//! Kvorum's layers 0 to 2, by their own files: all that the micro benchmarks call, and nothing that takes minutes to build.

#![allow(dead_code, reason = "what only higher layers use is built as well")]

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/cluster/mod.rs"]
pub mod cluster;
#[path = "../../src/command/mod.rs"]
pub mod command;
#[path = "../../src/keyspace/mod.rs"]
pub mod keyspace;
#[path = "../../src/planted.rs"]
mod planted;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/random.rs"]
pub mod random;
#[path = "../../src/slot.rs"]
pub mod slot;
