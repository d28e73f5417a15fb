//! Opening the node's log, handing out its groups, closing it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::log::format::Record;
use crate::raft::log::queue::{Item, Queue};
use crate::raft::log::recover::{Replayed, replay};
use crate::raft::log::store::GroupLog;
use crate::raft::log::writer::{Tails, Writer};

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

#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    pub fsync: Fsync,
    pub segment_bytes: u64,
}

/// What a crash left behind the last sound batch; nobody was told that it was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTail {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    pub dropped_tail: Option<DroppedTail>,
    /// § The log was not synced before each acknowledgement, it was not stopped cleanly, and the kernel has been started since: entries
    /// this replica acknowledged may be gone.
    pub power_loss_suspected: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log: {0}")]
    Io(io::Error),
    #[error("another process uses {}", path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} is corrupt at byte {offset}: batches up to {durable} had reached the disk. This is not a torn write; restore the file, \
         or wipe the data directory so that this node joins anew and is brought up to date by the others",
        path.display()
    )]
    Corrupt { path: PathBuf, offset: u64, durable: u64 },
    #[error("{} holds a batch at byte {offset} that matches its checksum but does not decode: a newer version wrote it", path.display())]
    Undecodable { path: PathBuf, offset: u64 },
    #[error("{} is not a log segment", path.display())]
    Foreign { path: PathBuf },
}

struct Closer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the log is open.
    _lock: File,
}

/// Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct NodeLog {
    tails: Tails,
    queue: Arc<Queue>,
    failed: watch::Receiver<Option<String>>,
    closer: Arc<Closer>,
}

impl NodeLog {
    /// Creates the directory if needed, takes its lock, recovers, starts the writer.
    pub fn open(directory: &Path, options: LogOptions) -> Result<(Self, Recovered), LogError> {
        Self::open_as(directory, options, boot_id())
    }

    /// Under a given boot id; the tests' way to reboot.
    pub(super) fn open_as(
        directory: &Path,
        options: LogOptions,
        boot_id: Vec<u8>,
    ) -> Result<(Self, Recovered), LogError> {
        fs::create_dir_all(directory)?;
        let lock = lock(directory)?;
        let Replayed { tails, segments, lsn, previous_crc, dropped, start, clean, .. } = replay(directory)?;
        let power_loss_suspected = match start {
            Some((synced, last_boot_id)) => !synced && !clean && last_boot_id != boot_id,
            None => false,
        };
        let tails = tails.into_iter().map(|(key, tail)| (key, Arc::new(Mutex::new(tail)))).collect();
        let tails: Tails = Arc::new(Mutex::new(tails));
        let queue = Arc::new(Queue::default());
        let (failed, failure) = watch::channel(None);
        let old: VecDeque<_> = segments;
        let LogOptions { fsync, segment_bytes } = options;
        let writer = Writer::new(
            directory.to_owned(),
            fsync,
            segment_bytes,
            boot_id,
            queue.clone(),
            tails.clone(),
            old,
            lsn,
            previous_crc,
            failed,
        );
        let thread = std::thread::Builder::new().name("kvorum-log".to_owned()).spawn(move || writer.run())?;
        let closer = Closer { queue: queue.clone(), thread: Mutex::new(Some(thread)), _lock: lock };
        let log = Self { tails, queue, failed: failure, closer: Arc::new(closer) };
        Ok((log, Recovered { dropped_tail: dropped, power_loss_suspected }))
    }

    /// The log of one replica; empty unless it was written before.
    pub fn group(&self, group: GroupId, replica: ReplicaId) -> GroupLog {
        let key = (group, replica);
        let tail = self.tails.lock().entry(key).or_default().clone();
        GroupLog { key, tail, queue: self.queue.clone() }
    }

    /// Forgets a replica that will not come back.
    pub fn remove_group(&self, group: GroupId, replica: ReplicaId) {
        self.tails.lock().remove(&(group, replica));
        self.queue.push((group, replica), Item::Record { record: Record::Remove, sync: false, done: None });
    }

    /// Resolves with the reason once the log cannot be written any more.
    pub async fn failure(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Closed without a failure: never.
            Err(_) => std::future::pending().await,
        }
    }

    /// Writes and syncs what waits, and the mark of a clean stop. Blocks.
    pub fn close(&self) {
        self.closer.queue.close();
        if let Some(thread) = self.closer.thread.lock().take() {
            // A panic of the writer has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Changes with every start of the kernel; empty where the kernel does not say.
pub(super) fn boot_id() -> Vec<u8> {
    fs::read(BOOT_ID_PATH).unwrap_or_default()
}

fn lock(directory: &Path) -> Result<File, LogError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options().write(true).create(true).truncate(false).open(&path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(LogError::Locked { path: directory.to_owned() }),
    }
}
