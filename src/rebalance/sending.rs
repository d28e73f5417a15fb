//! Sends one slot to the leader of its new group: all of it, then what has changed since, again and again, and when the slot is frozen the rest.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, MoveId, MoveState};
use crate::keyspace::{BucketExport, Delta, Encoded};
use crate::raft::{
    Attempt, CallMoveError, Group, Held, MoveAnswer, MoveOp, PART_BYTES, Replication, STEP_WAIT_MAX, checksum_of,
};
use crate::slot::{KeySlot, Slot};

/// A page is one message, unless a key is too long for that.
const PAGE_BYTES_MAX: usize = PART_BYTES;
/// Between two tries of a step; while no client waits, longer each time.
const CALL_PAUSE: Duration = Duration::from_millis(10);
/// A target that changes its leader has all that was staged; so long is one waited for, or the slot would be sent from its beginning each time.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);
/// Within the time that a slot may be frozen, so that an answer that is lost costs only a part of it.
const FROZEN_CALLS: u32 = 4;

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
    #[error("this node's leadership that began it has ended")]
    Deposed,
    #[error("it took too long")]
    Late,
}

impl SendingError {
    /// Another try would end the same way.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Call(CallMoveError::RefusedForGood { .. }))
    }
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
    /// Keys that were told of as sent.
    told: u64,
    pace: Pace,
    /// Of all that the group sends.
    bytes_per_second: u64,
}

impl<'a> Sending<'a> {
    pub fn new(
        replication: &'a Replication,
        group: &'a Group,
        to: GroupId,
        slot: Slot,
        id: MoveId,
        attempt: Attempt,
        bytes_per_second: u64,
    ) -> Self {
        Self {
            replication,
            group,
            to,
            slot,
            id,
            attempt,
            pages: 0,
            checksum: 0,
            page: Vec::new(),
            sent: slot.key_slots().map(|key_slot| (key_slot, None)).collect(),
            told: 0,
            pace: Pace::Limited,
            bytes_per_second,
        }
    }

    pub async fn begin(&mut self) -> Result<(), SendingError> {
        let (id, attempt, stamp) = (self.id, self.attempt, self.group.time().clock);
        let answer = self.call(&MoveOp::Begin { id, attempt, stamp }, &[]).await?;
        self.check_staged(&answer)
    }

    /// Passes over the slot until one has little to send. The more there have been, the more is little: a slot that is written faster than it can be sent
    /// moves all the same.
    pub async fn until_little_is_left(&mut self) -> Result<(), SendingError> {
        for pass in 1.. {
            let bytes = self.pass().await?;
            if bytes <= pass * PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// What has changed until the slot was frozen, and the adoption with it, within `wait_max`.
    pub async fn finish(&mut self, wait_max: Duration) -> Result<(), SendingError> {
        self.pace = Pace::Frozen { call_max: wait_max / FROZEN_CALLS };
        tokio::time::timeout(wait_max, self.adopt()).await.unwrap_or(Err(SendingError::Late))
    }

    async fn adopt(&mut self) -> Result<(), SendingError> {
        self.pass().await?;
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
        self.group.note_moved(here.saturating_sub(self.told), page.len() as u64);
        Ok(())
    }

    /// Err if what was found here does not count. § A replica that leads no more may install a snapshot, and is to be seen half-way through it: buckets with the
    /// position of the whole and a part of the keys. While the leadership that began the attempt lasts there is none.
    pub fn check(&self) -> Result<(), SendingError> {
        if self.group.leadership() != Some((self.attempt.term, self.attempt.replica)) {
            return Err(SendingError::Deposed);
        }
        let topology = self.replication.newest_topology();
        if topology.slot_move(self.id).is_none_or(|kept| kept.state != MoveState::Started) {
            return Err(SendingError::Over(self.id));
        }
        Ok(())
    }

    /// Sends what has changed since the last pass; of a frozen slot, the last page is left in `page`. Bytes found.
    async fn pass(&mut self) -> Result<usize, SendingError> {
        let mut bytes = 0;
        for bucket in 0..self.sent.len() {
            let (key_slot, older) = (self.sent[bucket].0, self.sent[bucket].1.take());
            let newer = self.group.keyspace().export(key_slot);
            if older.as_ref().is_some_and(|older| older.position() == newer.position()) {
                self.sent[bucket].1 = older;
                continue;
            }
            let keys = newer.tables().iter().map(|table| table.len() as u64).sum();
            let fresh = if older.is_none() { keys } else { 0 };
            let mut delta = Delta::new(older, newer);
            loop {
                let before = self.page.len();
                let encoded = delta.encode_into(&mut self.page, PAGE_BYTES_MAX);
                bytes += self.page.len() - before;
                match encoded {
                    Encoded::All => break,
                    Encoded::Full => self.send_page().await?,
                    Encoded::Paused => tokio::task::yield_now().await,
                }
            }
            self.sent[bucket].1 = Some(delta.into_newer());
            self.told += fresh;
            self.group.note_moved(fresh, 0);
        }
        if self.pace == Pace::Limited && !self.page.is_empty() {
            self.send_page().await?;
        }
        self.check()?;
        Ok(bytes)
    }

    async fn send_page(&mut self) -> Result<(), SendingError> {
        if self.pace == Pace::Limited {
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
        let takes = Duration::from_secs_f64(self.page.len() as f64 / self.bytes_per_second as f64);
        tokio::time::sleep_until(self.group.sending_turn(takes)).await;
        self.check()
    }

    /// An answer that was lost is asked for again: a step that was logged already does nothing. Of a frozen slot, until the time is over.
    async fn call(&self, step: &MoveOp, page: &[u8]) -> Result<MoveAnswer, SendingError> {
        let (wait_max, tried_max) = match self.pace {
            Pace::Limited => (STEP_WAIT_MAX, LEADERLESS_MAX),
            Pace::Frozen { call_max } => (call_max, Duration::MAX),
        };
        let (began, mut pause, mut told) = (Instant::now(), CALL_PAUSE, false);
        loop {
            match self.replication.call_move(self.to, self.slot, step, page, wait_max).await {
                Ok(answer) => return Ok(answer),
                Err(error @ CallMoveError::RefusedForGood { .. }) => return Err(error.into()),
                Err(error) if began.elapsed() >= tried_max => return Err(error.into()),
                Err(error) if !told => tracing::info!(slot = %self.slot, %error, "a step of a move is asked for again"),
                Err(_) => (),
            }
            told = true;
            tokio::time::sleep(pause).await;
            if self.pace == Pace::Limited {
                self.check()?;
                // A page that is refused for another reason is not to be sent over and over.
                pause *= 2;
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
    Frozen { call_max: Duration },
}
