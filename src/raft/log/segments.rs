//! The log's files: writing batches, syncing, beginning a new segment, deleting old ones.
//!
//! § A disk may be full for hours, and votes, memberships and what is under way must find a place all the same: space is taken from the file
//! system before it is needed, with a reserve behind. Once no more is to be had, [`Room`] says so, upon which this node takes no more of
//! clients and leaders; what is written then goes into the reserve, and a full segment is written on beyond its size.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;

use crate::clock::Boottime;
use crate::metrics::LogMetrics;
use crate::planted::{self, Bug};
use crate::raft::log::background_sync::{BackgroundSync, Synced};
use crate::raft::log::direct::BLOCK_BYTES;
use crate::raft::log::disk::{Disk, DiskFile};
use crate::raft::log::error::LogError;
use crate::raft::log::failed_sync;
use crate::raft::log::format::{
    BATCH_HEADER_BYTES, BatchHeader, LogKey, Record, Salt, StartMark, put_record, seal, segment_header,
};
use crate::raft::log::node_log::{Fsync, LogOptions};
use crate::raft::log::place::SegmentFile;
use crate::raft::types::{LogId, Vote};

/// How long the last of a second's writes may wait for its sync in `Fsync::EverySec`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Segments deleted when one is begun; the others wait for the next. Each takes the writer a sync of the directory.
const DELETED_AT_ONCE_MAX: usize = 8;

/// How much of a segment is prepared at a time.
static ZEROS: &[u8] = &[0; 1 << 20];
/// Larger batches bring their own room: zeros ahead would double what is written.
const SMALL_BATCH_BYTES: usize = 64 << 10;
/// Space taken from the file system at a time, ...
const AHEAD_BYTES: u64 = 4 << 20;
/// ... and beyond it. More than what is under way when the space ends, but for huge values.
pub const RESERVE_BYTES: u64 = 4 << 20;
/// How often a full disk is asked whether it has space again.
pub const ROOM_INTERVAL: Duration = Duration::from_millis(200);

/// What the segments say of one replica, in the order in which they say it. Segments begin with it.
///
/// § It follows the records as they are written. The replica's memory runs ahead of the queue: a header made from that could take back a
/// vote, or claim a purge that the records behind it do not know yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub snapshot: Option<LogId>,
    pub last: Option<LogId>,
}

impl Mark {
    pub fn purge(&mut self, log_id: LogId) {
        if self.purged.is_none_or(|purged| purged.index <= log_id.index) {
            self.purged = Some(log_id);
        }
        if self.last.is_none_or(|last| last.index <= log_id.index) {
            self.last = Some(log_id);
        }
    }
}

pub type Marks = BTreeMap<LogKey, Mark>;

/// A segment that is not written any more.
#[derive(Debug)]
pub struct OldSegment {
    pub path: PathBuf,
    pub bytes: u64,
    pub highest: Arc<Highest>,
}

impl OldSegment {
    fn is_needed(&self, marks: &Marks) -> bool {
        self.highest.iter().any(|(key, highest)| {
            marks.get(key).is_some_and(|mark| mark.purged.is_none_or(|purged| purged.index < *highest))
        })
    }
}

/// Highest index per log of the entries of which a segment holds at least a part.
pub type Highest = BTreeMap<LogKey, u64>;

/// What the segments that are not written any more hold, oldest first; for who wants them gone.
pub type OldContents = Arc<Mutex<Vec<Arc<Highest>>>>;

/// The end of what was recovered; the log goes on from here in a new segment.
#[derive(Debug, Default)]
pub struct LogEnd {
    pub segments: VecDeque<OldSegment>,
    pub lsn: u64,
    pub crc: u32,
}

/// Whether the log has space for more, as its thread last found.
#[derive(Debug, Default)]
pub struct Room {
    ended: AtomicBool,
    spent: AtomicBool,
}

impl Room {
    #[cfg(test)]
    pub fn spent() -> Self {
        Self { ended: true.into(), spent: true.into() }
    }

    /// What is written meanwhile takes up the reserve.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Half of the reserve is used up: the rest is for what keeps the group alive, votes above all.
    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }
}

struct Current {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// The same, for who reads entries back.
    readable: Arc<SegmentFile>,
    salt: Salt,
    written: u64,
    /// Bytes of the file for which space is taken.
    reserved: u64,
    /// Bytes of the file that are written, with batches or with zeros ahead of them.
    prepared: u64,
    highest: Highest,
}

pub struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: LogOptions,
    start: StartMark,
    old: VecDeque<OldSegment>,
    old_contents: OldContents,
    current: Option<Current>,
    lsn: u64,
    crc: u32,
    durable_lsn: u64,
    /// When the first batch that is not synced was written.
    dirty_since: Option<Boottime>,
    /// In `Fsync::EverySec` only.
    background: Option<BackgroundSync>,
    room: Arc<Room>,
    /// When space was last asked for in vain.
    refused: Option<Boottime>,
    /// A segment that found no space and is still there.
    unbegun: Option<PathBuf>,
    metrics: LogMetrics,
}

impl Segments {
    /// § Everything recovered must be on the disk: the first segment begun says so.
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
        start: StartMark,
        end: LogEnd,
    ) -> Result<Self, LogError> {
        let background = match options.fsync {
            Fsync::EverySec => {
                Some(BackgroundSync::start().map_err(|error| LogError::io("start a thread for", directory, error))?)
            }
            Fsync::Always | Fsync::No => None,
        };
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            options,
            start,
            old: end.segments,
            old_contents: OldContents::default(),
            current: None,
            lsn: end.lsn,
            crc: end.crc,
            durable_lsn: end.lsn,
            dirty_since: None,
            background,
            room: Arc::default(),
            refused: None,
            unbegun: None,
            metrics: LogMetrics::new(),
        })
    }

    pub fn old_contents(&self) -> OldContents {
        self.old_contents.clone()
    }

    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// The next batch should go into another one, if there is space for that.
    pub fn is_full(&self) -> bool {
        let full = self.current.as_ref().is_some_and(|current| current.written >= self.options.segment_bytes);
        full && self.may_ask_for_space()
    }

    fn may_ask_for_space(&self) -> bool {
        self.refused.is_none_or(|refused| Boottime::now().saturating_since(refused) >= ROOM_INTERVAL)
    }

    /// Takes space for a batch of this size, with the reserve behind it. Without, the batch may still fit into the reserve.
    pub fn take_space(&mut self, bytes: u64) -> Result<(), LogError> {
        let current = self.current.as_ref().expect("a segment is open");
        let end = current.written + bytes;
        if end + RESERVE_BYTES <= current.reserved || !self.may_ask_for_space() {
            return Ok(());
        }
        let ahead = self.options.segment_bytes.saturating_sub(end).min(AHEAD_BYTES);
        let more = end + ahead + RESERVE_BYTES - current.reserved;
        let taken = current.file.reserve(current.reserved, more);
        let taken = taken.map_err(|error| LogError::io("take space for", &current.path, error));
        if self.is_granted(taken)? {
            self.current.as_mut().expect("a segment is open").reserved += more;
        }
        Ok(())
    }

    /// On a full disk, for which there may be no other space: segments that are needed no more go at once, not when the next one is begun.
    /// § What says that they are not needed is durable first.
    pub fn free_space(&mut self, marks: &Marks) -> Result<(), LogError> {
        if self.room.has_ended() && self.old.front().is_some_and(|oldest| !oldest.is_needed(marks)) {
            self.sync()?;
            self.delete_old(marks)?;
        }
        Ok(())
    }

    fn note_reserve(&self) {
        let left = self.current.as_ref().map_or(0, |current| current.reserved.saturating_sub(current.written));
        self.room.spent.store(self.room.has_ended() && left < RESERVE_BYTES / 2, Ordering::Release);
    }

    /// False when the disk is full, which is no error, but noted.
    fn is_granted(&mut self, taken: Result<(), LogError>) -> Result<bool, LogError> {
        let granted = match taken {
            Ok(()) => true,
            Err(LogError::Full { .. }) => false,
            Err(error) => return Err(error),
        };
        self.refused = (!granted).then(Boottime::now);
        self.room.ended.store(!granted, Ordering::Release);
        self.note_reserve();
        Ok(granted)
    }

    /// § A batch that waits for space must be known to wait, whatever the file system promised: NFS keeps no space for a file, and btrfs needs
    /// more for what it has kept.
    fn note_unwritten(&mut self, error: LogError) -> LogError {
        if matches!(error, LogError::Full { .. }) {
            let current = self.current.as_mut().expect("a segment is open");
            current.reserved = current.reserved.min(current.written);
            self.refused = Some(Boottime::now());
            self.room.ended.store(true, Ordering::Release);
            self.note_reserve();
        }
        error
    }

    /// The next batch holds at least a part of this entry.
    pub fn holds(&mut self, key: LogKey, index: u64) {
        let highest = self.current.as_mut().expect("a segment is open").highest.entry(key).or_default();
        *highest = (*highest).max(index);
    }

    /// Writes a batch: `batch` has room for its header at the start, then its records.
    ///
    /// § After `LogError::Full` it may be written again: what is in the file behind the last batch counts for nothing, and nothing of it was
    /// synced. That is unlike a sync that failed, after which nobody knows what is on the disk.
    pub fn write(&mut self, batch: &mut [u8], records: u64) -> Result<(), LogError> {
        self.withdraw().map_err(|error| self.note_unwritten(error))?;
        self.take_space(batch.len() as u64)?;
        let current = self.current.as_mut().expect("a segment is open");
        let header = BatchHeader { lsn: self.lsn + 1, previous_crc: self.crc, durable_lsn: self.durable_lsn };
        let crc = seal(batch, current.salt, header);
        let failed = |error| LogError::io("write", &current.path, error);
        let end = current.written + batch.len() as u64;
        if let Err(error) = current.file.write_at(batch, current.written).map_err(failed) {
            return Err(self.note_unwritten(error));
        }
        (self.lsn, self.crc) = (self.lsn + 1, crc);
        let prepare = match self.options.fsync {
            Fsync::Always => end > current.prepared && batch.len() <= SMALL_BATCH_BYTES,
            Fsync::EverySec | Fsync::No => false,
        };
        // Whole blocks: what the batch's last one holds behind it is zeros already.
        let begin = end.next_multiple_of(BLOCK_BYTES);
        let room = self.options.segment_bytes.min(current.reserved).saturating_sub(begin).min(ZEROS.len() as u64);
        let room = room / BLOCK_BYTES * BLOCK_BYTES;
        if prepare && room > 0 {
            // Room for later batches is written now, as zeros: fdatasync of a batch that changes neither the file's length nor its
            // extents needs no journal commit, which took most of a small batch's time.
            match current.file.write_at(&ZEROS[..room as usize], begin).map_err(failed) {
                Ok(()) => current.prepared = begin + room,
                // A file system that cannot reserve. The batch is written, and zeros or none behind it are the same.
                Err(LogError::Full { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        current.written = end;
        if self.room.has_ended() {
            self.note_reserve();
        }
        self.dirty_since.get_or_insert_with(Boottime::now);
        self.metrics.write_bytes.increment(batch.len() as u64);
        self.metrics.batch_records.record(records as f64);
        Ok(())
    }

    /// Of a replica's entries, about as much as may stay in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.options.memory_bytes
    }

    /// The segment that holds the last batch, and where in it that ends.
    pub fn place_of_batch(&self) -> (Arc<SegmentFile>, u64) {
        let current = self.current.as_ref().expect("a segment is open");
        (current.readable.clone(), current.written)
    }

    /// Returns when everything written is on the disk.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let current = self.current.as_ref().expect("a segment is open");
        let failed = |error| LogError::unsynced(&current.path, error);
        if let Some(background) = &mut self.background {
            background.finish().map_err(failed)?;
        }
        if self.dirty_since.is_none() {
            return Ok(());
        }
        let started = Instant::now();
        current.file.sync().map_err(failed)?;
        self.metrics.fsync_seconds.record(started.elapsed().as_secs_f64());
        self.durable_lsn = self.lsn;
        self.dirty_since = None;
        Ok(())
    }

    /// The log ends with this error. § Where what was acknowledged was not synced, a sync that failed is noted for the next start; also one in the background that
    /// nobody has asked for yet.
    pub fn note_end(&mut self, error: &LogError) {
        if self.options.fsync == Fsync::Always {
            return;
        }
        let finished = self.background.as_mut().map_or(Ok(None), BackgroundSync::finish);
        if finished.is_err() || matches!(error, LogError::Unsynced { .. }) {
            failed_sync::mark(&*self.disk, &self.directory);
        }
    }

    /// How long the writer may wait for work before `sync_in_turn` has something to do.
    pub fn patience(&self) -> Option<Duration> {
        let waits = self.background.as_ref().and(self.dirty_since);
        let left = |since: Boottime, interval| since.saturating_add(interval).saturating_since(Boottime::now());
        let sync = waits.map(|since| left(since, SYNC_INTERVAL));
        let room = self.refused.map(|refused| left(refused, ROOM_INTERVAL));
        sync.into_iter().chain(room).min()
    }

    /// In `Fsync::EverySec`: starts a sync when one is due, and takes note of one that has finished.
    pub fn sync_in_turn(&mut self) -> Result<(), LogError> {
        let (Some(background), Some(current)) = (&mut self.background, &self.current) else { return Ok(()) };
        if planted::is(Bug::EverySecondIsForgotten) {
            return Ok(());
        }
        let finished = background.poll().map_err(|error| LogError::unsynced(&current.path, error))?;
        if let Some(Synced { lsn, took }) = finished {
            self.metrics.fsync_seconds.record(took.as_secs_f64());
            self.durable_lsn = self.durable_lsn.max(lsn);
        }
        if self.durable_lsn == self.lsn {
            self.dirty_since = None;
        } else if self.dirty_since.is_some_and(|since| Boottime::now().saturating_since(since) >= SYNC_INTERVAL) {
            background.request(&current.file, self.lsn);
            // Its outcome is asked for after every batch, and if none comes in an interval from now.
            self.dirty_since = Some(Boottime::now());
        }
        Ok(())
    }

    /// § The old segment is synced first: that a later segment exists proves that the earlier ones were whole. The new one starts with
    /// every replica's vote, purge point, snapshot id and last log id, and is durable, directory entry included, before an older one goes.
    /// Without space or a file descriptor for a new one, the log goes on in the old one.
    pub fn begin(&mut self, marks: &Marks) -> Result<(), LogError> {
        if self.current.is_some() {
            self.sync()?;
            if let Err(error) = self.withdraw() {
                return self.is_granted(Err(error)).map(drop);
            }
        }
        let path = segment_path(&self.directory, self.lsn + 1);
        let created = match self.options.fsync {
            Fsync::Always => self.disk.create_for_syncs(&path),
            // The kernel may gather what is written.
            Fsync::EverySec | Fsync::No => self.disk.create(&path),
        };
        let created = created.map_err(|error| LogError::io("create", &path, error));
        let begun = created.and_then(|file| self.start_segment(file, path.clone(), marks));
        let (segment, crc) = match begun {
            Err(error @ LogError::Full { .. }) if self.current.is_some() => {
                self.is_granted(Err(error))?;
                self.unbegun = Some(path);
                return match self.withdraw() {
                    Err(error) => self.is_granted(Err(error)).map(drop),
                    Ok(()) => Ok(()),
                };
            }
            // Nothing was created. The old one is written on, and the next asked for again.
            Err(error @ LogError::Crowded { .. }) if self.current.is_some() => {
                tracing::warn!(%error, "the log goes on in its present segment");
                self.refused = Some(Boottime::now());
                return Ok(());
            }
            begun => begun?,
        };
        (self.lsn, self.crc) = (self.lsn + 1, crc);
        if let Some(full) = self.current.replace(segment) {
            // Only now: until the new one was there, the old one's reserve was all there was. Some file systems need space to give some back:
            // what is behind the last batch counts for nothing, and stays then.
            match full.file.cut(full.written).map_err(|error| LogError::io("cut", &full.path, error)) {
                Ok(()) | Err(LogError::Full { .. }) => (),
                Err(error) => return Err(error),
            }
            self.old.push_back(OldSegment { path: full.path, bytes: full.written, highest: Arc::new(full.highest) });
        }
        self.dirty_since.get_or_insert_with(Boottime::now);
        self.sync()?;
        self.sync_directory()?;
        self.delete_old(marks)
    }

    /// A segment with its first batch, not yet synced, and that batch's checksum.
    fn start_segment(
        &mut self,
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        marks: &Marks,
    ) -> Result<(Current, u32), LogError> {
        let salt = Salt::random();
        let mut batch = start_batch(&self.start, marks);
        let header = BatchHeader { lsn: self.lsn + 1, previous_crc: self.crc, durable_lsn: self.durable_lsn };
        let crc = seal(&mut batch, salt, header);
        let bytes = [&segment_header(salt)[..], &batch].concat();
        let written = bytes.len() as u64;
        let mut reserved =
            written + self.options.segment_bytes.saturating_sub(written).min(AHEAD_BYTES) + RESERVE_BYTES;
        let taken = file.reserve(0, reserved).map_err(|error| LogError::io("take space for", &path, error));
        if self.current.is_some() {
            taken?;
            self.is_granted(Ok(()))?;
        } else if !self.is_granted(taken)? {
            // A node that is started with a full disk may yet serve reads.
            reserved = 0;
        }
        file.write_at(&bytes, 0).map_err(|error| LogError::io("write", &path, error))?;
        let readable = Arc::new(SegmentFile { file: file.clone(), path: path.clone() });
        Ok((Current { file, path, readable, salt, written, reserved, prepared: 0, highest: BTreeMap::new() }, crc))
    }

    /// § The name of a segment says where the one before it ends: what was not begun must be gone, durably, before the log goes on in the one
    /// before. Some file systems need space to remove it, and then everything waits.
    fn withdraw(&mut self) -> Result<(), LogError> {
        let Some(path) = &self.unbegun else { return Ok(()) };
        match self.disk.remove(path) {
            // Its creation failed already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            removed => {
                removed.map_err(|error| LogError::io("remove", path, error))?;
                self.sync_directory()?;
            }
        }
        self.unbegun = None;
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), LogError> {
        self.disk.sync_directory(&self.directory).map_err(|error| LogError::unsynced(&self.directory, error))
    }

    /// § Oldest first, each removal durable before the next, so that what a power loss leaves is always a whole end of the log. `marks` is
    /// what the log, durable by now, says.
    fn delete_old(&mut self, marks: &Marks) -> Result<(), LogError> {
        for _ in 0..DELETED_AT_ONCE_MAX {
            let Some(oldest) = self.old.front() else { break };
            if oldest.is_needed(marks) {
                break;
            }
            match self.disk.remove(&oldest.path).map_err(|error| LogError::io("remove", &oldest.path, error)) {
                Ok(()) => (),
                // Some file systems need space for that, too. It goes later.
                Err(LogError::Full { .. }) => break,
                Err(error) => return Err(error),
            }
            self.old.pop_front();
            self.sync_directory()?;
        }
        *self.old_contents.lock() = self.old.iter().map(|segment| segment.highest.clone()).collect();
        self.metrics.segments.set((self.old.len() + 1) as f64);
        let current = self.current.as_ref().map_or(0, |current| current.written);
        self.metrics.bytes.set((self.old.iter().map(|segment| segment.bytes).sum::<u64>() + current) as f64);
        Ok(())
    }
}

/// What a segment starts with, with room for the batch's header.
fn start_batch(start: &StartMark, marks: &Marks) -> BytesMut {
    let mut batch = BytesMut::zeroed(BATCH_HEADER_BYTES);
    put_record(&mut batch, LogKey::default(), &Record::Start(start.clone()));
    for (key, mark) in marks {
        let records = [
            mark.vote.map(Record::Vote),
            mark.purged.map(Record::Purge),
            mark.snapshot.map(Record::Snapshot),
            mark.last.map(Record::Last),
        ];
        records.iter().flatten().for_each(|record| put_record(&mut batch, *key, record));
    }
    batch
}

pub fn segment_path(directory: &Path, first_lsn: u64) -> PathBuf {
    directory.join(format!("wal-{first_lsn:020}.log"))
}

/// The LSN a segment's name says it begins with; `None` for other files.
pub fn first_lsn(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()
}
