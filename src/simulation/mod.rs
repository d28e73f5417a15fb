//! Whole nodes in one process, on a simulated network, disk and clock, driven by one seed.
//!
//! Every node is the real wiring of `node.rs` (transport, groups, meta group, proposer, parking, routing, turns) on a runtime of its own whose
//! clock stands still; `World` steps them a millisecond at a time, in one thread. A run is of a `Scenario`: faults as they are drawn, or a script.
//! Own seams rather than a simulation library: the disk of log and snapshots and the clocks were seams already, streams needed one trait
//! (`raft/transport/wire.rs`). What is compiled differently under test: clocks, random numbers, where blocking work runs, and what planted
//! bugs leave out (`planted.rs`). What it does not reach: the sockets' loops, forming and joining over sockets, real fsync, threads, and `node.kvn`,
//! which is on the real disk; see `tests/`.

mod client;
mod faults;
mod forming;
mod growth;
mod history;
mod invariants;
mod late;
mod load_scripts;
mod member_scripts;
mod move_scripts;
mod network;
mod node;
#[cfg(tokio_unstable)]
mod planted_bugs;
mod scenario;
mod scripts;
mod seeds;
mod total;
mod whole;
mod world;
