//! Opening the node's log, handing out its replicas' logs, closing it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::sync::watch;

use crate::cluster::{GroupId, ReplicaId};
use crate::planted::{self, Bug};
use crate::raft::directory::create_directory;
use crate::raft::log::disk::{Disk, RealDisk};
use crate::raft::log::error::LogError;
use crate::raft::log::failed_sync;
use crate::raft::log::format::{LogKey, Record, StartMark};
use crate::raft::log::queue::{Item, Queue};
use crate::raft::log::recover::{DroppedTail, Replayed, replay};
use crate::raft::log::segments::{Mark, Marks, OldContents, Room, Segments, first_lsn};
use crate::raft::log::store::GroupLog;
use crate::raft::log::tail::Tail;
use crate::raft::log::writer::Writer;
use crate::raft::types::LogId;

const LOCK_FILE: &str = "lock";
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// When batches reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// Within about a second.
    EverySec,
    /// When the kernel sees fit. Votes, truncations and memberships are synced even so.
    No,
}

/// Segments the log may have beside full ones: the one being written, and one that is needed for its end only.
const SEGMENTS_SPARE: u64 = 2;

/// Entries that keep old segments from being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    pub group: GroupId,
    pub replica: ReplicaId,
    /// The last of them.
    pub index: u64,
    pub purged: Option<u64>,
    /// A snapshot covers them, so that they may go.
    pub covered: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    pub fsync: Fsync,
    /// A segment is full at this size; its last batch may exceed it.
    pub segment_bytes: u64,
    /// § What a power loss may have taken is given up: the suspicion ends with this start.
    pub accept_loss: bool,
    /// Of each replica's entries, about how many bytes stay in memory. Older ones are read back when a follower or a restart needs them.
    pub memory_bytes: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The replicas that have a log here, with its last entry.
    pub replicas: BTreeMap<(GroupId, ReplicaId), Option<LogId>>,
    pub dropped_tail: Option<DroppedTail>,
    /// § The log was not synced before each acknowledgement, and either it was not stopped cleanly and the kernel has been started since, or a
    /// sync failed: entries these replicas acknowledged may be gone. It stays so at every later start until the loss is accepted.
    pub power_loss_suspected: bool,
}

struct Closer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the log is open.
    _lock: Option<File>,
}

pub type Tails = BTreeMap<LogKey, Arc<Mutex<Tail>>>;

/// Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct NodeLog {
    tails: Arc<Mutex<Tails>>,
    old_contents: OldContents,
    room: Arc<Room>,
    segment_bytes: u64,
    queue: Arc<Queue>,
    failed: watch::Receiver<Option<Arc<LogError>>>,
    closer: Arc<Closer>,
}

impl NodeLog {
    /// Whether a log was ever begun in the directory.
    pub fn is_in(directory: &Path) -> io::Result<bool> {
        match RealDisk.list(directory) {
            Ok(files) => Ok(files.iter().any(|path| first_lsn(path).is_some())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates the directory if needed, takes its lock, recovers, starts the writer. Blocks.
    pub fn open(directory: &Path, options: LogOptions) -> Result<(Self, Recovered), LogError> {
        create_directory(directory).map_err(|error| LogError::io("create", directory, error))?;
        let lock = lock(directory)?;
        Self::open_on(Arc::new(RealDisk), directory, options, boot_id(), Some(lock))
    }

    /// On a given disk and under a given boot id, which are the tests' to choose.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
        boot_id: Vec<u8>,
        lock: Option<File>,
    ) -> Result<(Self, Recovered), LogError> {
        let (log, recovered, writer) = Self::recover(disk, directory, options, boot_id, lock)?;
        let thread = std::thread::Builder::new().name("kvorum-log".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|error| LogError::io("start a thread for", directory, error))?;
        *log.closer.thread.lock() = Some(thread);
        Ok((log, recovered))
    }

    /// Everything but the thread that runs the writer.
    pub(super) fn recover(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
        boot_id: Vec<u8>,
        lock: Option<File>,
    ) -> Result<(Self, Recovered, Writer), LogError> {
        let failed = |error| LogError::io("look for the mark of a failed sync in", directory, error);
        let sync_failed = failed_sync::is_marked(&*disk, directory).map_err(failed)?;
        let Replayed { mut tails, end, dropped, start, clean } = replay(&*disk, directory, options.memory_bytes)?;
        let cut_short = start.is_some_and(|last| {
            let same_boot = last.boot_id == boot_id && !boot_id.is_empty();
            last.loss_suspected || !(last.synced || clean || same_boot)
        });
        let power_loss_suspected = !options.accept_loss && (cut_short || sync_failed);
        let recovered = Recovered {
            replicas: tails.iter().map(|(key, tail)| (*key, tail.last())).collect(),
            dropped_tail: dropped,
            power_loss_suspected,
        };
        if planted::is(Bug::RestartForgetsVote) {
            tails.values_mut().for_each(|tail| tail.vote = None);
        }
        let marks: Marks = tails.iter().map(|(key, tail)| (*key, mark(tail))).collect();
        let tails: Tails = tails.into_iter().map(|(key, tail)| (key, Arc::new(Mutex::new(tail)))).collect();
        let tails = Arc::new(Mutex::new(tails));
        let synced = options.fsync == Fsync::Always;
        let start = StartMark { synced, loss_suspected: power_loss_suspected, boot_id };
        let segments = Segments::new(disk.clone(), directory, options, start, end)?;
        let (old_contents, room) = (segments.old_contents(), segments.room());
        let queue = Arc::new(Queue::new());
        let (failed, failure) = watch::channel(None);
        let writer = Writer::new(segments, options.fsync, queue.clone(), tails.clone(), failed, marks)?;
        // § Now that the log itself says that no loss is suspected.
        if sync_failed && !power_loss_suspected {
            let failed = |error| LogError::io("remove the mark of a failed sync from", directory, error);
            failed_sync::clear(&*disk, directory).map_err(failed)?;
        }
        let closer = Closer { queue: queue.clone(), thread: Mutex::default(), _lock: lock };
        let log = Self {
            tails,
            old_contents,
            room,
            segment_bytes: options.segment_bytes,
            queue,
            failed: failure,
            closer: Arc::new(closer),
        };
        Ok((log, recovered, writer))
    }

    /// The log of one replica; empty unless it was written before.
    pub fn group(&self, group: GroupId, replica: ReplicaId) -> GroupLog {
        let key = (group, replica);
        let tail = self.tails.lock().entry(key).or_default().clone();
        GroupLog { key, tail, queue: self.queue.clone() }
    }

    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// The replicas that have a log here.
    pub fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.tails.lock().keys().copied().collect()
    }

    /// What keeps the log longer than `bytes_max`: the entries in its oldest segments that are not purged.
    pub fn pins(&self, bytes_max: u64) -> Vec<Pin> {
        let segments_max = bytes_max.div_ceil(self.segment_bytes) + SEGMENTS_SPARE;
        let old = self.old_contents.lock().clone();
        let excess = (old.len() + 1).saturating_sub(usize::try_from(segments_max).unwrap_or(usize::MAX));
        let mut highest = BTreeMap::<LogKey, u64>::new();
        for (key, index) in old.iter().take(excess).flat_map(|segment| segment.iter()) {
            let highest = highest.entry(*key).or_default();
            *highest = (*highest).max(*index);
        }
        let tails = self.tails.lock();
        let pin = |((group, replica), index): (LogKey, u64)| {
            let tail = tails.get(&(group, replica))?.lock();
            let purged = tail.purged.map(|purged| purged.index);
            let covered = tail.snapshot.is_some_and(|snapshot| snapshot.index >= index);
            (purged < Some(index)).then_some(Pin { group, replica, index, purged, covered })
        };
        highest.into_iter().filter_map(pin).collect()
    }

    /// Forgets a replica that will not come back. Its handles fail from now on.
    pub fn remove_group(&self, group: GroupId, replica: ReplicaId) {
        self.tails.lock().remove(&(group, replica));
        // If the log has failed, the replica is still there after a restart and is removed then.
        let _ = self.queue.push((group, replica), Item::Record(Record::Remove));
    }

    /// Resolves with the reason once the log cannot be written any more.
    pub async fn failure(&self) -> Arc<LogError> {
        let mut failed = self.failed.clone();
        let reason = match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            // Closed without a failure: never.
            None => std::future::pending().await,
        }
    }

    /// Writes and syncs what waits, and the mark of a clean stop. Blocks.
    pub fn close(&self) {
        self.closer.close();
    }
}

impl Closer {
    fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the writer has been reported as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close();
    }
}

fn mark(tail: &Tail) -> Mark {
    Mark { vote: tail.vote, purged: tail.purged, snapshot: tail.snapshot, last: tail.last() }
}

/// Changes with every start of the kernel; empty where the kernel does not say.
pub(super) fn boot_id() -> Vec<u8> {
    // Tests restart the machine by this.
    match std::env::var("KVORUM_TEST_BOOT_ID") {
        Ok(boot_id) => boot_id.into_bytes(),
        Err(_) => fs::read(BOOT_ID_PATH).unwrap_or_default(),
    }
}

fn lock(directory: &Path) -> Result<File, LogError> {
    let path = directory.join(LOCK_FILE);
    let open = File::options().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|error| LogError::io("open", &path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(LogError::Locked { path: directory.to_owned() }),
        Err(error) => Err(LogError::io("lock", &path, error.into())),
    }
}
