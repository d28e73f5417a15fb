//! Sends one slot to the leader of its new group: all of it, then what has changed since, again and again, and when the slot is frozen the rest.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, MoveId, MoveState};
use crate::keyspace::{BucketExport, Delta, Encoded};
use crate::raft::{Attempt, CallMoveError, Group, Held, MoveAnswer, MoveOp, PART_BYTES, Replication, checksum_of};
use crate::slot::{KeySlot, Slot};

/// A page is one message, unless a key is too long for that.
const PAGE_BYTES_MAX: usize = PART_BYTES;

#[derive(Debug, thiserror::Error)]
pub enum SendingError {
    #[error(transparent)]
    Call(#[from] CallMoveError),
    #[error("the new group has slot {slot} as {held:?}, not what was sent")]
    Lost { slot: Slot, held: Option<Held> },
    #[error("the new group counts {there} keys of slot {slot}, this one {here}")]
    Count { slot: Slot, here: u64, there: u64 },
    #[error("move {0} is over")]
    Over(MoveId),
}

pub struct Sending<'a> {
    replication: &'a Replication,
    group: &'a Group,
    to: GroupId,
    slot: Slot,
    id: MoveId,
    attempt: Attempt,
    /// Pages sent, and their checksum.
    pages: u64,
    checksum: u32,
    page: Vec<u8>,
    /// What the target has of each bucket.
    sent: Vec<(KeySlot, Option<BucketExport>)>,
    bytes_per_second: u64,
    /// When the next page may go.
    next: Instant,
}

impl<'a> Sending<'a> {
    pub async fn begin(
        replication: &'a Replication,
        group: &'a Group,
        to: GroupId,
        slot: Slot,
        id: MoveId,
        attempt: Attempt,
        bytes_per_second: u64,
    ) -> Result<Self, SendingError> {
        let sent = slot.key_slots().map(|key_slot| (key_slot, None)).collect();
        let (page, next) = (Vec::new(), Instant::now());
        let sending = Self {
            replication,
            group,
            to,
            slot,
            id,
            attempt,
            pages: 0,
            checksum: 0,
            page,
            sent,
            bytes_per_second,
            next,
        };
        let answer = sending.call(&MoveOp::Begin { id, attempt }, &[]).await?;
        sending.check_staged(&answer)?;
        Ok(sending)
    }

    /// Passes over the slot until one has little to send. The more there have been, the more is little: a slot that is written faster than it can be sent
    /// moves all the same.
    pub async fn until_little_is_left(&mut self) -> Result<(), SendingError> {
        for pass in 1.. {
            let bytes = self.pass(Pace::Limited).await?;
            if bytes <= pass * PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// What has changed until the slot was frozen, and the adoption with it.
    pub async fn finish(&mut self) -> Result<(), SendingError> {
        self.pass(Pace::Frozen).await?;
        let Self { id, attempt, pages: number, .. } = *self;
        let page = std::mem::take(&mut self.page);
        let checksum = checksum_of(self.checksum, &page);
        // § Of the last entry applied, and so of all that anybody was told of this slot.
        let stamp = self.group.time().stamp;
        let (here, _) = self.group.keyspace().slot_size(self.slot);
        let answer = self.call(&MoveOp::Adopt { id, attempt, number, checksum, stamp }, &page).await?;
        if answer.held != Some(Held::Adopted { id }) {
            return Err(SendingError::Lost { slot: self.slot, held: answer.held });
        }
        if answer.keys != here {
            return Err(SendingError::Count { slot: self.slot, here, there: answer.keys });
        }
        self.group.note_moved(here, page.len() as u64);
        Ok(())
    }

    /// Sends what has changed since the last pass; of a frozen slot, the last page is left in `page`. Bytes found.
    async fn pass(&mut self, pace: Pace) -> Result<usize, SendingError> {
        let mut bytes = 0;
        for bucket in 0..self.sent.len() {
            let (key_slot, older) = (self.sent[bucket].0, self.sent[bucket].1.take());
            let newer = self.group.keyspace().export(key_slot);
            if older.as_ref().is_some_and(|older| older.position() == newer.position()) {
                self.sent[bucket].1 = older;
                continue;
            }
            let mut delta = Delta::new(older, newer);
            loop {
                let before = self.page.len();
                let encoded = delta.encode_into(&mut self.page, PAGE_BYTES_MAX);
                bytes += self.page.len() - before;
                match encoded {
                    Encoded::All => break,
                    Encoded::Full => self.send_page(pace).await?,
                    Encoded::Paused => tokio::task::yield_now().await,
                }
            }
            self.sent[bucket].1 = Some(delta.into_newer());
        }
        if pace == Pace::Limited && !self.page.is_empty() {
            self.send_page(pace).await?;
        }
        Ok(bytes)
    }

    async fn send_page(&mut self, pace: Pace) -> Result<(), SendingError> {
        if pace == Pace::Limited {
            self.wait_for_turn().await?;
        }
        let page = std::mem::take(&mut self.page);
        let step = MoveOp::Stage { id: self.id, attempt: self.attempt, number: self.pages };
        (self.pages, self.checksum) = (self.pages + 1, checksum_of(self.checksum, &page));
        let answer = self.call(&step, &page).await?;
        self.check_staged(&answer)?;
        self.group.note_moved(0, page.len() as u64);
        Ok(())
    }

    async fn wait_for_turn(&mut self) -> Result<(), SendingError> {
        tokio::time::sleep_until(self.next).await;
        let topology = self.replication.newest_topology();
        if topology.slot_move(self.id).is_none_or(|kept| kept.state != MoveState::Started) {
            return Err(SendingError::Over(self.id));
        }
        let takes = Duration::from_secs_f64(self.page.len() as f64 / self.bytes_per_second as f64);
        self.next = self.next.max(Instant::now()) + takes;
        Ok(())
    }

    /// An answer that was lost is asked for again: a step that was logged already does nothing.
    async fn call(&self, step: &MoveOp, page: &[u8]) -> Result<MoveAnswer, SendingError> {
        match self.replication.call_move(self.to, self.slot, step, page).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                tracing::info!(slot = %self.slot, %error, "a step of a move is asked for again");
                Ok(self.replication.call_move(self.to, self.slot, step, page).await?)
            }
        }
    }

    fn check_staged(&self, answer: &MoveAnswer) -> Result<(), SendingError> {
        let Self { id, attempt, pages, checksum, .. } = *self;
        if answer.held == Some(Held::Staged { id, attempt, pages, checksum }) {
            return Ok(());
        }
        Err(SendingError::Lost { slot: self.slot, held: answer.held })
    }
}

/// Whether clients wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Limited,
    Frozen,
}
