//! Entries that memory no longer holds: where they lie in the log's files, and reading them back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;

use crate::raft::log::disk::DiskFile;
use crate::raft::types::{Batch, Entry, LogId};

/// An open segment. A deleted one can be read for as long as somebody holds it; nobody does for long, since what it held is purged by then.
pub struct SegmentFile {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
}

/// Where the bytes of one batch of ops lie.
#[derive(Clone)]
pub struct Place {
    pub segment: Arc<SegmentFile>,
    pub offset: u64,
    /// Of these bytes alone: the log's own checksums are of whole batches.
    pub crc32: u32,
}

/// An entry of a log: in memory, or to be read.
#[derive(Clone)]
pub enum Found {
    Here(Entry),
    Away { log_id: LogId, length: usize, place: Place },
}

impl Found {
    pub fn log_id(&self) -> LogId {
        match self {
            Self::Here(entry) => entry.log_id,
            Self::Away { log_id, .. } => *log_id,
        }
    }

    pub fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    /// Blocks where the entry is on disk. § What does not read back as it was written is an error that stops the node: a follower, or apply,
    /// would otherwise be given another entry than the one that was agreed.
    pub fn read(self) -> io::Result<Entry> {
        let Self::Away { log_id, length, place: Place { segment, offset, crc32 } } = self else {
            let Self::Here(entry) = self else { unreachable!("there are two") };
            return Ok(entry);
        };
        let mut bytes = vec![0; length];
        let read = segment.file.read_at(&mut bytes, offset)?;
        if read < length || crc32fast::hash(&bytes) != crc32 {
            let text = format!("{}: damage in entry {log_id} at offset {offset}", segment.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Entry { log_id, payload: EntryPayload::Normal(Batch(Bytes::from(bytes))) })
    }
}
