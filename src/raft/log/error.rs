//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::raft::log::format::VERSION;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the disk is full: cannot {action} {}. Nothing that was acknowledged is lost: make room and start the node again",
        path.display()
    )]
    Full { action: &'static str, path: PathBuf },
    #[error("too many files are open: cannot {action} {}: {source}", path.display())]
    Crowded { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the disk does not keep what is written: cannot sync {}: {source}. With appendfsync always nothing that was acknowledged is lost; with \
         everysec or no the newest of it may be, and the next start takes that for a power failure. Check the disk (dmesg), then start the \
         node again; if its log is damaged it will say so",
        path.display()
    )]
    Unsynced { path: PathBuf, source: io::Error },
    #[error("another process uses {}", path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} is corrupt at byte {offset}: batch {lsn} had reached the disk and is damaged or missing. This is not a torn write; \
         restore the file, or move the data directory away so that this node joins anew and is brought up to date by the others",
        path.display()
    )]
    Corrupt { path: PathBuf, offset: u64, lsn: u64 },
    #[error(
        "{} holds a batch at byte {offset} that matches its checksum but makes no sense; it was written by another version or a faulty one",
        path.display()
    )]
    Undecodable { path: PathBuf, offset: u64 },
    #[error(
        "log segments before {} are missing: it needs entries up to {index} of group {group}. Restore them, or move the data directory \
         away so that this node joins anew",
        path.display()
    )]
    Missing { path: PathBuf, group: u32, index: u64 },
    #[error("{} is not a log segment", path.display())]
    Foreign { path: PathBuf },
    #[error("{} has format version {version}; this program reads version {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("the log's thread has panicked")]
    Panicked,
    #[error("the replica was removed from this node")]
    Removed,
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// A full disk is told apart by the error's kind: the operator can do something about it.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { action, path },
            _ if is_crowded(&source) => Self::Crowded { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }

    pub fn unsynced(path: &Path, source: io::Error) -> Self {
        Self::Unsynced { path: path.to_owned(), source }
    }

    /// The error as openraft's storage traits want it.
    pub fn to_io(&self) -> io::Error {
        let kind = match self {
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::Io { source, .. } | Self::Crowded { source, .. } | Self::Unsynced { source, .. } => source.kind(),
            Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::Undecodable { .. }
            | Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::Version { .. }
            | Self::Panicked
            | Self::Removed
            | Self::Closed => io::ErrorKind::Other,
        };
        io::Error::new(kind, self.to_string())
    }
}

/// The process, or the machine, has no file descriptor left: that passes.
pub fn is_crowded(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
