//! The writer thread: drains the queue, writes one batch, syncs once, then calls back. Hot path.
//!
//! § A write or fsync error stops the node. There is no retry on the same file: the kernel may have dropped the pages it could not write and
//! report success the next time (PostgreSQL's lesson of 2018). A full disk alone is waited out: see `segments.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use openraft::EntryPayload;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::planted::{self, Bug};
use crate::raft::batch;
use crate::raft::blocking::rest;
use crate::raft::log::error::LogError;
use crate::raft::log::format::{
    BATCH_HEADER_BYTES, LogKey, Record, payload, put_entry, put_part, put_record, put_rest,
};
use crate::raft::log::node_log::{Fsync, Tails};
use crate::raft::log::place::{Piece, Place};
use crate::raft::log::queue::{Item, Lanes, Next, Queue, Waiter};
use crate::raft::log::segments::{Marks, ROOM_INTERVAL, Segments};
use crate::raft::log::tail::entry_bytes;
use crate::raft::types::{Entry, LogId};

/// Bytes of one batch that are shared out among the groups. What one group's turn ends with may exceed it by `PART_BYTES`.
pub const BATCH_BYTES: usize = 1 << 20;
/// A batch of ops larger than this goes in parts, so that votes and other groups pass between. A value of 1 MiB goes in two.
pub const PART_BYTES: usize = 520 << 10;
/// A shorter payload stays in memory: its place would take as much.
pub const MOVED_BYTES_MIN: usize = 128;
/// Entries that leave memory beside as many as were written, until what a rush brought is gone.
const MOVED_BESIDE: usize = 8;
/// How often others get the processor before a batch is written; how long that may take, and for how long it is left when it took longer.
const YIELDS: usize = 4;
const GATHERED_MAX: Duration = Duration::from_millis(2);
const CROWDED_INTERVAL: Duration = Duration::from_millis(100);

/// An entry in the batch, or a part of one.
struct Placed {
    key: LogKey,
    log_id: LogId,
    share: Share,
    /// Where in the batch its bytes end.
    end: usize,
    length: u32,
    crc32: u32,
}

enum Share {
    Whole,
    /// Not worth reading back.
    Tiny,
    Part,
    Last,
}

pub struct Writer {
    segments: Segments,
    fsync: Fsync,
    queue: Arc<Queue>,
    failed: watch::Sender<Option<Arc<LogError>>>,
    marks: Marks,
    /// § Ids are not reused, so that what a removed replica's task still appends can be refused here; written, it would hold segments for ever.
    removed: BTreeSet<LogKey>,
    held: Lanes,
    /// Of the lanes that share a batch; kept for its room.
    keys: Vec<LogKey>,
    tails: Arc<Mutex<Tails>>,
    /// Entries of the batch, to be told where they are; in runs of one replica's.
    placed: Vec<Placed>,
    /// Of the entries of which the rest is still to be written.
    parts: BTreeMap<LogKey, Vec<Piece>>,
    batch: BytesMut,
    records: u64,
    entry_bytes: u64,
    waiters: Vec<Waiter>,
    must_sync: bool,
    /// When a gathering that took too long was over.
    crowded: Option<Instant>,
}

impl Writer {
    /// Begins the first segment, so that a directory that cannot be written is noticed before the node starts.
    pub fn new(
        mut segments: Segments,
        fsync: Fsync,
        queue: Arc<Queue>,
        tails: Arc<Mutex<Tails>>,
        failed: watch::Sender<Option<Arc<LogError>>>,
        marks: Marks,
    ) -> Result<Self, LogError> {
        segments.begin(&marks)?;
        Ok(Self {
            segments,
            fsync,
            queue,
            failed,
            marks,
            removed: BTreeSet::new(),
            held: Lanes::default(),
            keys: Vec::new(),
            tails,
            placed: Vec::new(),
            parts: BTreeMap::new(),
            batch: BytesMut::new(),
            records: 0,
            entry_bytes: 0,
            waiters: Vec::new(),
            must_sync: false,
            crowded: None,
        })
    }

    /// The thread's body; returns after `Queue::close`, with everything synced and a stop mark written, or when the log cannot be written.
    pub fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.end(served.unwrap_or(Err(LogError::Panicked)));
    }

    fn end(&mut self, served: Result<(), LogError>) {
        let error = match served {
            Ok(()) => Arc::new(LogError::Closed),
            Err(error) => {
                // § Before anybody hears of it, and the process ends.
                self.segments.note_end(&error);
                self.report(error)
            }
        };
        for waiter in self.waiters.drain(..) {
            waiter.complete(Err(error.to_io()));
        }
        self.queue.end(std::mem::take(&mut self.held), &error);
    }

    /// What the thread does in one round, for a simulation that has no threads. False once the log has ended.
    #[cfg(test)]
    pub fn step(&mut self) -> bool {
        if self.queue.take(&mut self.held, Some(Duration::ZERO)) == Next::Close {
            self.end(Ok(()));
            return false;
        }
        if let Err(error) = self.write_batch().and_then(|()| self.segments.sync_in_turn()) {
            self.end(Err(error));
            return false;
        }
        true
    }

    fn report(&self, error: LogError) -> Arc<LogError> {
        tracing::error!(%error, "the log cannot be written: this node stops");
        let error = Arc::new(error);
        self.failed.send_replace(Some(error.clone()));
        error
    }

    fn serve(&mut self) -> Result<(), LogError> {
        while let Next::Write = self.queue.take(&mut self.held, self.segments.patience()) {
            self.gather();
            self.write_batch()?;
            self.segments.sync_in_turn()?;
        }
        // § The mark of a clean stop says that what is before it is on the disk.
        self.segments.sync()?;
        self.begin_batch();
        put_record(&mut self.batch, LogKey::default(), &Record::Stop);
        match self.segments.write(&mut self.batch, 1) {
            // Without it the next start has more to check.
            Err(LogError::Full { .. }) => Ok(()),
            written => written.and_then(|()| self.segments.sync()),
        }
    }

    /// Lets other threads run that are ready to: what they append then shares this batch's sync, which costs more than all else that is done for a
    /// small entry. Where a processor is free this takes no time; where somebody computes for long, it is left for a while.
    fn gather(&mut self) {
        let began = Instant::now();
        if self.fsync != Fsync::Always || self.crowded.is_some_and(|ended| began - ended < CROWDED_INTERVAL) {
            return;
        }
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if began.elapsed() > GATHERED_MAX {
                break;
            }
        }
        let ended = Instant::now();
        self.crowded = (ended - began > GATHERED_MAX).then_some(ended);
        // A close is seen again in the next round.
        self.queue.take(&mut self.held, Some(Duration::ZERO));
    }

    /// § With the reserve used up too, everything waits for space and nobody is told anything: what was not acknowledged may still be written.
    /// Only a node that is told to stop gives up.
    fn write_when_there_is_space(&mut self) -> Result<(), LogError> {
        loop {
            match self.segments.write(&mut self.batch, self.records) {
                Err(LogError::Full { .. }) if !self.queue.is_closing() => rest(ROOM_INTERVAL),
                written => return written,
            }
        }
    }

    fn begin_batch(&mut self) {
        // A huge record should not keep its room for ever.
        if self.batch.capacity() > 2 * (BATCH_BYTES + PART_BYTES) {
            self.batch = BytesMut::new();
        }
        self.batch.clear();
        self.batch.resize(BATCH_HEADER_BYTES, 0);
        (self.records, self.entry_bytes, self.must_sync) = (0, 0, false);
    }

    fn write_batch(&mut self) -> Result<(), LogError> {
        // The marks are those of what is written, as no record is taken yet.
        self.segments.free_space(&self.marks)?;
        if self.segments.is_full() {
            self.segments.begin(&self.marks)?;
        }
        self.begin_batch();
        let mut keys = std::mem::take(&mut self.keys);
        keys.extend(self.held.busy());
        let share = BATCH_BYTES / keys.len().max(1);
        keys.drain(..).for_each(|key| self.take_turn(key, share));
        self.keys = keys;
        if self.records > 0 {
            self.write_when_there_is_space()?;
            self.tell_places();
        } else {
            self.segments.take_space(0)?;
        }
        let acknowledges = self.entry_bytes > 0 || !self.waiters.is_empty();
        let promised = self.fsync == Fsync::Always && !planted::is(Bug::AcknowledgeBeforeSync);
        if self.must_sync || (promised && acknowledges) {
            self.segments.sync()?;
        }
        self.queue.written(self.entry_bytes);
        for waiter in self.waiters.drain(..) {
            waiter.complete(Ok(()));
        }
        Ok(())
    }

    /// § Before anything is synced or acknowledged, but only once it is in the file: memory may let go of it from now on.
    fn tell_places(&mut self) {
        let (segment, end) = self.segments.place_of_batch();
        let begin = end - self.batch.len() as u64;
        for run in self.placed.chunk_by(|one, next| one.key == next.key) {
            // A replica that is gone has none.
            let Some(tail) = self.tails.lock().get(&run[0].key).cloned() else { continue };
            let mut tail = tail.lock();
            for Placed { key, log_id, share, end, length, crc32 } in run {
                let (length, crc32) = (*length, *crc32);
                let offset = begin + *end as u64 - u64::from(length);
                let piece = || Piece { segment: segment.clone(), offset, length, crc32 };
                let place = match share {
                    Share::Tiny => None,
                    Share::Whole => Some(Place::Whole(piece())),
                    Share::Part => {
                        self.parts.entry(*key).or_default().push(piece());
                        continue;
                    }
                    Share::Last => {
                        let mut parts = self.parts.remove(key).unwrap_or_default();
                        parts.push(piece());
                        Some(Place::Parts(parts.into()))
                    }
                };
                tail.written(*log_id, place);
            }
            tail.move_to_disk(self.segments.memory_bytes(), run.len() + MOVED_BESIDE);
        }
        self.placed.clear();
    }

    /// One replica's share of the batch; at least one item.
    fn take_turn(&mut self, key: LogKey, share: usize) {
        let stop = self.batch.len() + share;
        while self.batch.len() < stop {
            let Some(item) = self.held.pop(key) else { break };
            if self.removed.contains(&key) {
                self.refuse(item);
                continue;
            }
            match item {
                Item::Entry(entry) if payload(&entry).len() > PART_BYTES => self.put_part(key, entry, 0),
                Item::Entry(entry) => {
                    put_entry(&mut self.batch, key, &entry);
                    let bytes = payload(&entry);
                    let share = if bytes.len() < MOVED_BYTES_MIN { Share::Tiny } else { Share::Whole };
                    self.place(key, entry.log_id, share, bytes);
                    self.entry_is_written(key, &entry);
                }
                Item::Rest { entry, offset } => self.put_part(key, entry, offset),
                Item::Record(record) => self.put_record(key, &record),
                Item::Waiter(waiter) => self.waiters.push(waiter),
                Item::Sync(waiter) => {
                    self.must_sync = true;
                    self.waiters.push(waiter);
                }
            }
        }
    }

    /// What was just put into the batch.
    fn place(&mut self, key: LogKey, log_id: LogId, share: Share, bytes: &[u8]) {
        let crc32 = if matches!(share, Share::Tiny) { 0 } else { crc32fast::hash(bytes) };
        let length = u32::try_from(bytes.len()).expect("a part is far below 4 GiB");
        self.placed.push(Placed { key, log_id, share, end: self.batch.len(), length, crc32 });
    }

    /// The next part of a large entry, or what is left of it.
    fn put_part(&mut self, key: LogKey, entry: Entry, offset: usize) {
        let (log_id, rest) = (entry.log_id, &payload(&entry)[offset..]);
        self.segments.holds(key, log_id.index);
        // A replica without a mark needs no segment.
        self.marks.entry(key).or_default();
        if rest.len() > PART_BYTES {
            let part = &rest[..PART_BYTES];
            put_part(&mut self.batch, key, log_id, offset as u64, part);
            self.place(key, log_id, Share::Part, part);
            self.records += 1;
            // Each part is synced as it goes: what is left for the last sync must not hold up other groups for long.
            self.must_sync |= self.fsync == Fsync::Always;
            self.held.push_front(key, Item::Rest { entry, offset: offset + PART_BYTES });
        } else {
            put_rest(&mut self.batch, key, log_id, offset as u64, rest);
            self.place(key, log_id, Share::Last, rest);
            self.entry_is_written(key, &entry);
        }
    }

    fn entry_is_written(&mut self, key: LogKey, entry: &Entry) {
        self.records += 1;
        self.entry_bytes += entry_bytes(entry);
        self.segments.holds(key, entry.log_id.index);
        self.marks.entry(key).or_default().last = Some(entry.log_id);
        // § In every mode, with all that this log holds before them.
        self.must_sync |= match &entry.payload {
            EntryPayload::Membership(_) => true,
            EntryPayload::Normal(batch) => batch::is_durable(batch),
            EntryPayload::Blank => false,
        };
    }

    fn put_record(&mut self, key: LogKey, record: &Record) {
        put_record(&mut self.batch, key, record);
        self.records += 1;
        let mark = self.marks.entry(key).or_default();
        match record {
            // § Votes and truncations are synced in every mode.
            Record::Vote(vote) => {
                mark.vote = Some(*vote);
                self.must_sync = true;
            }
            Record::Truncate { last, .. } => {
                mark.last = *last;
                self.must_sync = true;
            }
            Record::Purge(log_id) => mark.purge(*log_id),
            Record::Snapshot(log_id) => mark.snapshot = Some(*log_id),
            Record::Remove => {
                self.marks.remove(&key);
                self.parts.remove(&key);
                self.removed.insert(key);
            }
            Record::Entry(_)
            | Record::Rest { .. }
            | Record::Part { .. }
            | Record::Last(_)
            | Record::Start(_)
            | Record::Stop => unreachable!("only the writer makes these"),
        }
    }

    fn refuse(&mut self, item: Item) {
        match item {
            Item::Entry(entry) | Item::Rest { entry, .. } => self.queue.written(entry_bytes(&entry)),
            Item::Record(_) => (),
            Item::Waiter(waiter) | Item::Sync(waiter) => waiter.complete(Err(LogError::Removed.to_io())),
        }
    }
}
