//! What a group's replica does by itself: founding, expiry of due keys, freeing what was flushed, and the snapshots that let the log be
//! purged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::GroupId;
use crate::command::{OpCode, plan_expire_due};
use crate::keyspace::Keyspace;
use crate::protocol::Protocol;
use crate::raft::GroupLog;
use crate::raft::chunk::{Chunk, ChunkOutcome};
use crate::raft::group::{Applied, Group};
use crate::raft::space::Space;
use crate::slot::{KeySlot, Slot};

const TICK: Duration = Duration::from_millis(100);
/// A group that has logged nothing for so long logs its time.
const STAMP_INTERVAL_MS: i64 = 10_000;
/// Due keys proposed per tick and group; while a tick finds this many, the next comes at once.
const DUE_KEYS_MAX: usize = 1024;
/// Sub-tables, of at most 1,000 keys each, freed before others on this thread get a turn.
const TABLES_FREED_AT_ONCE: usize = 4;
/// Entries purged at a time: openraft's core frees them, and must not be held up for long.
pub const ENTRIES_PURGED_AT_ONCE: usize = 16 * 1024;

/// A snapshot comes this part of the log's bytes earlier on each voter than on the one before, so that a group's replicas do not go on writing
/// theirs at the same time. A few such steps are enough.
const EARLIER_PART: u64 = 8;
const EARLIER_STEPS: u64 = 4;

/// The slots a group was founded with.
pub type FoundingSlots = Arc<dyn Fn(GroupId) -> Vec<Slot> + Send + Sync>;

pub struct Upkeep {
    pub group: Arc<Group>,
    pub log: GroupLog,
    pub founding_slots: FoundingSlots,
    /// A snapshot is made when the log holds this many bytes that the last one does not cover, or somewhat fewer. Half as many stay behind a snapshot, for
    /// followers that were away for a moment; one that is further behind is sent the snapshot.
    pub log_bytes_max: u64,
    pub space: Arc<Space>,
    /// Index before which no follower is to be sent entries any more.
    pub floor: watch::Sender<u64>,
}

impl Upkeep {
    /// Runs until it is aborted with its group.
    pub async fn run(self) {
        let mut resume = KeySlot::new(0).expect("0 is a key slot");
        loop {
            // What space is left is for what clients wait for.
            let more_due = if self.group.leads() && !self.group.refuses_writes() {
                self.found().await;
                self.stamp().await;
                self.expire(&mut resume).await
            } else {
                false
            };
            self.snapshot().await;
            self.purge().await;
            free_flushed(self.group.keyspace()).await;
            if !more_due {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// The first leader of a new group gives it its slots, as a logged op like everything else.
    async fn found(&self) {
        if self.group.state().applied().founded {
            return;
        }
        let mut chunk = Chunk::new(Protocol::Resp2);
        let slots = (self.founding_slots)(self.group.id());
        chunk.push_found(slots.into_iter());
        // Whatever the outcome, the next tick looks again.
        let _ = self.group.submit(chunk).await;
    }

    /// § A replica that was away, and would lead next, must know the group's time from an entry that it got in time; a quiet group has few.
    async fn stamp(&self) {
        let time = self.group.time();
        // Before the first entry there is no stamp yet.
        if time.clock.as_ms().saturating_sub(time.stamp.as_ms()) > STAMP_INTERVAL_MS {
            self.group.stamp().await;
        }
    }

    /// § Only the log deletes a due key; this proposes them. True when there may be more.
    async fn expire(&self, resume: &mut KeySlot) -> bool {
        let clock = self.group.time().clock;
        let mut due = Vec::new();
        self.group.keyspace().collect_due(clock, DUE_KEYS_MAX, resume, &mut due);
        if due.is_empty() {
            return false;
        }
        let more = due.len() >= DUE_KEYS_MAX;
        let mut chunk = Chunk::new(Protocol::Resp2);
        for (key_slot, key) in &due {
            chunk.push_silent(OpCode::EXPIRE_DUE, *key_slot, |op| plan_expire_due([&key[..]], op));
        }
        // Without a quorum the same keys would be found again at once.
        matches!(self.group.submit(chunk).await, ChunkOutcome::Replied { .. }) && more
    }

    async fn snapshot(&self) {
        self.group.state().metrics.log_bytes.set(self.log.bytes() as f64);
        let Applied { log_id, membership, .. } = self.group.state().applied();
        let Some(applied) = log_id else { return };
        let before = membership.voter_ids().filter(|voter| *voter < self.group.replica().0).count();
        let log_bytes_wanted = snapshot_at(self.log_bytes_max, before as u64);
        let covers_more = self.log.snapshot_index() < Some(applied.index);
        if !covers_more || self.log.bytes_since_snapshot() < log_bytes_wanted || self.space.is_short() {
            return;
        }
        // openraft forgets the request while it builds one: asked for again at the next tick.
        let _ = self.group.raft().trigger().snapshot().await;
    }

    /// Lets go of what snapshots cover. openraft itself would keep a number of entries, whatever their size.
    async fn purge(&self) {
        let Some(index) = self.log.purgeable(self.log_bytes_max / 2, ENTRIES_PURGED_AT_ONCE) else { return };
        // Put off while a follower is being sent these entries, and asked for again at the next tick.
        let _ = self.group.raft().trigger().purge_log(index).await;
        if self.log.bytes() > self.log_bytes_max.saturating_mul(2) {
            self.floor.send_replace(index + 1);
        }
    }
}

/// Bytes of the log that a replica with so many voters before it wants a snapshot at.
fn snapshot_at(log_bytes_max: u64, before: u64) -> u64 {
    log_bytes_max - log_bytes_max / EARLIER_PART * before.min(EARLIER_STEPS)
}

/// § Freeing millions of flushed keys takes seconds: it is done in steps, outside of locks, with others' turns between.
async fn free_flushed(keyspace: &Keyspace) {
    while keyspace.reclaim(TABLES_FREED_AT_ONCE) {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{self, HashSecret, Position, SlotState, Value};

    #[test]
    fn a_groups_replicas_want_their_snapshots_at_different_bytes() {
        assert_eq!([0, 1, 2].map(|before| snapshot_at(800, before)), [800, 700, 600]);
        assert_eq!(snapshot_at(u64::MAX, u64::MAX), u64::MAX / 2 + 4, "never at nothing");
    }

    #[tokio::test]
    async fn flushed_keys_are_freed_in_steps() {
        let keyspace = Keyspace::new(HashSecret([1; 4]));
        let key_slot = KeySlot::of_key(b"{t}");
        keyspace.set_state(key_slot.slot(), SlotState::Owned);
        for number in 0..20_000u32 {
            let key = format!("{{t}}{number}");
            let position = Position { index: u64::from(number) + 1, op: 0 };
            let applied = keyspace.apply(key_slot, position, |bucket| {
                bucket.insert(key.as_bytes(), Value::Slice(b"v"), None);
            });
            assert!(matches!(applied, keyspace::Applied::Done(())));
        }
        keyspace.flush(key_slot, Position { index: 30_000, op: 0 });
        let mut freeing = std::pin::pin!(free_flushed(&keyspace));
        assert!(futures_util::poll!(&mut freeing).is_pending(), "others get their turn in between");
        freeing.await;
        assert!(!keyspace.reclaim(1), "nothing is left");
    }
}
