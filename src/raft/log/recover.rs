//! Reads the segments at start. A segment may end in zeros, written ahead as room for batches that never came.
//!
//! § Damage at or past the last recorded durable LSN is a torn tail: it is cut off, physically and durably, and reported. Damage before
//! it is corruption: the node refuses to start. To tell them apart, what follows the damage is searched for batches that were
//! written when the damaged one was known to be on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use openraft::EntryPayload;

use crate::raft::log::format::{HEADER_BYTES, LogKey, Record, SEGMENT_MAGIC, take_record, unseal};
use crate::raft::log::node_log::{DroppedTail, LogError};
use crate::raft::log::tail::Tail;
use crate::raft::log::writer::{OldSegment, segment_path};
use crate::raft::snapshot_io::sync_directory;
use crate::raft::types::Batch;

/// What the segments say.
#[derive(Default)]
pub struct Replayed {
    pub tails: BTreeMap<LogKey, Tail>,
    pub segments: VecDeque<OldSegment>,
    pub lsn: u64,
    pub previous_crc: u32,
    pub dropped: Option<DroppedTail>,
    /// The last start mark: (every batch was synced, boot id).
    pub start: Option<(bool, Vec<u8>)>,
    pub clean: bool,
    parts: HashMap<LogKey, BytesMut>,
}

pub fn replay(directory: &Path) -> Result<Replayed, LogError> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    let mut replayed = Replayed::default();
    for (number, path) in paths.iter().enumerate() {
        let bytes = fs::read(path)?;
        let sound = replayed.segment(path, &bytes, number == 0)?;
        let rest_is_room = bytes[sound..].iter().all(|byte| *byte == 0);
        if sound < bytes.len() && !rest_is_room {
            let corrupt = |durable| LogError::Corrupt { path: path.clone(), offset: sound as u64, durable };
            let expected = replayed.lsn + 1;
            let later = paths[number + 1..].iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
            let rest = std::iter::once(&bytes[sound..]).chain(later.iter().map(Vec::as_slice));
            if let Some(durable) = rest.filter_map(last_durable).max().filter(|durable| *durable >= expected) {
                return Err(corrupt(durable));
            }
            replayed.cut(directory, &paths[number..], sound, &bytes)?;
            break;
        }
    }
    replayed.drop_empty_segment(directory)?;
    Ok(replayed)
}

/// The highest durable LSN in any sound batch found in `bytes`, at whatever offset.
fn last_durable(bytes: &[u8]) -> Option<u64> {
    let offsets = 0..bytes.len().saturating_sub(HEADER_BYTES - 1);
    offsets.filter_map(|offset| unseal(&bytes[offset..]).ok()).map(|(header, _, _)| header.durable_lsn).max()
}

impl Replayed {
    /// Replays a segment; the offset up to which it is sound.
    fn segment(&mut self, path: &Path, bytes: &[u8], first: bool) -> Result<usize, LogError> {
        self.segments.push_back(OldSegment { path: path.to_owned(), highest: HashMap::new() });
        if !bytes.starts_with(SEGMENT_MAGIC) {
            if SEGMENT_MAGIC.starts_with(bytes) {
                // Power was lost while the file was made.
                return Ok(0);
            }
            return Err(LogError::Foreign { path: path.to_owned() });
        }
        let mut offset = SEGMENT_MAGIC.len();
        let mut oldest = first;
        while offset < bytes.len() {
            let Ok((header, crc, mut body)) = unseal(&bytes[offset..]) else { return Ok(offset) };
            // The first batch of the oldest segment continues one that is deleted.
            let continues = oldest || (header.lsn == self.lsn + 1 && header.previous_crc == self.previous_crc);
            if !continues {
                return Ok(offset);
            }
            oldest = false;
            let length = HEADER_BYTES + body.len();
            while !body.is_empty() {
                let taken = take_record(&mut body);
                let (key, record) =
                    taken.map_err(|_| LogError::Undecodable { path: path.to_owned(), offset: offset as u64 })?;
                self.record(key, record)
                    .map_err(|_| LogError::Undecodable { path: path.to_owned(), offset: offset as u64 })?;
            }
            (self.lsn, self.previous_crc) = (header.lsn, crc);
            offset += length;
        }
        Ok(offset)
    }

    fn record(&mut self, key: LogKey, record: Record) -> Result<(), crate::raft::log::tail::Gap> {
        self.clean = matches!(record, Record::Stop);
        let tail = self.tails.entry(key).or_default();
        match record {
            Record::Vote(vote) => tail.vote = Some(vote),
            Record::Part(part) => self.parts.entry(key).or_default().extend_from_slice(&part),
            Record::Entry(mut entry) => {
                if let Some(mut parts) = self.parts.remove(&key)
                    && let EntryPayload::Normal(batch) = &mut entry.payload
                {
                    parts.extend_from_slice(&batch.0);
                    *batch = Batch(parts.freeze());
                }
                let segment = self.segments.back_mut().expect("a segment is being read");
                let highest = segment.highest.entry(key).or_default();
                *highest = (*highest).max(entry.log_id.index);
                tail.replay(entry)?;
            }
            Record::Truncate(index) => {
                self.parts.remove(&key);
                tail.truncate_from(index);
            }
            Record::Purge(log_id) => tail.purge(log_id),
            Record::Snapshot(log_id) => tail.snapshot = Some(log_id),
            Record::Last(_) => (),
            Record::Remove => drop(self.tails.remove(&key)),
            Record::Start { synced, boot_id } => {
                self.tails.remove(&key);
                self.start = Some((synced, boot_id));
            }
            Record::Stop => drop(self.tails.remove(&key)),
        }
        Ok(())
    }

    /// A crash may come between making a segment and its first batch; its name is the next one's.
    fn drop_empty_segment(&mut self, directory: &Path) -> Result<(), LogError> {
        let next = segment_path(directory, self.lsn + 1);
        if self.segments.back().is_some_and(|segment| segment.path == next) {
            self.segments.pop_back();
            fs::remove_file(next)?;
            sync_directory(directory)?;
        }
        Ok(())
    }

    /// Cuts the torn tail off: the rest of this segment and every later one.
    fn cut(&mut self, directory: &Path, paths: &[PathBuf], sound: usize, bytes: &[u8]) -> Result<(), LogError> {
        // A half-written large entry goes with the tail.
        self.parts.clear();
        let (torn, later) = paths.split_first().expect("the torn segment");
        if sound <= SEGMENT_MAGIC.len() {
            fs::remove_file(torn)?;
            self.segments.pop_back();
        } else {
            let file = File::options().write(true).open(torn)?;
            file.set_len(sound as u64)?;
            file.sync_all()?;
        }
        for path in later {
            fs::remove_file(path)?;
        }
        sync_directory(directory)?;
        let dropped = DroppedTail { path: torn.clone(), offset: sound as u64, bytes: (bytes.len() - sound) as u64 };
        self.dropped = Some(dropped);
        self.clean = false;
        Ok(())
    }
}

/// Keeps io::Error's `?` short above.
impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
