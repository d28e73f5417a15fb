//! What a group's replica does by itself: founding, expiry of due keys, and the snapshot that lets the log be purged.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftStateMachine;

use crate::cluster::GroupId;
use crate::command::{OpCode, plan_expire_due};
use crate::protocol::Protocol;
use crate::raft::chunk::{Chunk, ChunkOutcome};
use crate::raft::group::Group;
use crate::raft::{GroupLog, TypeConfig};
use crate::slot::{KeySlot, Slot};

const TICK: Duration = Duration::from_millis(100);
/// Due keys proposed per tick and group; while a tick finds this many, the next comes at once.
const DUE_KEYS_MAX: usize = 1024;

/// The slots a group was founded with.
pub type FoundingSlots = Arc<dyn Fn(GroupId) -> Vec<Slot> + Send + Sync>;

pub struct Upkeep {
    pub group: Arc<Group>,
    pub log: GroupLog,
    pub founding_slots: FoundingSlots,
    /// A snapshot is made when the log holds this many bytes past the last one.
    pub log_bytes_max: u64,
}

impl Upkeep {
    /// Runs until it is aborted with its group.
    pub async fn run(self) {
        let mut resume = KeySlot::new(0).expect("0 is a key slot");
        let mut snapshot_index = 0;
        loop {
            let more_due = if self.group.leads() {
                self.found().await;
                self.expire(&mut resume).await
            } else {
                false
            };
            self.snapshot(&mut snapshot_index).await;
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

    async fn snapshot(&self, snapshot_index: &mut u64) {
        self.group.state().metrics.log_bytes.set(self.log.bytes() as f64);
        let Some(applied) = self.group.state().applied_id() else { return };
        if self.log.bytes() < self.log_bytes_max || applied.index <= *snapshot_index {
            return;
        }
        *snapshot_index = applied.index;
        // openraft purges the log behind the snapshot by itself; a failure to start one is tried again when the log grows.
        let _ = self.group.raft().trigger().snapshot().await;
    }
}

/// Lets go of the entries that a snapshot covers; makes one if the last is older than what is applied.
pub async fn release_log<SM: RaftStateMachine<TypeConfig>>(raft: &openraft::Raft<TypeConfig, SM>) {
    let (snapshot, applied) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.snapshot, metrics.last_applied)
    };
    // A core that has stopped is reported elsewhere; what fails now is tried again.
    if let Some(snapshot) = snapshot {
        let _ = raft.trigger().purge_log(snapshot.index).await;
    }
    if snapshot < applied {
        let _ = raft.trigger().snapshot().await;
    }
}
