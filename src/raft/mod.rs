//! Replication: the log, the transport, groups and the meta group. openraft appears here alone.

mod types;

pub use types::{Batch, Completion, Entry, LogId, Member, SnapshotMeta, StoredMembership, TypeConfig, Vote};
