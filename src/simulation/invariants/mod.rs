//! What must hold after every step, or at times, one file each.

pub mod acknowledged;
mod all;
pub mod copies;
mod equal_replicas;
mod fronts;
mod installs;
mod leases;
mod one_leader;
mod owners;
mod prefixes;
mod time;
mod topologies;

pub use all::{Invariants, Seen};
pub use equal_replicas::compare;
pub use fronts::fronts_are_formed;
pub use owners::{Owners, owned_as_named};
