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

/// Where the bytes of one batch of ops lie: in one piece or, of a large one, in those that it was written in.
#[derive(Clone)]
pub enum Place {
    Whole(Piece),
    Parts(Arc<[Piece]>),
}

#[derive(Clone)]
pub struct Piece {
    pub segment: Arc<SegmentFile>,
    pub offset: u64,
    pub length: u32,
    /// Of these bytes alone: the log's own checksums are of whole batches.
    pub crc32: u32,
}

impl Place {
    fn pieces(&self) -> &[Piece] {
        match self {
            Self::Whole(piece) => std::slice::from_ref(piece),
            Self::Parts(pieces) => pieces,
        }
    }
}

impl Piece {
    /// Of these bytes, which end at `end` in the segment.
    pub fn new(segment: &Arc<SegmentFile>, bytes: &[u8], end: u64) -> Self {
        let length = u32::try_from(bytes.len()).expect("a batch is below 4 GiB");
        Self { segment: segment.clone(), offset: end - u64::from(length), length, crc32: crc32fast::hash(bytes) }
    }

    fn read(&self, into: &mut [u8], log_id: LogId) -> io::Result<()> {
        let Self { segment, offset, crc32, .. } = self;
        let read = segment.file.read_at(into, *offset)?;
        if read < into.len() || crc32fast::hash(into) != *crc32 {
            let text = format!("{}: damage in entry {log_id} at offset {offset}", segment.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
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
        let (log_id, length, place) = match self {
            Self::Here(entry) => return Ok(entry),
            Self::Away { log_id, length, place } => (log_id, length, place),
        };
        let mut bytes = vec![0; length];
        let mut rest = &mut bytes[..];
        for piece in place.pieces() {
            let (into, after) = rest.split_at_mut(piece.length as usize);
            piece.read(into, log_id)?;
            rest = after;
        }
        assert!(rest.is_empty(), "the pieces are the whole");
        Ok(Entry { log_id, payload: EntryPayload::Normal(Batch(Bytes::from(bytes))) })
    }
}
