//! The proposer: packs whatever chunks wait into one entry. Hot path.
//!
//! No timers: the next batch forms while up to [`WINDOW_ENTRIES`] entries are in flight. A chunk is never split over two
//! entries, so its outcome is one.

use std::sync::Arc;

use openraft::errors::ClientWriteError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::clock::{Boottime, Timestamp};
use crate::raft::batch::{self, BatchHeader, BatchKind};
use crate::raft::chunk::ChunkOutcome;
use crate::raft::group::GroupState;
use crate::raft::machine::GroupRaft;
use crate::raft::pending::{PendingEntry, Submission};
use crate::raft::types::{Completion, LeaderId};

/// Entries in flight per leadership. More would only make batches smaller.
const WINDOW_ENTRIES: usize = 4;
/// A batch is closed when it holds this many ops or bytes; one larger chunk makes a larger entry.
const BATCH_OPS_MAX: u32 = 512;
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Chunks that wait for the proposer; beyond it submitters wait.
pub const QUEUE_CHUNKS_MAX: usize = 4096;

/// This replica's leadership as the proposer needs it. One object per leadership: its window dies with it.
#[derive(Debug)]
pub struct Leadership {
    pub leader: LeaderId,
    window: Arc<Semaphore>,
}

impl Leadership {
    pub fn new(leader: LeaderId) -> Self {
        Self { leader, window: Arc::new(Semaphore::new(WINDOW_ENTRIES)) }
    }
}

/// What the lease task tells the proposer.
#[derive(Debug, Clone)]
pub enum Intake {
    /// Not the leader: whatever arrives is re-routed at once.
    Closed,
    /// A transfer is under way: submissions wait in the queue for its end.
    Paused,
    Open(Arc<Leadership>),
}

pub struct Proposer {
    pub state: Arc<GroupState>,
    pub raft: GroupRaft,
    pub queue: mpsc::Receiver<Submission>,
    pub intake: watch::Receiver<Intake>,
    seq: u64,
    /// The last stamp given out: stamps of one proposer never go back.
    stamp: Timestamp,
}

impl Proposer {
    pub fn new(
        state: Arc<GroupState>,
        raft: GroupRaft,
        queue: mpsc::Receiver<Submission>,
        intake: watch::Receiver<Intake>,
    ) -> Self {
        Self { state, raft, queue, intake, seq: 0, stamp: Timestamp(i64::MIN) }
    }

    /// Runs until the group's handle is dropped or the intake's owner is.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let Some((leadership, permit)) = self.admit().await else {
                let _ = first.outcome.send(ChunkOutcome::Reroute);
                continue;
            };
            let submissions = self.gather(first);
            self.propose(leadership.leader, permit, submissions).await;
        }
        self.state.pending.unknown_all();
    }

    /// Waits for a place in the window; `None` when this replica does not lead.
    async fn admit(&mut self) -> Option<(Arc<Leadership>, OwnedSemaphorePermit)> {
        loop {
            let intake = self.intake.borrow_and_update().clone();
            match intake {
                Intake::Closed => return None,
                Intake::Paused => self.intake.changed().await.ok()?,
                Intake::Open(leadership) => {
                    let window = leadership.window.clone();
                    tokio::select! {
                        // A window of a lost leadership may stay full until rule (c) resolves it: do not wait for it then.
                        changed = self.intake.changed() => changed.ok()?,
                        permit = window.acquire_owned() => return Some((leadership, permit.ok()?)),
                    }
                }
            }
        }
    }

    /// Takes what else waits, up to one batch.
    fn gather(&mut self, first: Submission) -> Vec<Submission> {
        let (mut ops, mut bytes) = (first.chunk.op_count, first.chunk.ops.len());
        let mut submissions = vec![first];
        while ops < BATCH_OPS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(submission) = self.queue.try_recv() else { break };
            ops += submission.chunk.op_count;
            bytes += submission.chunk.ops.len();
            submissions.push(submission);
        }
        submissions
    }

    async fn propose(&mut self, leader: LeaderId, permit: OwnedSemaphorePermit, mut submissions: Vec<Submission>) {
        self.seq += 1;
        let seq = self.seq;
        let count = submissions.iter().map(|submission| submission.chunk.op_count).sum();
        self.state.metrics.batch_ops.record(f64::from(count));
        self.state.metrics.ops.increment(u64::from(count));
        self.stamp = self.stamp.max(self.state.stamp()).max(self.state.clock.now(Boottime::now()));
        let header = BatchHeader { kind: BatchKind::Ops, count, stamp: self.stamp, origin: self.state.origin, seq };
        let batch = batch::encode(&header, submissions.iter().map(|submission| &submission.chunk.ops));
        for submission in &mut submissions {
            // The ops live on in the entry.
            submission.chunk.ops = bytes::BytesMut::new();
        }
        self.state.metrics.batch_bytes.record(batch.0.len() as f64);
        let proposed = std::time::Instant::now();
        self.state.pending.push(PendingEntry { leader, seq, submissions, permit, proposed });
        let state = self.state.clone();
        let completion = Completion::new(move |result: openraft::raft::ClientWriteResult<_>| match result {
            // Rule (b) has answered already, at apply.
            Ok(_) => (),
            // Rule (a).
            Err(ClientWriteError::ForwardToLeader(_)) => state.pending.never_appended(leader, seq),
            // Rule (d): nothing is known yet.
            Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => (),
        });
        // Fatal: the core has stopped, perhaps with the entry appended. Rule (e) comes from the node, which stops too.
        let _ = self.raft.write(batch).with_leader(leader).responder(completion).await;
    }
}
