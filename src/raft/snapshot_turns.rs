//! Whose turn it is to write a snapshot: one replica of a node at a time, in the order in which they asked.
//!
//! The groups of a node often come to their limit together. Their snapshots at the same time would take several quarters of a core and
//! share the disk, and clients would wait behind all of them. Installing a snapshot takes no turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Cheap to clone; all clones are one node's.
#[derive(Debug, Clone)]
pub struct SnapshotTurns {
    free: Arc<Semaphore>,
    /// What a group's log may hold: one of so many bytes waits for no turn.
    log_bytes_full: u64,
}

impl SnapshotTurns {
    /// `log_bytes_max` is what a group wants a snapshot at.
    pub fn new(log_bytes_max: u64) -> Self {
        Self { free: Arc::new(Semaphore::new(1)), log_bytes_full: log_bytes_max.saturating_mul(2) }
    }

    /// Waits for this replica's turn, which ends when what is returned is dropped.
    ///
    /// `None`: goes ahead without one. Where groups fill their logs faster than their snapshots are written one after the other, memory and disk
    /// are what must stay bounded; and a snapshot that is not wanted any more, because a newer one was installed, is not to be waited for.
    pub async fn take(
        &self,
        log_bytes: impl Fn() -> u64,
        is_wanted: impl Fn() -> bool,
    ) -> Option<OwnedSemaphorePermit> {
        let cannot_wait = async {
            while is_wanted() && log_bytes() < self.log_bytes_full {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            turn = self.free.clone().acquire_owned() => turn.ok(),
            () = cannot_wait => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn turns_come_one_at_a_time_in_the_order_of_asking() {
        let turns = SnapshotTurns::new(50);
        let ask = || Box::pin(turns.take(|| 50, || true));
        let first = ask().await;
        assert!(first.is_some());
        let (mut second, mut third, mut fourth) = (ask(), ask(), ask());
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending() && poll!(&mut fourth).is_pending());
        // Who gives up waiting is passed over.
        drop(second);
        drop(first);
        assert!(poll!(&mut fourth).is_pending(), "another asked before");
        let third = third.await;
        assert!(third.is_some() && poll!(&mut fourth).is_pending());
        drop(third);
        assert!(fourth.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_log_and_a_snapshot_nobody_wants_wait_for_no_turn() {
        let turns = SnapshotTurns::new(50);
        let _taken = turns.take(|| 0, || true).await;
        let log_bytes = AtomicU64::new(99);
        let mut full = Box::pin(turns.take(|| log_bytes.load(Ordering::Relaxed), || true));
        assert!(poll!(&mut full).is_pending());
        log_bytes.store(100, Ordering::Relaxed);
        assert!(full.await.is_none());
        let wanted = AtomicBool::new(true);
        let mut unwanted = Box::pin(turns.take(|| 0, || wanted.load(Ordering::Relaxed)));
        assert!(poll!(&mut unwanted).is_pending());
        wanted.store(false, Ordering::Relaxed);
        assert!(unwanted.await.is_none());
    }
}
