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
    /// Puts the chunk in the queue when there is room, and says where its outcome comes. `None`: the proposer has ended. Cancel-safe: until this returns, the
    /// chunk is in no queue.
    pub async fn enqueue(&self, chunk: Chunk) -> Option<oneshot::Receiver<ChunkOutcome>> {
        let room = if chunk.bytes() < LARGE_BYTES_MIN {
            None
        } else {
            let bytes = u32::try_from(chunk.bytes()).unwrap_or(BYTES_MAX).min(BYTES_MAX);
            Some(self.room.clone().acquire_many_owned(bytes).await.expect("it is never closed"))
        };
        let (outcome, receiver) = oneshot::channel();
        self.queue.send(Submission { chunk, outcome, room }).await.ok().map(|()| receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

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
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(submissions.enqueue(chunk(8 << 20)))).collect();
        let mut receivers = Vec::new();
        for enqueue in &mut waiting {
            if let Poll::Ready(receiver) = poll!(enqueue) {
                receivers.push(receiver.expect("it is open"));
            }
        }
        assert_eq!(receivers.len(), 7, "seven of a little over 8 MiB are below 64 MiB");
        assert!(matches!(poll!(pin!(submissions.enqueue(chunk(100)))), Poll::Ready(Some(_))));
        while let Ok(mut submission) = queued.try_recv() {
            submission.leave_queue();
        }
        for enqueue in &mut waiting[7..] {
            assert!(poll!(enqueue).is_ready());
        }
    }

    #[tokio::test]
    async fn a_chunk_larger_than_all_room_has_its_turn_and_gives_the_room_back_when_abandoned() {
        let (submissions, mut queued) = channel();
        for _ in 0..2 {
            let receiver = submissions.enqueue(chunk(BYTES_MAX as usize + 1)).await;
            assert!(poll!(pin!(submissions.enqueue(chunk(LARGE_BYTES_MIN)))).is_pending(), "it has all room");
            drop(receiver);
            assert!(queued.try_recv().expect("it found room").is_abandoned());
        }
        drop(queued);
        assert!(submissions.enqueue(chunk(1)).await.is_none());
    }
}
