//! Replication: the log, the transport, groups and the meta group. openraft appears here alone.

mod snapshot_file;
mod transport;
mod types;

pub use snapshot_file::SnapshotFile;
pub use transport::{
    ASK_BYTES_MAX, AskReply, CallError, GroupNetwork, PeerNetwork, PeerState, RaftPort, Receiver, Refusal, Transport,
    TransportConfig,
};
pub use types::{Batch, Completion, Entry, LogId, Member, SnapshotMeta, StoredMembership, TypeConfig, Vote};
