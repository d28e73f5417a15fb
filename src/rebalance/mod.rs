//! Bringing groups to the membership and the leaders that the topology wants, and the topology to where replicas and leaders should be: pure
//! planning, and the tasks that drive it. And moving slots between groups.

mod absence;
mod balance;
mod driver;
mod leaders;
mod moves;
mod placement;
mod plan;
mod scheduler;
mod sending;
mod slots;
mod turns;

pub use balance::slot_weights_now;
pub use driver::drive;
pub use moves::drive_moves;
pub use placement::{Plan, PlannedStep, Situation, next_placement, whole_plan};
pub use scheduler::{schedule, situation};
pub use slots::SlotWeights;
