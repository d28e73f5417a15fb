//! Which of the messages that strangers can cause are logged: enough to find a wrong setting, not enough to fill a disk.

use std::time::Duration;

use tokio::time::Instant;

/// A text just logged is not logged again for so long; a refused node dials twice a second.
const SAME_AFTER: Duration = Duration::from_secs(60);
/// Nor is any other for so long: whoever dials chooses what is said of it.
const OTHER_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<(String, Instant)>,
}

impl Throttle {
    /// Whether to log `text` now.
    pub fn admits(&mut self, text: &str, now: Instant) -> bool {
        let admitted = self
            .last
            .as_ref()
            .is_none_or(|(last, at)| now.duration_since(*at) >= if last == text { SAME_AFTER } else { OTHER_AFTER });
        if admitted {
            self.last = Some((text.to_owned(), now));
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_logged_once_a_minute_and_many_once_a_second() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let mut admits = |text: &str, ms| throttle.admits(text, start + Duration::from_millis(ms));
        assert!(admits("a", 0) && !admits("a", 59_000) && admits("a", 60_000));
        let alternating = (0..100).filter(|turn| admits(["a", "b"][turn % 2], 60_000 + 100 * *turn as u64)).count();
        assert!(alternating <= 10, "{alternating}");
    }
}
