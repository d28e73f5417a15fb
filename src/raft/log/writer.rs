//! The writer: drains the queue, writes one batch, syncs once, then calls back.
//!
//! § A write or fsync error stops the node. There is no retry on the same file: the kernel may have dropped the pages it could not write and
//! report success the next time (PostgreSQL's lesson of 2018).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::metrics::LogMetrics;
use crate::raft::log::format::{
    BODY_BYTES_MAX, BatchHeader, HEADER_BYTES, LogKey, Record, SEGMENT_MAGIC, put_entry, put_record, seal,
};
use crate::raft::log::node_log::Fsync;
use crate::raft::log::queue::{Item, Queue};
use crate::raft::log::store::needs_sync;
use crate::raft::log::tail::Tail;
use crate::raft::snapshot_io::sync_directory;
use crate::raft::types::{Entry, TypeConfig};

const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How much of a segment is prepared at a time.
static ZEROS: &[u8] = &[0; 1 << 20];

pub type Tails = Arc<Mutex<BTreeMap<LogKey, Arc<Mutex<Tail>>>>>;

/// A segment that is not the current one: deletable when every group is purged past what it holds.
pub struct OldSegment {
    pub path: PathBuf,
    /// Highest entry index per log.
    pub highest: HashMap<LogKey, u64>,
}

/// Whom to tell once a batch is written, or synced.
enum Waiter {
    Flushed(IOFlushed<TypeConfig>),
    Done(oneshot::Sender<io::Result<()>>),
}

pub struct Writer {
    pub directory: PathBuf,
    pub fsync: Fsync,
    pub segment_bytes: u64,
    pub boot_id: Vec<u8>,
    pub queue: Arc<Queue>,
    pub tails: Tails,
    pub old: VecDeque<OldSegment>,
    pub lsn: u64,
    pub previous_crc: u32,
    pub failed: watch::Sender<Option<String>>,
    file: Option<File>,
    current: OldSegment,
    written: u64,
    /// Bytes of the segment that are written, with batches or with zeros ahead of them.
    prepared: u64,
    durable_lsn: u64,
    /// Bytes written since the last sync.
    dirty: bool,
    last_sync: Instant,
    buffer: BytesMut,
    metrics: LogMetrics,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "one call, from node_log.rs, with named variables")]
    pub fn new(
        directory: PathBuf,
        fsync: Fsync,
        segment_bytes: u64,
        boot_id: Vec<u8>,
        queue: Arc<Queue>,
        tails: Tails,
        old: VecDeque<OldSegment>,
        lsn: u64,
        previous_crc: u32,
        failed: watch::Sender<Option<String>>,
    ) -> Self {
        let current = OldSegment { path: PathBuf::new(), highest: HashMap::new() };
        Self {
            directory,
            fsync,
            segment_bytes,
            boot_id,
            queue,
            tails,
            old,
            lsn,
            previous_crc,
            failed,
            file: None,
            current,
            written: 0,
            prepared: 0,
            // Recovery has synced what it kept.
            durable_lsn: lsn,
            dirty: false,
            last_sync: Instant::now(),
            buffer: BytesMut::new(),
            metrics: LogMetrics::new(),
        }
    }

    /// The thread's body; returns after `close`, with everything synced and a stop mark written.
    pub fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, directory = %self.directory.display(), "the log cannot be written: this node stops");
            self.failed.send_replace(Some(error.to_string()));
            // Whoever still waits is told when its sender is dropped.
            while let Some(held) = self.queue.drain(None) {
                drop(held);
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.begin_segment()?;
        loop {
            let timeout = (self.dirty && self.fsync == Fsync::EverySec).then_some(SYNC_INTERVAL);
            let Some(mut held) = self.queue.drain(timeout) else { break };
            // One batch after the other, so that what arrives meanwhile is served in turn.
            while !held.is_empty() {
                self.write_batch(&mut held)?;
                self.queue.join_into(&mut held);
            }
            if self.dirty && self.fsync == Fsync::EverySec && self.last_sync.elapsed() >= SYNC_INTERVAL {
                self.sync()?;
            }
        }
        let mut held = BTreeMap::from([(
            LogKey::default(),
            VecDeque::from([Item::Record { record: Record::Stop, sync: true, done: None }]),
        )]);
        self.sync()?;
        self.write_batch(&mut held)
    }

    fn write_batch(&mut self, held: &mut BTreeMap<LogKey, VecDeque<Item>>) -> io::Result<()> {
        if self.written >= self.segment_bytes {
            self.begin_segment()?;
        }
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES, 0);
        let mut waiters = Vec::new();
        let mut must_sync = self.fsync == Fsync::Always;
        let share = BODY_BYTES_MAX / held.len().max(1);
        for (key, items) in held.iter_mut() {
            let stop = self.buffer.len() + share;
            while self.buffer.len() < stop {
                let Some(item) = items.pop_front() else { break };
                must_sync |= self.take_item(*key, item, items, stop, &mut waiters);
            }
        }
        held.retain(|_, items| !items.is_empty());
        if self.buffer.len() > HEADER_BYTES {
            self.write_buffer()?;
        }
        if must_sync {
            self.sync()?;
        }
        self.metrics.batch_records.record(waiters.len() as f64);
        for waiter in waiters {
            match waiter {
                Waiter::Flushed(callback) => callback.io_completed(Ok(())),
                // Who asked may be gone.
                Waiter::Done(done) => drop(done.send(Ok(()))),
            }
        }
        Ok(())
    }

    /// Encodes one item, or the part of it that fits. True if it has to be synced in every mode.
    fn take_item(
        &mut self,
        key: LogKey,
        item: Item,
        items: &mut VecDeque<Item>,
        stop: usize,
        waiters: &mut Vec<Waiter>,
    ) -> bool {
        match item {
            Item::Barrier { done } => {
                waiters.push(Waiter::Done(done));
                true
            }
            Item::Record { record, sync, done } => {
                put_record(&mut self.buffer, key, &record);
                waiters.extend(done.map(Waiter::Done));
                sync
            }
            Item::Entries { entries, done } => {
                let sync = needs_sync(&entries);
                let mut entries = VecDeque::from(entries);
                while let Some(entry) = entries.pop_front() {
                    if let Some(rest) = self.put_some(key, entry) {
                        entries.push_front(rest);
                    }
                    if self.buffer.len() >= stop && !entries.is_empty() {
                        items.push_front(Item::Entries { entries: entries.into(), done });
                        return sync;
                    }
                }
                waiters.extend(done.map(Waiter::Flushed));
                sync
            }
        }
    }

    /// Writes an entry, or the next part of a large one; then what is left of it.
    fn put_some(&mut self, key: LogKey, mut entry: Entry) -> Option<Entry> {
        if let EntryPayload::Normal(batch) = &mut entry.payload
            && batch.0.len() > BODY_BYTES_MAX / 2
        {
            let part: Bytes = batch.0.split_to(BODY_BYTES_MAX / 2);
            put_record(&mut self.buffer, key, &Record::Part(part));
            return Some(entry);
        }
        let highest = self.current.highest.entry(key).or_default();
        *highest = (*highest).max(entry.log_id.index);
        put_entry(&mut self.buffer, key, &entry, None);
        None
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.lsn += 1;
        let header = BatchHeader { lsn: self.lsn, previous_crc: self.previous_crc, durable_lsn: self.durable_lsn };
        self.previous_crc = seal(&mut self.buffer, header);
        let file = self.file.as_mut().expect("a segment is open");
        let end = self.written + self.buffer.len() as u64;
        if end > self.prepared {
            // Room for later batches is written now, as zeros: fdatasync of a batch that changes neither the file's length nor its
            // extents needs no journal commit, which took most of a small batch's time.
            file.write_all(&self.buffer)?;
            file.write_all(ZEROS)?;
            file.seek(io::SeekFrom::Start(end))?;
            self.prepared = end + ZEROS.len() as u64;
        } else {
            file.write_all(&self.buffer)?;
        }
        self.metrics.write_bytes.increment(self.buffer.len() as u64);
        self.written = end;
        self.dirty = true;
        // A 1 MiB batch should not keep its room for ever.
        if self.buffer.capacity() > 2 * BODY_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let started = Instant::now();
        self.file.as_ref().expect("a segment is open").sync_data()?;
        self.last_sync = Instant::now();
        self.metrics.fsync_seconds.record(started.elapsed().as_secs_f64());
        self.durable_lsn = self.lsn;
        self.dirty = false;
        Ok(())
    }

    /// § The old segment is synced first, the new one starts with every group's vote, purge point, snapshot id and last log id, and is
    /// durable, directory entry included, before any older segment goes.
    fn begin_segment(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            self.sync()?;
            let path = segment_path(&self.directory, self.lsn + 1);
            let full = std::mem::replace(&mut self.current, OldSegment { path, highest: HashMap::new() });
            self.old.push_back(full);
        } else {
            self.current.path = segment_path(&self.directory, self.lsn + 1);
        }
        let mut file = File::options().write(true).create_new(true).open(&self.current.path)?;
        file.write_all(SEGMENT_MAGIC)?;
        self.file = Some(file);
        self.written = SEGMENT_MAGIC.len() as u64;
        self.prepared = 0;
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES, 0);
        let start = Record::Start { synced: self.fsync == Fsync::Always, boot_id: self.boot_id.clone() };
        put_record(&mut self.buffer, LogKey::default(), &start);
        let tails: Vec<(LogKey, Arc<Mutex<Tail>>)> =
            self.tails.lock().iter().map(|(key, tail)| (*key, tail.clone())).collect();
        for (key, tail) in &tails {
            let tail = tail.lock();
            let records = [
                tail.vote.map(Record::Vote),
                tail.purged.map(Record::Purge),
                tail.snapshot.map(Record::Snapshot),
                tail.last().map(Record::Last),
            ];
            records.iter().flatten().for_each(|record| put_record(&mut self.buffer, *key, record));
        }
        self.write_buffer()?;
        self.dirty = true;
        self.sync()?;
        sync_directory(&self.directory)?;
        self.delete_old(&tails)
    }

    /// Oldest first: a later one may only be read after an earlier one.
    fn delete_old(&mut self, tails: &[(LogKey, Arc<Mutex<Tail>>)]) -> io::Result<()> {
        while let Some(oldest) = self.old.front() {
            let needed = tails.iter().any(|(key, tail)| {
                let purged = tail.lock().purged.map_or(0, |purged| purged.index + 1);
                oldest.highest.get(key).is_some_and(|highest| *highest >= purged)
            });
            if needed {
                break;
            }
            fs::remove_file(&oldest.path)?;
            self.old.pop_front();
        }
        self.metrics.segments.set((self.old.len() + 1) as f64);
        Ok(())
    }
}

pub fn segment_path(directory: &Path, first_lsn: u64) -> PathBuf {
    directory.join(format!("wal-{first_lsn:020}.log"))
}
