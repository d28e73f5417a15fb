//! The way to the proposer: chunks that wait to become part of an entry. Hot path.
//!
//! § Bounded in bytes as well as in number. A leader that is cut off from its followers, but not from its clients, takes in what these send until
//! its window is full; each client then gives up, connects again, and sends more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::raft::chunk::{Chunk, ChunkOutcome};

/// Chunks that wait; beyond it submitters wait.
const CHUNKS_MAX: usize = 4096;
/// Bytes of the large chunks that wait; beyond it the next of these wait. A larger one waits until it is alone.
const BYTES_MAX: u32 = 64 << 20;
/// Smaller ones are bounded by their number, and spare the count.
const LARGE_BYTES_MIN: usize = 16 << 10;

/// A chunk and who waits for it.
#[derive(Debug)]
pub struct Submission {
    pub chunk: Chunk,
    pub outcome: oneshot::Sender<ChunkOutcome>,
    /// In the queue.
    room: Option<OwnedSemaphorePermit>,
}

impl Submission {
    #[cfg(test)]
    pub fn new(chunk: Chunk, outcome: oneshot::Sender<ChunkOutcome>) -> Self {
        Self { chunk, outcome, room: None }
    }

    pub fn leave_queue(&mut self) {
        self.room = None;
    }

    /// Whoever waited has taken the outcome to be unknown, or is gone.
    pub fn is_abandoned(&self) -> bool {
        self.outcome.is_closed()
    }
}

/// The submitters' end.
#[derive(Debug)]
pub struct Submissions {
    queue: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
}

pub fn channel() -> (Submissions, mpsc::Receiver<Submission>) {
    let (queue, queued) = mpsc::channel(CHUNKS_MAX);
    (Submissions { queue, room: Arc::new(Semaphore::new(BYTES_MAX as usize)) }, queued)
}

impl Submissions {
    /// Puts the chunk in the queue, when there is room, and waits for its outcome. Where the proposer ends first, it is as if this was never called.
    pub async fn submit(&self, chunk: Chunk) -> ChunkOutcome {
        let room = if chunk.bytes() < LARGE_BYTES_MIN {
            None
        } else {
            let bytes = u32::try_from(chunk.bytes()).unwrap_or(BYTES_MAX).min(BYTES_MAX);
            Some(self.room.clone().acquire_many_owned(bytes).await.expect("it is never closed"))
        };
        let (outcome, receiver) = oneshot::channel();
        match self.queue.send(Submission { chunk, outcome, room }).await {
            Ok(()) => receiver.await.unwrap_or(ChunkOutcome::Unknown),
            Err(_) => ChunkOutcome::Reroute,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;
    use crate::command::OpCode;
    use crate::protocol::Protocol;
    use crate::slot::KeySlot;

    fn chunk(bytes: usize) -> Chunk {
        let mut chunk = Chunk::new(Protocol::Resp2);
        let value = vec![0; bytes];
        let key_slot = KeySlot::new(0).expect("0 is a key slot");
        chunk.push_silent(OpCode::SET, key_slot, |op| op.bytes(&value));
        chunk
    }

    #[tokio::test]
    async fn large_chunks_wait_for_room_and_small_ones_do_not() {
        let (submissions, mut queued) = channel();
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(submissions.submit(chunk(8 << 20)))).collect();
        for submit in &mut waiting {
            assert!(poll!(submit).is_pending());
        }
        let mut small = pin!(submissions.submit(chunk(100)));
        assert!(poll!(&mut small).is_pending());
        let mut taken = Vec::new();
        while let Ok(mut submission) = queued.try_recv() {
            submission.leave_queue();
            taken.push(submission);
        }
        assert_eq!(taken.len(), 7 + 1, "seven of a little over 8 MiB are below 64 MiB");
        for submit in &mut waiting {
            assert!(poll!(submit).is_pending());
        }
        let mut rest = 0;
        while queued.try_recv().is_ok() {
            rest += 1;
        }
        assert_eq!(rest, 3);
    }

    #[tokio::test]
    async fn a_chunk_larger_than_all_room_has_its_turn_and_gives_the_room_back_when_abandoned() {
        let (submissions, mut queued) = channel();
        for _ in 0..2 {
            let mut huge = Box::pin(submissions.submit(chunk(BYTES_MAX as usize + 1)));
            assert!(poll!(&mut huge).is_pending());
            drop(huge);
            let submission = queued.try_recv().expect("it found room");
            assert!(submission.is_abandoned());
        }
    }
}
