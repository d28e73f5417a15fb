//! What must hold after every step, one file each.

mod all;
mod leases;
mod one_leader;
mod prefixes;
mod time;
mod topologies;

pub use all::{Invariants, Seen};
