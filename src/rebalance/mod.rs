//! Bringing groups to the membership and the leaders that the topology wants: pure planning, and the task that drives it. And moving slots
//! between groups.

mod driver;
mod moves;
mod plan;
mod sending;

pub use driver::drive;
pub use moves::drive_moves;
