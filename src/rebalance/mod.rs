//! Bringing groups to the membership and the leaders that the topology wants: pure planning, and the task that drives it.

mod driver;
mod plan;

pub use driver::drive;
