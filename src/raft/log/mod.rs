//! The write-ahead log: one per node, shared by all its groups, written by one thread.
//!
//! | file | what |
//! |---|---|
//! | `format` | batches and records, byte by byte |
//! | `tail` | one group's log in memory, where all reads come from |
//! | `store` | openraft's storage traits on a group's log |
//! | `queue` | what waits for the writer, fairly between groups |
//! | `writer` | the thread: drain, write, fdatasync, call back; segments |
//! | `recover` | reading the segments at start: torn tail or corruption |
//! | `node_log` | opening, the handles, closing |

mod format;
mod node_log;
mod queue;
mod recover;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use node_log::{Fsync, LogError, LogOptions, NodeLog, Recovered};
pub use store::GroupLog;
