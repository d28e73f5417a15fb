//! Entries in flight under one leadership. Hot path.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One object per leadership: what a lost leadership left in flight is not in the way of the next.
#[derive(Debug, Default)]
pub struct Window {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// When an entry left last.
    left: Option<Instant>,
}

/// An entry's place; freed when dropped.
#[derive(Debug)]
pub struct Place(Arc<Window>);

impl Window {
    pub fn enter(self: &Arc<Self>) -> Place {
        self.state.lock().in_flight += 1;
        Place(Arc::clone(self))
    }

    pub fn in_flight(&self) -> usize {
        self.state.lock().in_flight
    }

    /// When an entry left last; `None` while any is in flight, or before the first.
    pub fn empty_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        if state.in_flight == 0 { state.left } else { None }
    }

    /// Returns after a place is freed, also if that was before the call. For one waiter.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_flight -= 1;
        state.left = Some(Instant::now());
        drop(state);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_when_its_entry_is_gone() {
        let window = Arc::new(Window::default());
        assert_eq!(window.empty_since(), None);
        let (first, second) = (window.enter(), window.enter());
        drop(first);
        window.freed().await;
        assert_eq!((window.in_flight(), window.empty_since()), (1, None));
        drop(second);
        window.freed().await;
        assert_eq!(window.in_flight(), 0);
        assert!(window.empty_since().is_some());
    }
}
