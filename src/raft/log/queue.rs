//! What waits for the writer: a lane per replica, served in turn, so that one group's 512 MB entry holds up no other group's vote.
//! Hot path.
//!
//! The queue holds at most about `QUEUE_BYTES_MAX`; `append` waits for room beyond that. Votes, truncations and purges never wait: they
//! are few and small.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use crate::metrics::NodeMetrics;
use crate::raft::log::error::LogError;
use crate::raft::log::format::{LogKey, Record};
use crate::raft::log::tail::entry_bytes;
use crate::raft::types::{Entry, TypeConfig};

/// Bytes of entries that are appended but not yet written. They are in the groups' memory anyway; this bounds how far a slow disk may lag.
pub const QUEUE_BYTES_MAX: u64 = 256 << 20;

/// Told once everything before it in its lane is written, or synced.
pub enum Waiter {
    Flushed(IOFlushed<TypeConfig>),
    Done(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    pub fn complete(self, result: io::Result<()>) {
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // Who asked may be gone.
            Self::Done(done) => drop(done.send(result)),
        }
    }
}

/// One thing for the writer to do.
pub enum Item {
    Entry(Entry),
    /// What is left of an entry of which parts are written. The writer's own.
    Rest {
        entry: Entry,
        offset: usize,
    },
    Record(Record),
    Waiter(Waiter),
    /// Nothing to write: everything before it on disk, whatever the mode.
    Sync(Waiter),
}

/// Items in order per replica. Lanes keep their room when they are emptied: steady traffic allocates nothing here.
#[derive(Default)]
pub struct Lanes {
    lanes: BTreeMap<LogKey, VecDeque<Item>>,
    items: usize,
}

impl Lanes {
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    pub fn push(&mut self, key: LogKey, item: Item) {
        self.lanes.entry(key).or_default().push_back(item);
        self.items += 1;
    }

    pub fn push_front(&mut self, key: LogKey, item: Item) {
        self.lanes.entry(key).or_default().push_front(item);
        self.items += 1;
    }

    /// Lanes that hold something.
    pub fn busy(&self) -> impl Iterator<Item = LogKey> {
        self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).map(|(key, _)| *key)
    }

    pub fn pop(&mut self, key: LogKey) -> Option<Item> {
        let item = self.lanes.get_mut(&key)?.pop_front()?;
        self.items -= 1;
        Some(item)
    }

    /// Moves all of `later` behind what is here.
    fn append(&mut self, later: &mut Self) {
        for (key, lane) in &mut later.lanes {
            if !lane.is_empty() {
                self.lanes.entry(*key).or_default().append(lane);
            }
        }
        self.items += std::mem::take(&mut later.items);
    }

    /// Everything, to be told that it will not be written.
    fn drain(&mut self) -> impl Iterator<Item = Item> {
        self.items = 0;
        std::mem::take(&mut self.lanes).into_values().flatten()
    }
}

enum Status {
    Open,
    /// The writer is to finish what waits and end.
    Closing,
    Ended(Arc<LogError>),
}

struct State {
    waiting: Lanes,
    status: Status,
}

pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// Of entries not yet written, those the writer holds included.
    bytes: AtomicU64,
    room: Notify,
    full: metrics::Counter,
}

/// What the writer is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Write,
    /// Everything is written and nothing more will come.
    Close,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { waiting: Lanes::default(), status: Status::Open }),
            arrived: Condvar::new(),
            bytes: AtomicU64::new(0),
            room: Notify::new(),
            full: NodeMetrics::limit_reached("log_queue"),
        }
    }

    /// Calls `fill` to queue items, under the lock. The error is why the log takes no more.
    fn enter<R>(&self, fill: impl FnOnce(&mut Lanes) -> R) -> Result<R, Arc<LogError>> {
        let mut state = self.state.lock();
        match &state.status {
            Status::Open => (),
            Status::Closing => return Err(Arc::new(LogError::Closed)),
            Status::Ended(error) => return Err(error.clone()),
        }
        let result = fill(&mut state.waiting);
        drop(state);
        self.arrived.notify_one();
        Ok(result)
    }

    pub fn push(&self, key: LogKey, item: Item) -> Result<(), Arc<LogError>> {
        self.enter(|lanes| lanes.push(key, item))
    }

    /// Queues what `fill` pushes through the function it is given, under one lock and with one wake-up.
    pub fn push_all<R>(&self, key: LogKey, fill: impl FnOnce(&mut dyn FnMut(Item)) -> R) -> Result<R, Arc<LogError>> {
        self.enter(|lanes| {
            fill(&mut |item| {
                if let Item::Entry(entry) = &item {
                    self.bytes.fetch_add(entry_bytes(entry), Ordering::Relaxed);
                }
                lanes.push(key, item);
            })
        })
    }

    /// Waits until there is room for another append.
    pub async fn room(&self) {
        while self.bytes.load(Ordering::Relaxed) >= QUEUE_BYTES_MAX {
            self.full.increment(1);
            let room = self.room.notified();
            if self.bytes.load(Ordering::Relaxed) < QUEUE_BYTES_MAX {
                return;
            }
            room.await;
        }
    }

    /// The writer has written this much.
    pub fn written(&self, bytes: u64) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= QUEUE_BYTES_MAX && before - bytes < QUEUE_BYTES_MAX {
            self.room.notify_waiters();
        }
    }

    /// Moves everything that waits into `held`. With nothing there either, waits for something, at most until the timeout.
    pub fn take(&self, held: &mut Lanes, timeout: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        while held.is_empty() && state.waiting.is_empty() && matches!(state.status, Status::Open) {
            match timeout {
                Some(timeout) => {
                    if self.arrived.wait_for(&mut state, timeout).timed_out() {
                        break;
                    }
                }
                None => self.arrived.wait(&mut state),
            }
        }
        held.append(&mut state.waiting);
        let close = held.is_empty() && !matches!(state.status, Status::Open);
        if close { Next::Close } else { Next::Write }
    }

    /// Lets the writer finish what waits and end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if matches!(state.status, Status::Open) {
            state.status = Status::Closing;
        }
        drop(state);
        self.arrived.notify_one();
    }

    pub fn is_closing(&self) -> bool {
        !matches!(self.state.lock().status, Status::Open)
    }

    /// Nothing is taken any more; whoever waits is told why.
    pub fn end(&self, mut held: Lanes, error: &Arc<LogError>) {
        let mut state = self.state.lock();
        state.status = Status::Ended(error.clone());
        held.append(&mut state.waiting);
        drop(state);
        for item in held.drain() {
            match item {
                Item::Waiter(waiter) | Item::Sync(waiter) => waiter.complete(Err(error.to_io())),
                Item::Entry(_) | Item::Rest { .. } | Item::Record(_) => (),
            }
        }
        // Appends that wait for room shall find the log ended.
        self.bytes.store(0, Ordering::Relaxed);
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::{EntryPayload, LogId as RaftLogId};

    use super::*;
    use crate::cluster::{GroupId, ReplicaId};
    use crate::raft::types::{Batch, LeaderId};

    const KEY: LogKey = (GroupId(1), ReplicaId(1));

    fn entry(bytes: Bytes) -> Entry {
        let log_id = RaftLogId::new(LeaderId { term: 1, node_id: 1 }, 0);
        Entry { log_id, payload: EntryPayload::Normal(Batch(bytes)) }
    }

    #[tokio::test]
    async fn a_full_queue_makes_appends_wait_until_the_writer_has_caught_up() {
        let queue = Queue::new();
        let half = Bytes::from(vec![0; QUEUE_BYTES_MAX as usize / 2]);
        for _ in 0..2 {
            queue.room().await;
            queue.push_all(KEY, |push| push(Item::Entry(entry(half.clone())))).expect("open");
        }
        let mut waiting = std::pin::pin!(queue.room());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        queue
            .push(KEY, Item::Record(Record::Truncate { from: 0, last: None }))
            .expect("a truncation does not wait for room");
        queue.written(entry_bytes(&entry(half)));
        assert!(futures_util::poll!(&mut waiting).is_ready());
    }

    #[tokio::test]
    async fn what_waits_when_the_log_ends_is_told_why_and_so_is_what_comes_later() {
        let queue = Queue::new();
        let (done, waiting) = oneshot::channel();
        queue.push(KEY, Item::Sync(Waiter::Done(done))).expect("open");
        let full = LogError::Full { action: "write", path: "wal".into() };
        queue.end(Lanes::default(), &Arc::new(full));
        let told = waiting.await.expect("told").expect_err("not written");
        assert_eq!(told.kind(), io::ErrorKind::StorageFull);
        assert!(matches!(*queue.push(KEY, Item::Record(Record::Remove)).expect_err("ended"), LogError::Full { .. }));
    }
}
