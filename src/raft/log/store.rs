//! openraft's storage traits on one replica's log. Hot path.
//!
//! `append`, `purge` and `truncate_after` run inside openraft's core task: they touch memory and queue the rest for the writer. What is read is
//! nearly always in memory; older entries come from the log's files.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::raft::blocking::blocking;
use crate::raft::log::format::{LogKey, Record};
use crate::raft::log::place::Found;
use crate::raft::log::queue::{Item, Queue, Waiter};
use crate::raft::log::tail::{Gap, Tail, found_bytes};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Bytes of one read for replication, so that a lagging follower does not make us clone the whole log.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Entries cloned at a time for apply: after a start that may be the whole log.
const STREAM_ENTRIES: u64 = 64;

/// Handle on one replica's log; clones are the same log.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) key: LogKey,
    pub(super) tail: Arc<Mutex<Tail>>,
    pub(super) queue: Arc<Queue>,
}

impl Debug for GroupLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupLog({}, {})", self.key.0, self.key.1)
    }
}

impl GroupLog {
    pub fn vote(&self) -> Option<Vote> {
        self.tail.lock().vote
    }

    /// Bytes of the entries that are not purged.
    pub fn bytes(&self) -> u64 {
        self.tail.lock().bytes()
    }

    /// Bytes of the entries that no snapshot covers.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.tail.lock().bytes_since_snapshot()
    }

    /// Index of the last entry that a snapshot covers.
    pub fn snapshot_index(&self) -> Option<u64> {
        self.tail.lock().snapshot.map(|snapshot| snapshot.index)
    }

    /// Index through which entries may go when the newest `bytes` of those a snapshot covers stay; at most `entries` at a time.
    pub fn purgeable(&self, bytes: u64, entries: usize) -> Option<u64> {
        self.tail.lock().purgeable(bytes, entries)
    }

    /// § A replica whose log begins behind its snapshot has lost state: coming back without it, it could lead with keys missing.
    /// `directory` is where the snapshot should be.
    pub fn check_covered(&self, snapshot: Option<LogId>, directory: &Path) -> io::Result<()> {
        let Some(purged) = self.tail.lock().purged else { return Ok(()) };
        if snapshot.is_some_and(|snapshot| snapshot.index >= purged.index) {
            return Ok(());
        }
        let found = snapshot.map_or("there is none".to_owned(), |found| format!("the newest ends at {}", found.index));
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{} lacks the snapshot of entries up to {}, which the log no longer holds ({found}): restore the directory, or move the \
                 data directory away so that this node joins anew",
                directory.display(),
                purged.index
            ),
        ))
    }

    pub fn last_log_id(&self) -> Option<LogId> {
        self.tail.lock().last()
    }

    /// Returns when everything appended before the call is on disk, in every fsync mode.
    pub async fn flush(&self) -> io::Result<()> {
        let (done, finished) = oneshot::channel();
        self.queue.push(self.key, Item::Sync(Waiter::Done(done))).map_err(|error| error.to_io())?;
        told(finished).await
    }

    /// A snapshot through `log_id` is in place; segments say so from now on. If the log has failed, the next write says so.
    pub fn snapshot_saved(&self, log_id: LogId) {
        self.tail.lock().snapshot = Some(log_id);
        let _ = self.queue.push(self.key, Item::Record(Record::Snapshot(log_id)));
    }

    #[cfg(test)]
    pub fn snapshot(&self) -> Option<LogId> {
        self.tail.lock().snapshot
    }

    fn record(&self, record: Record) -> io::Result<()> {
        self.queue.push(self.key, Item::Record(record)).map_err(|error| error.to_io())
    }

    /// § An entry that is gone is an error: passing it over would leave out a write.
    async fn chunk(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (found, purged) = {
            let tail = self.tail.lock();
            let purged = start < end && tail.purged.is_some_and(|purged| start <= purged.index);
            (within(tail.range(start, end.min(start.saturating_add(STREAM_ENTRIES)))), purged)
        };
        if purged || found.first().is_some_and(|first| first.log_id().index != start) {
            let text = format!("entry {start} is to be applied and the log does not hold it any more");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        read(found).await
    }
}

async fn told(finished: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    finished.await.unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
}

/// As many of them as a read may bring: at least one, whatever its size.
fn within(entries: impl Iterator<Item = Found>) -> Vec<Found> {
    let mut bytes = 0;
    let fits = |found: &Found| {
        let fits = bytes == 0 || bytes + found_bytes(found) <= READ_BYTES_MAX;
        bytes += found_bytes(found);
        fits
    };
    entries.take_while(fits).collect()
}

async fn read(found: Vec<Found>) -> io::Result<Vec<Entry>> {
    let read = |found: Vec<Found>| found.into_iter().map(Found::read).collect();
    if found.iter().all(Found::is_here) {
        return read(found);
    }
    blocking(move || read(found)).await?
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let found = self.tail.lock().range(start, end).collect();
        read(found).await
    }

    /// Nothing when `start` is purged: a replication task that is being ended may still ask, and an error would stop the node.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let found = {
            let tail = self.tail.lock();
            if tail.purged.is_some_and(|purged| start <= purged.index) {
                return Ok(Vec::new());
            }
            within(tail.range(start, end))
        };
        read(found).await
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (next, end) = bounds(&range);
        let log = self.clone();
        let chunks = stream::unfold(next, move |next| {
            let log = log.clone();
            async move {
                match log.chunk(next, end).await {
                    Ok(entries) => {
                        let next = entries.last()?.log_id.index + 1;
                        Some((entries.into_iter().map(Ok).collect(), next))
                    }
                    Err(error) => Some((vec![Err(error)], end)),
                }
            }
        });
        chunks.flat_map(stream::iter::<Vec<_>>)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// § Durable on return, in every fsync mode: a replica that forgets its vote may vote twice in a term.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.tail.lock().vote = Some(*vote);
        let (done, finished) = oneshot::channel();
        let pushed = self.queue.push_all(self.key, |push| {
            push(Item::Record(Record::Vote(*vote)));
            push(Item::Waiter(Waiter::Done(done)));
        });
        pushed.map_err(|error| error.to_io())?;
        told(finished).await
    }

    /// § Memberships are synced in every mode: the callback comes after the fdatasync that the writer makes for them.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.queue.room().await;
        let mut tail = self.tail.lock();
        let pushed = self.queue.push_all(self.key, |push| {
            for entry in entries {
                tail.push(entry.clone())?;
                push(Item::Entry(entry));
            }
            push(Item::Waiter(Waiter::Flushed(callback)));
            Ok(())
        });
        pushed.map_err(|error| error.to_io())?.map_err(|gap: Gap| io::Error::other(gap))
    }

    /// § Synced in every mode: entries dropped because a new leader said so must not come back after a power loss.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        let last = {
            let mut tail = self.tail.lock();
            tail.truncate_from(from);
            tail.last()
        };
        self.record(Record::Truncate { from, last })
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.tail.lock().purge(log_id);
        self.record(Record::Purge(log_id))
    }
}
