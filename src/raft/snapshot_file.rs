//! A snapshot as openraft passes it about: a file, never bytes in memory.

use std::path::PathBuf;

/// The `SnapshotData` of both state machines.
///
/// Sent, it is read in pieces by the transport. Received, it names a temporary file that the state machine renames away
/// while it installs it; what is still at `path` after `install_full_snapshot` returned is deleted by the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
}
