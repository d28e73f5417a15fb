//! The write-ahead log: one per node, shared by all its replicas, written by one thread.
//!
//! | file | what |
//! |---|---|
//! | `format` | segments, batches and records, byte by byte |
//! | `tail` | one replica's log: the newest entries in memory, the places of the others |
//! | `place` | entries that memory no longer holds, and reading them back |
//! | `store` | openraft's storage traits on a replica's log |
//! | `queue` | what waits for the writer, fairly between replicas |
//! | `writer` | the thread: drain, write, fdatasync, call back |
//! | `segments` | the files: batches go in, old ones go away |
//! | `background_sync` | the thread that syncs for `appendfsync everysec` |
//! | `recover` | reading the segments at start: torn tail or corruption |
//! | `disk` | the file operations, also of snapshots, which tests replace (`memory_disk`) |
//! | `node_log` | opening, the handles, closing |
//! | `failed_sync` | the mark that a sync failed, where it was not waited for |
//! | `error` | what can go wrong |

mod background_sync;
mod direct;
mod disk;
mod error;
mod failed_sync;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod memory_disk;
mod node_log;
mod place;
mod queue;
mod recover;
mod removal;
mod segments;
#[cfg(test)]
mod simulated;
mod store;
pub mod tail;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_moved;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{LogError, is_crowded};
#[cfg(test)]
pub use memory_disk::{Fault, MemoryDisk};
pub use node_log::{Fsync, LogOptions, NodeLog, Pin, Recovered};
pub use removal::remove_directory;
pub use segments::Room;
#[cfg(test)]
pub use simulated::{SimulatedLog, SimulatedWriter};
pub use store::GroupLog;
