//! Reads the segments at start. A segment may end in zeros, written ahead as room for batches that never came.
//!
//! § Damage at or past the last recorded durable LSN is a torn tail: it is cut off, physically and durably, and reported. Damage before
//! it is corruption: the node refuses to start. The proof that a damaged batch had been on the disk is
//! * a later segment: the one before is synced before a segment is begun, whose name is its first LSN;
//! * a sound batch behind the damage that was written when the damaged one was known to be on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use openraft::EntryPayload;

use crate::raft::log::disk::Disk;
use crate::raft::log::error::LogError;
use crate::raft::log::failed_sync;
use crate::raft::log::format::{
    BATCH_HEADER_BYTES, LogKey, Record, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, StartMark, batch_offsets, payload,
    read_segment_header, take_record, unseal,
};
use crate::raft::log::place::{Piece, Place, SegmentFile};
use crate::raft::log::segments::{Highest, LogEnd, OldSegment, first_lsn};
use crate::raft::log::tail::Tail;
use crate::raft::log::writer::MOVED_BYTES_MIN;
use crate::raft::types::{Batch, Entry, LogId};

/// What does not read well behind the last sound batch, with nothing behind it that says that it was on the disk: most likely a write that a
/// crash cut short, though damage of the disk to the last batch looks the same. A last batch that reads as zeros cannot be told from
/// room that was never written: it is not there, and nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTail {
    pub path: PathBuf,
    pub offset: u64,
    /// Without the zeros at its end, which are room that was never written.
    pub bytes: u64,
}

/// What the segments say. All of it is on the disk.
#[derive(Default)]
pub struct Replayed {
    pub tails: BTreeMap<LogKey, Tail>,
    pub end: LogEnd,
    pub dropped: Option<DroppedTail>,
    /// Of the newest segment.
    pub start: Option<StartMark>,
    /// The log ends with the mark of a clean stop.
    pub clean: bool,
}

/// Of each replica's entries about `memory_bytes` stay in memory.
pub fn replay(disk: &dyn Disk, directory: &Path, memory_bytes: u64) -> Result<Replayed, LogError> {
    let listed = disk.list(directory).map_err(|error| LogError::io("list", directory, error))?;
    let mut paths: Vec<(u64, PathBuf)> =
        listed.into_iter().filter_map(|path| Some((first_lsn(&path)?, path))).collect();
    paths.sort();
    let mut replay = Replay { memory_bytes, ..Replay::default() };
    for (number, (first_lsn, path)) in paths.iter().enumerate() {
        let bytes = disk.read(path).map_err(|error| LogError::io("read", path, error))?;
        let file = disk.open(path).map_err(|error| LogError::io("open", path, error))?;
        let sound =
            replay.segment(Arc::new(SegmentFile { file: file.clone(), path: path.clone() }), *first_lsn, &bytes)?;
        if number + 1 == paths.len() {
            // § Before the sync below, after a clean stop too, whose mark may have been the last that was not synced: if one has failed before, the kernel takes these bytes for written, and no sync writes them any more.
            let doubtful = file.write_at(&bytes[sound.durable..sound.bytes], sound.durable as u64);
            doubtful.map_err(|error| LogError::io("write again the end of", path, error))?;
        }
        // A segment without a batch was not finished being begun.
        let begun = sound.bytes > SEGMENT_HEADER_BYTES;
        match paths.get(number + 1) {
            // What is behind the batches of an older segment was room; the next one's name says how many there were.
            Some((next_lsn, _)) if begun && replay.replayed.end.lsn + 1 == *next_lsn => replay.keep(path, sound),
            Some(_) => return Err(replay.corrupt(path, &sound)),
            None if begun && bytes[sound.bytes..].iter().all(|byte| *byte == 0) => replay.keep(path, sound),
            // Older segments go when this one is durable: begun without any of them, it was.
            None if !begun && number == 0 && *first_lsn > 1 => return Err(replay.corrupt(path, &sound)),
            None if replay.was_durable(&bytes, &sound) => return Err(replay.corrupt(path, &sound)),
            None => replay.cut(disk, directory, path, sound, &bytes)?,
        }
    }
    replay.finish(disk, directory)
}

/// The part of a segment that reads well.
struct Sound {
    /// `None` if the segment's own header is damaged.
    salt: Option<Salt>,
    bytes: usize,
    /// Up to here it was on the disk when the last of its batches was written.
    durable: usize,
    highest: Highest,
}

/// A large entry of which only the beginning has been read.
struct Partial {
    log_id: LogId,
    bytes: BytesMut,
    pieces: Vec<Piece>,
}

#[derive(Default)]
struct Replay {
    memory_bytes: u64,
    replayed: Replayed,
    partial: BTreeMap<LogKey, Partial>,
    /// Entries up to here were, at least in part, in segments that are gone: a purge of them is to come.
    owed: BTreeMap<LogKey, u64>,
}

/// A sound record contradicts what came before it.
struct Contradiction;

impl Replay {
    fn segment(&mut self, segment: Arc<SegmentFile>, first_lsn: u64, bytes: &[u8]) -> Result<Sound, LogError> {
        let path = &segment.path;
        let mut sound = Sound { salt: None, bytes: 0, durable: 0, highest: BTreeMap::new() };
        let mut ends = VecDeque::new();
        let salt = match read_segment_header(bytes) {
            SegmentHeader::Sound(salt) => salt,
            SegmentHeader::Damaged => return Ok(sound),
            SegmentHeader::Version(version) => return Err(LogError::Version { path: path.to_owned(), version }),
            SegmentHeader::Foreign => return Err(LogError::Foreign { path: path.to_owned() }),
        };
        sound.salt = Some(salt);
        sound.bytes = SEGMENT_HEADER_BYTES;
        let oldest = self.replayed.end.lsn == 0;
        if oldest {
            // What came before is deleted, or was never written.
            self.replayed.end.lsn = first_lsn.saturating_sub(1);
        }
        while let Some(batch) = unseal(&bytes[sound.bytes..], salt) {
            let begins = sound.bytes == SEGMENT_HEADER_BYTES;
            let continues = batch.header.lsn == self.replayed.end.lsn + 1
                && (batch.header.previous_crc == self.replayed.end.crc || (oldest && begins));
            if !continues {
                break;
            }
            let mut body = batch.body;
            while !body.is_empty() {
                let undecodable = LogError::Undecodable { path: path.to_owned(), offset: sound.bytes as u64 };
                let Ok((key, record)) = take_record(&mut body) else { return Err(undecodable) };
                let end = sound.bytes + BATCH_HEADER_BYTES + batch.body.len() - body.len();
                let taken = match record {
                    Record::Last(last) if oldest && begins => {
                        self.owe(key, last);
                        Ok(())
                    }
                    record => {
                        let piece = |bytes: &[u8]| Piece::new(&segment, bytes, end as u64);
                        self.record(key, record, piece, &mut sound.highest)
                    }
                };
                if taken.is_err() {
                    return Err(undecodable);
                }
            }
            (self.replayed.end.lsn, self.replayed.end.crc) = (batch.header.lsn, batch.crc);
            sound.bytes += BATCH_HEADER_BYTES + batch.body.len();
            ends.push_back((batch.header.lsn, sound.bytes));
            while let Some((_, end)) = ends.pop_front_if(|(lsn, _)| *lsn <= batch.header.durable_lsn) {
                sound.durable = end;
            }
        }
        Ok(sound)
    }

    /// Entries up to `log_id` are gone because a later record purges them; until it comes, the log goes on behind them.
    fn owe(&mut self, key: LogKey, log_id: LogId) {
        let tail = self.replayed.tails.entry(key).or_default();
        if tail.purged.is_none_or(|purged| purged.index < log_id.index) {
            tail.purge(log_id);
            self.owed.insert(key, log_id.index);
        }
    }

    fn entry(
        &mut self,
        key: LogKey,
        entry: Entry,
        place: Option<Place>,
        highest: &mut Highest,
    ) -> Result<(), Contradiction> {
        self.replayed.clean = false;
        let log_id = entry.log_id;
        let highest = highest.entry(key).or_default();
        *highest = (*highest).max(log_id.index);
        let tail = self.replayed.tails.entry(key).or_default();
        tail.replay(entry).map_err(|_| Contradiction)?;
        tail.written(log_id, place);
        tail.move_to_disk(self.memory_bytes, 2);
        Ok(())
    }

    /// `piece`: where bytes that end with the record lie.
    fn record(
        &mut self,
        key: LogKey,
        record: Record,
        piece: impl Fn(&[u8]) -> Piece,
        highest: &mut Highest,
    ) -> Result<(), Contradiction> {
        self.replayed.clean = matches!(record, Record::Stop);
        let tails = &mut self.replayed.tails;
        let mut holds = |log_id: LogId| {
            let highest = highest.entry(key).or_default();
            *highest = (*highest).max(log_id.index);
        };
        match record {
            Record::Vote(vote) => tails.entry(key).or_default().vote = Some(vote),
            Record::Entry(entry) => {
                let bytes = payload(&entry);
                let place = (bytes.len() >= MOVED_BYTES_MIN).then(|| Place::Whole(piece(bytes)));
                self.entry(key, entry, place, highest)?;
            }
            Record::Part { log_id, offset, bytes } => {
                holds(log_id);
                self.part(key, log_id, offset, &bytes, piece(&bytes))?;
            }
            Record::Rest { entry, offset } => {
                holds(entry.log_id);
                let rest = payload(&entry);
                self.part(key, entry.log_id, offset, rest, piece(rest))?;
                match self.partial.remove(&key) {
                    Some(Partial { log_id, bytes, pieces }) => {
                        let payload = EntryPayload::Normal(Batch(bytes.freeze()));
                        self.entry(key, Entry { log_id, payload }, Some(Place::Parts(pieces.into())), highest)?;
                    }
                    None => self.owe(key, entry.log_id),
                }
            }
            Record::Truncate { from, .. } => tails.entry(key).or_default().truncate_from(from),
            Record::Purge(log_id) => {
                tails.entry(key).or_default().purge(log_id);
                if self.owed.get(&key).is_some_and(|index| *index <= log_id.index) {
                    self.owed.remove(&key);
                }
            }
            Record::Snapshot(log_id) => tails.entry(key).or_default().snapshot = Some(log_id),
            Record::Last(last) => {
                if !self.owed.contains_key(&key) && tails.entry(key).or_default().last() != Some(last) {
                    return Err(Contradiction);
                }
            }
            Record::Remove => {
                tails.remove(&key);
                self.partial.remove(&key);
                self.owed.remove(&key);
            }
            Record::Start(mark) => self.replayed.start = Some(mark),
            Record::Stop => (),
        }
        Ok(())
    }

    /// Offset 0 begins anew: a crash may have left a beginning behind. A part whose beginning was in a segment that is gone is passed over.
    fn part(
        &mut self,
        key: LogKey,
        log_id: LogId,
        offset: u64,
        bytes: &[u8],
        piece: Piece,
    ) -> Result<(), Contradiction> {
        if offset == 0 {
            self.partial.insert(key, Partial { log_id, bytes: BytesMut::new(), pieces: Vec::new() });
        }
        let Some(partial) = self.partial.get_mut(&key) else { return Ok(()) };
        if partial.log_id != log_id || partial.bytes.len() as u64 != offset {
            return Err(Contradiction);
        }
        partial.bytes.extend_from_slice(bytes);
        partial.pieces.push(piece);
        Ok(())
    }

    fn keep(&mut self, path: &Path, sound: Sound) {
        let Sound { bytes, highest, .. } = sound;
        self.replayed.end.segments.push_back(OldSegment {
            path: path.to_owned(),
            bytes: bytes as u64,
            highest: Arc::new(highest),
        });
    }

    fn corrupt(&self, path: &Path, sound: &Sound) -> LogError {
        LogError::Corrupt { path: path.to_owned(), offset: sound.bytes as u64, lsn: self.replayed.end.lsn + 1 }
    }

    /// Whether the first batch that does not read well had been on the disk.
    fn was_durable(&self, bytes: &[u8], sound: &Sound) -> bool {
        let damaged_lsn = self.replayed.end.lsn + 1;
        let rest = &bytes[sound.bytes..];
        match sound.salt {
            Some(salt) => {
                let found = batch_offsets(rest).filter_map(|offset| unseal(&rest[offset..], salt));
                found.map(|batch| batch.header.durable_lsn).any(|durable| durable >= damaged_lsn)
            }
            // A segment is durable before it gets a second batch.
            None => batch_offsets(rest).any(|offset| offset > SEGMENT_HEADER_BYTES),
        }
    }

    /// Cuts the torn tail off the last segment.
    fn cut(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        path: &Path,
        sound: Sound,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        let failed = |error| LogError::io("cut the torn end off", path, error);
        let offset = sound.bytes as u64;
        let written = bytes[sound.bytes..].iter().rposition(|byte| *byte != 0);
        let bytes = written.map_or(0, |last| last as u64 + 1);
        self.replayed.dropped = Some(DroppedTail { path: path.to_owned(), offset, bytes });
        if sound.bytes <= SEGMENT_HEADER_BYTES {
            // It was not finished being begun; the log ends as the segment before it does.
            disk.remove(path).map_err(failed)?;
            return disk.sync_directory(directory).map_err(failed);
        }
        let cut = disk.open(path).and_then(|file| file.cut(offset));
        cut.inspect_err(|_| self.doubt(disk, directory)).map_err(failed)?;
        self.replayed.clean = false;
        self.keep(path, sound);
        Ok(())
    }

    /// § After a sync that failed: what was found may have been in the kernel's memory only, and is not there the next time. Whether it may have been
    /// acknowledged is for the run to say that wrote it, whatever this one's mode is.
    fn doubt(&self, disk: &dyn Disk, directory: &Path) {
        if self.replayed.start.as_ref().is_some_and(|last| !last.synced) {
            failed_sync::mark(disk, directory);
        }
    }

    /// § Syncs what was read: after a crash of the process alone it may be in the kernel's memory only, and the next segment will say that
    /// it is on the disk. Space taken behind it is given back: on a full disk it is all that there is for the next segment and its votes.
    fn finish(mut self, disk: &dyn Disk, directory: &Path) -> Result<Replayed, LogError> {
        if let Some((key, index)) = self.owed.pop_first() {
            let oldest = self.replayed.end.segments.front().map_or(directory, |segment| &segment.path);
            return Err(LogError::Missing { path: oldest.to_owned(), group: key.0.0, index });
        }
        for segment in &self.replayed.end.segments {
            let synced = disk.open(&segment.path).and_then(|file| file.cut(segment.bytes));
            let synced = synced.inspect_err(|_| self.doubt(disk, directory));
            synced.map_err(|error| match LogError::io("sync", &segment.path, error) {
                LogError::Io { path, source, .. } => LogError::Unsynced { path, source },
                error => error,
            })?;
        }
        disk.sync_directory(directory).map_err(|error| LogError::io("sync", directory, error))?;
        Ok(self.replayed)
    }
}
