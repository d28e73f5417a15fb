//! A snapshot coming in: chunks to a temporary file, length and checksum compared, then installed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::codec::{self, SnapshotBegin, SnapshotChunk, SnapshotEnd};
use super::errors::Refusal;
use super::link::Link;
use super::registry::Registered;
use super::tasks::Tasks;
use crate::raft::SnapshotFile;
use crate::raft::blocking::blocking;
use crate::raft::log::is_crowded;
use crate::raft::log::{Disk, DiskFile};
use crate::raft::snapshot_io::write_in_steps;
use crate::raft::space::is_full;

/// Steps that wait for the disk; twice what a sender may have in flight.
const STEPS_WAITING_MAX: usize = 2 * super::send_snapshot::CHUNKS_IN_FLIGHT_MAX;
/// A transfer that brings nothing for so long is given up.
const STEP_WAIT_MAX: Duration = Duration::from_secs(30);

pub enum Step {
    Chunk(u64, SnapshotChunk),
    End(u64, SnapshotEnd),
}

/// The link's end of a transfer. Dropping it ends the transfer.
pub struct Transfer {
    pub id: u64,
    steps: mpsc::Sender<Step>,
}

impl Transfer {
    pub fn begin(
        registered: Arc<Registered>,
        begin: SnapshotBegin,
        request: u64,
        link: Arc<Link>,
        tasks: &Tasks,
    ) -> Self {
        let (sender, steps) = mpsc::channel(STEPS_WAITING_MAX);
        let id = begin.transfer;
        let runtime = registered.runtime.clone();
        let name = format!("incoming-{}-{}-{id:016x}.tmp", registered.group, registered.replica);
        let path = registered.snapshots.directory.join(name);
        let path = RemoveOnDrop(registered.snapshots.disk.clone(), path);
        tasks.spawn_on(&runtime, async move {
            let incoming = Incoming { registered, begin, steps, link, path, free: None };
            incoming.run(request).await;
        });
        Self { id, steps: sender }
    }

    pub fn push(&self, step: Step, link: &Link) {
        if let Err(unsent) = self.steps.try_send(step) {
            let (step, refusal) = match unsent {
                mpsc::error::TrySendError::Full(step) => (step, Refusal::Busy),
                mpsc::error::TrySendError::Closed(step) => (step, Refusal::NoTransfer),
            };
            match step {
                Step::Chunk(request, _) | Step::End(request, _) => link.refuse(request, refusal),
            }
        }
    }
}

/// Also when the task is aborted, no temporary file stays.
struct RemoveOnDrop(Arc<dyn Disk>, PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        self.0.remove(&self.1).ok();
    }
}

struct Incoming {
    registered: Arc<Registered>,
    begin: SnapshotBegin,
    steps: mpsc::Receiver<Step>,
    link: Arc<Link>,
    path: RemoveOnDrop,
    /// Space that the disk had at the beginning, as far as it is known.
    free: Option<u64>,
}

impl Incoming {
    async fn run(mut self, request: u64) {
        // Not begun: it would take what space there is, to be given up, again and again.
        let (disk, directory) = (self.path.0.clone(), self.registered.snapshots.directory.clone());
        self.free = blocking(move || disk.free_bytes(&directory)).await.flatten().ok();
        if self.free.is_some_and(|free| free < self.begin.len) {
            return self.fail(request, None, Refusal::NoSpace);
        }
        let (disk, path) = (self.path.0.clone(), self.path.1.clone());
        let file = match blocking(move || disk.create(&path)).await.flatten() {
            Ok(file) => file,
            Err(error) => return self.fail(request, Some(&error), Refusal::Storage),
        };
        self.link.answer(request, codec::encode_answer(&[]));
        let mut crc32 = crc32fast::Hasher::new();
        let mut received = 0;
        loop {
            let step = tokio::select! {
                biased;
                step = tokio::time::timeout(STEP_WAIT_MAX, self.steps.recv()) => step,
                () = self.registered.gone() => return,
            };
            match step {
                Ok(Some(Step::Chunk(request, chunk))) => {
                    let end = chunk.offset.checked_add(chunk.bytes.len() as u64);
                    if chunk.offset != received || end.is_none_or(|end| end > self.begin.len) {
                        return self.fail(request, None, Refusal::SnapshotDamaged);
                    }
                    crc32.update(&chunk.bytes);
                    let length = chunk.bytes.len() as u64;
                    if let Err(error) = write(&file, chunk.bytes, received).await {
                        return self.fail(request, Some(&error), Refusal::Storage);
                    }
                    received += length;
                    self.link.answer(request, codec::encode_answer(&[]));
                }
                Ok(Some(Step::End(request, end))) => {
                    if received != self.begin.len || crc32.finalize() != end.crc32 {
                        return self.fail(request, None, Refusal::SnapshotDamaged);
                    }
                    // The state machine renames the file into place, so its bytes must be on disk before that.
                    let synced = file.clone();
                    if let Err(error) = blocking(move || synced.sync()).await.flatten() {
                        return self.fail(request, Some(&error), Refusal::Storage);
                    }
                    self.registered.snapshots.space.take_snapshot(self.registered.group);
                    return self.install(request).await;
                }
                Ok(None) | Err(_) => {
                    tracing::info!(group = %self.registered.group, received, len = self.begin.len, "a snapshot's transfer was broken off");
                    return;
                }
            }
        }
    }

    async fn install(self, request: u64) {
        let file = SnapshotFile { path: self.path.1.clone(), len: self.begin.len };
        match self.registered.port.install_snapshot(self.begin.vote, self.begin.meta, file).await {
            Some(answer) => self.link.answer(request, codec::encode_answer(&codec::encode_rare(&answer))),
            None => self.link.refuse(request, Refusal::Stopped),
        }
    }

    fn fail(&self, request: u64, error: Option<&std::io::Error>, refusal: Refusal) {
        let path = &self.path.1;
        let refusal = if error.is_some_and(is_full) { Refusal::NoSpace } else { refusal };
        let (group, len) = (self.registered.group, self.begin.len);
        // What did not fit although there was room for it at the beginning needs more than that.
        let needed = self.free.filter(|free| *free >= len).map_or(len, |free| free.saturating_add(free / 4));
        let is_crowded = error.is_some_and(is_crowded);
        if refusal != Refusal::NoSpace {
            tracing::warn!(%group, path = %path.display(), ?error, %refusal, "a snapshot could not be received");
        } else if !is_crowded && self.registered.snapshots.space.refuse_snapshot(group, needed, Instant::now()) {
            let free = self.free;
            tracing::warn!(
                %group, path = %path.display(), len, free,
                "a snapshot does not fit the disk: the group has no replica here until there is room for it, or another node takes it"
            );
        }
        self.link.refuse(request, refusal);
    }
}

async fn write(file: &Arc<dyn DiskFile>, bytes: Bytes, offset: u64) -> io::Result<()> {
    let file = file.clone();
    blocking(move || write_in_steps(&*file, &bytes, offset)).await.flatten()
}
