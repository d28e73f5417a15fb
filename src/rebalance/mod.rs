//! Bringing groups to the membership and the leaders that the topology wants, and the topology to where replicas and leaders should be: pure
//! planning, and the tasks that drive it.

mod absence;
mod driver;
mod placement;
mod plan;
mod scheduler;

pub use driver::drive;
pub use placement::{Plan, PlannedStep, Situation, next_placement, whole_plan};
pub use scheduler::{schedule, situation};
