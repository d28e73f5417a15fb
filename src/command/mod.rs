//! Commands as rows of one table: what they are called and may do, and the functions that plan, apply and read them.
//!
//! `plan` checks a request and encodes it as an op; `apply` carries an op out on every replica; `read` answers from one
//! bucket. § `plan` never reads the keyspace: what it saw could be gone when the op applies, so conditions are decided
//! at apply. § `apply` is deterministic and reads no clock: times in ops are absolute, and a key due at the entry's stamp
//! counts as absent. Nothing here is async, reads a clock, a socket or a file.

mod errors;
mod expiry;
mod float80;
mod glob;
mod help;
mod introspection;
mod introspection_docs;
mod key_positions;
mod keys;
mod lcs;
mod node_command;
mod number;
mod numeric;
mod object;
pub mod op;
mod row;
mod rows;
mod set;
mod strings;
pub mod table;

pub use errors::WireError;
pub use expiry::plan_expire_due;
pub use glob::{matches as glob_matches, matches_ignoring_case as glob_matches_ignoring_case};
pub use help::reply as help_reply;
pub use introspection::reply as command_reply;
pub use key_positions::{key_positions, key_slot_of};
pub use lcs::LcsJob;
pub use node_command::{
    ClientCommand, ClusterChange, ClusterCommand, ClusterMigration, ClusterSlots, CommandCommand, ConfigCommand,
    LatencyCommand, MemoryCommand, NodeCommand, SlowlogCommand,
};
pub use number::{IntegerText, integer_argument, parse_integer};
pub use op::{Apply, OpCode};
pub use row::{ApplyFn, Category, Flag, Group, KeyRange, PlanFn, ReadFn, ReadOutcome, Row, Run};

#[cfg(test)]
mod transcripts;
