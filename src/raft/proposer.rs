//! The proposer: packs whatever chunks wait into one entry. Hot path.
//!
//! While an entry is in flight the next one forms; only a full one follows at once. Smaller entries in flight beside each other would cost
//! each of them its own message, fsync and round through three nodes (Nagle's rule, RFC 896, for entries). After an entry, the next
//! waits a moment for the clients it answered, if they are of the kind that comes back: see `raft/cohort.rs`. A chunk is never split
//! over two entries, so its outcome is one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::errors::ClientWriteError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::{Boottime, Timestamp};
use crate::planted::{self, Bug};
use crate::raft::batch::{self, BatchHeader, BatchKind};
use crate::raft::chunk::ChunkOutcome;
use crate::raft::cohort::Cohorts;
use crate::raft::group::GroupState;
use crate::raft::machine::GroupRaft;
use crate::raft::pending::PendingEntry;
use crate::raft::submissions::Submission;
use crate::raft::types::{Batch, Completion, LeaderId};
use crate::raft::window::Window;

/// Full entries in flight per leadership. More would only make batches smaller.
const WINDOW_ENTRIES: usize = 4;
/// A batch is full when it holds this many ops or bytes; one larger chunk makes a larger entry.
const BATCH_OPS_MAX: u32 = 1024;
pub const BATCH_BYTES_MAX: usize = 128 * 1024;
/// How long an entry waits for the clients that the one before has answered.
const COHORT_WAIT_MAX: Duration = Duration::from_millis(1);

/// This replica's leadership as the proposer needs it.
#[derive(Debug)]
pub struct Leadership {
    pub leader: LeaderId,
    window: Arc<Window>,
}

impl Leadership {
    pub fn new(leader: LeaderId) -> Self {
        Self { leader, window: Arc::default() }
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
    forming: Forming,
    cohorts: Cohorts,
}

/// The next entry.
#[derive(Debug, Default)]
struct Forming {
    submissions: Vec<Submission>,
    ops: u32,
    bytes: usize,
}

impl Forming {
    fn is_full(&self) -> bool {
        self.ops >= BATCH_OPS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn push(&mut self, submission: Submission) {
        self.ops += submission.chunk.op_count;
        self.bytes += submission.chunk.op_bytes().len();
        self.submissions.push(submission);
    }

    /// What somebody still waits for. The rest does not happen: it may have stood here for as long as this leader was cut off from its followers.
    fn take(&mut self) -> Vec<Submission> {
        let mut submissions = std::mem::take(self).submissions;
        submissions.retain(|submission| !submission.is_abandoned());
        submissions
    }
}

/// When the entry that forms may go.
enum Verdict {
    Now {
        leadership: Arc<Leadership>,
        in_vain: bool,
    },
    /// When a place of the window is freed.
    Freed(Arc<Leadership>),
    At(Instant),
    /// When a transfer has ended.
    Resumed,
    /// Not the leader: whatever waits is re-routed.
    Never,
}

impl Proposer {
    pub fn new(
        state: Arc<GroupState>,
        raft: GroupRaft,
        queue: mpsc::Receiver<Submission>,
        intake: watch::Receiver<Intake>,
    ) -> Self {
        let (forming, cohorts) = (Forming::default(), Cohorts::default());
        Self { state, raft, queue, intake, seq: 0, stamp: Timestamp(i64::MIN), forming, cohorts }
    }

    /// Runs until the group's handle is dropped or the intake's owner is.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            self.take(first);
            let admitted = self.form().await;
            let submissions = self.forming.take();
            match admitted {
                Some((leadership, in_vain)) if !submissions.is_empty() => {
                    self.propose(&leadership, submissions, in_vain).await;
                }
                _ => {
                    for submission in submissions {
                        let _ = submission.outcome.send(ChunkOutcome::Reroute);
                    }
                }
            }
        }
        self.state.pending.unknown_all();
    }

    fn take(&mut self, mut submission: Submission) {
        submission.leave_queue();
        self.cohorts.arrived(submission.chunk.follows);
        self.forming.push(submission);
    }

    fn take_waiting(&mut self) {
        while !self.forming.is_full() {
            let Ok(submission) = self.queue.try_recv() else { return };
            self.take(submission);
        }
    }

    /// Takes what comes until the entry may go; `None` when this replica does not lead.
    async fn form(&mut self) -> Option<(Arc<Leadership>, bool)> {
        let mut timer = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        loop {
            self.take_waiting();
            let verdict = self.judge();
            match &verdict {
                Verdict::Now { leadership, in_vain } => return Some((leadership.clone(), *in_vain)),
                Verdict::Never => return None,
                Verdict::At(deadline) if timer.deadline() != *deadline => timer.as_mut().reset(*deadline),
                Verdict::At(_) | Verdict::Freed(_) | Verdict::Resumed => (),
            }
            let allowed = async {
                match &verdict {
                    Verdict::At(_) => timer.as_mut().await,
                    Verdict::Freed(leadership) => leadership.window.freed().await,
                    Verdict::Resumed | Verdict::Now { .. } | Verdict::Never => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // A window of a lost leadership may stay full until rule (c) resolves it: do not wait for it then.
                changed = self.intake.changed() => changed.ok()?,
                () = allowed => (),
                Some(submission) = self.queue.recv(), if !self.forming.is_full() => self.take(submission),
            }
        }
    }

    fn judge(&mut self) -> Verdict {
        let leadership = match &*self.intake.borrow_and_update() {
            Intake::Closed => return Verdict::Never,
            Intake::Paused => return Verdict::Resumed,
            Intake::Open(leadership) => leadership.clone(),
        };
        let in_flight = leadership.window.in_flight();
        if self.forming.is_full() && in_flight < WINDOW_ENTRIES {
            return Verdict::Now { leadership, in_vain: false };
        }
        if in_flight > 0 {
            return Verdict::Freed(leadership);
        }
        let Some(answered) = leadership.window.empty_since().filter(|_| self.cohorts.is_awaited()) else {
            return Verdict::Now { leadership, in_vain: false };
        };
        let deadline = answered + COHORT_WAIT_MAX;
        if deadline <= Instant::now() { Verdict::Now { leadership, in_vain: true } } else { Verdict::At(deadline) }
    }

    async fn propose(&mut self, leadership: &Leadership, mut submissions: Vec<Submission>, in_vain: bool) {
        self.seq += 1;
        let (seq, leader) = (self.seq, leadership.leader);
        self.cohorts.proposed(seq, submissions.len(), in_vain);
        let count = submissions.iter().map(|submission| submission.chunk.op_count).sum();
        self.state.metrics.batch_ops.record(f64::from(count));
        self.state.metrics.ops.increment(u64::from(count));
        self.stamp = self.stamp.max(self.state.stamp()).max(self.state.clock.now(Boottime::now()));
        let durable = submissions.iter().any(|submission| submission.chunk.durable);
        let (kind, stamp, origin) = (BatchKind::Ops, self.stamp, self.state.origin);
        let level = self.state.level.load(Ordering::Relaxed);
        let header = BatchHeader { level, kind, count, stamp, origin, seq, durable };
        let batch = encode(&header, &mut submissions);
        self.state.metrics.batch_bytes.record(batch.0.len() as f64);
        let (place, proposed) = (leadership.window.enter(), std::time::Instant::now());
        self.state.pending.push(PendingEntry { leader, seq, submissions, _place: place, proposed });
        let state = self.state.clone();
        let completion = Completion::new(move |result: openraft::raft::ClientWriteResult<_>| match result {
            // Rule (b) has answered already, at apply.
            Ok(_) => (),
            // Rule (a).
            Err(ClientWriteError::ForwardToLeader(_)) => state.pending.never_appended(leader, seq),
            Err(ClientWriteError::LogEntryDiscarded(_)) if planted::is(Bug::TruncatedIsRefused) => {
                state.pending.never_appended(leader, seq);
            }
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

/// The entry that the chunks' ops live on in.
fn encode(header: &BatchHeader, submissions: &mut [Submission]) -> Batch {
    if let [only] = submissions
        && let Some(ops) = only.chunk.take_roomy_ops()
    {
        return batch::encode_in_place(header, ops);
    }
    let batch = batch::encode(header, submissions.iter().map(|submission| submission.chunk.op_bytes()));
    submissions.iter_mut().for_each(|submission| drop(submission.chunk.take_ops()));
    batch
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::Protocol;
    use crate::raft::chunk::Chunk;

    #[test]
    fn what_nobody_waits_for_any_more_is_not_proposed() {
        let mut forming = Forming::default();
        let mut waiting = Vec::new();
        for number in 0..4u64 {
            let (outcome, receiver) = oneshot::channel();
            let mut chunk = Chunk::new(Protocol::Resp2);
            chunk.follows = Some(number);
            forming.push(Submission::new(chunk, outcome));
            waiting.push(receiver);
        }
        waiting.remove(2);
        waiting.remove(0);
        let left: Vec<_> = forming.take().iter().map(|submission| submission.chunk.follows).collect();
        assert_eq!(left, [Some(1), Some(3)]);
        assert!(!forming.is_full() && forming.take().is_empty());
    }
}
