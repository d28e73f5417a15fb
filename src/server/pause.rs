//! CLIENT PAUSE: commands wait until the pause ends. Hot path: one relaxed load per turn while nothing is paused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Boottime;

/// What a pause holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    Writes,
    All,
}

#[derive(Debug, Default)]
pub struct Pause {
    /// Boot time at which the pause ends; 0 when there is none. The fast check.
    until: AtomicU64,
    what: Mutex<Option<Paused>>,
    ended: Notify,
}

impl Pause {
    /// As in Redis a new pause never shortens or weakens one that is under way.
    pub fn start(&self, what: Paused, duration: Duration) {
        let mut current = self.what.lock();
        let active = self.now_paused(&current);
        *current = Some(active.map_or(what, |active| active.max(what)));
        self.until.fetch_max(Boottime::now().saturating_add(duration).0, Ordering::AcqRel);
    }

    pub fn end(&self) {
        *self.what.lock() = None;
        self.until.store(0, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// What is held back now, if anything.
    pub fn paused(&self) -> Option<Paused> {
        if self.until.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut what = self.what.lock();
        let paused = self.now_paused(&what);
        if paused.is_none() {
            *what = None;
            self.until.store(0, Ordering::Release);
        }
        paused
    }

    fn now_paused(&self, what: &Option<Paused>) -> Option<Paused> {
        what.filter(|_| Boottime::now().0 < self.until.load(Ordering::Acquire))
    }

    /// Ends when the pause does.
    pub async fn wait(&self) {
        loop {
            let ended = self.ended.notified();
            if self.paused().is_none() {
                return;
            }
            let left = Boottime(self.until.load(Ordering::Acquire)).saturating_since(Boottime::now());
            // Whichever comes first; the loop looks again.
            let _ = tokio::time::timeout(left.max(Duration::from_millis(1)), ended).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weaker_pause_does_not_weaken_the_one_under_way() {
        let pause = Pause::default();
        assert_eq!(pause.paused(), None);
        pause.start(Paused::All, Duration::from_secs(60));
        pause.start(Paused::Writes, Duration::from_secs(1));
        assert_eq!(pause.paused(), Some(Paused::All));
        pause.end();
        assert_eq!(pause.paused(), None);
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let pause = Pause::default();
        pause.start(Paused::Writes, Duration::ZERO);
        assert_eq!(pause.paused(), None);
    }

    #[tokio::test]
    async fn waiters_wake_when_the_pause_is_lifted() {
        let pause = Pause::default();
        pause.start(Paused::All, Duration::from_secs(60));
        let lift = async {
            tokio::task::yield_now().await;
            pause.end();
        };
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(pause.wait(), lift) }).await.expect("wakes");
    }
}
