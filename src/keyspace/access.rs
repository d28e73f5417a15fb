//! Access marks: 24 bits of seconds (for LRU) and an 8-bit logarithmic counter (for LFU), as Redis keeps them.
//!
//! Hot path. Marks are hints for eviction, read and written relaxed under the read lock; they are no replicated state.
//! Source: Redis's `evict.c` (LFULogIncr, LFUDecrAndReturn), with lfu-log-factor 10 and lfu-decay-time 1.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::clock::Timestamp;

const COUNTER_INITIAL: u32 = 5;
const LOG_FACTOR: u32 = 10;
const SECONDS_MASK: u32 = 0xFF_FFFF;
const DECAY_SECONDS: u32 = 60;
const SEED: u32 = 0x9E37_79B9;

thread_local! {
    /// Fixed seed: the draws only thin out increments, nothing may depend on them.
    static DRAW: Cell<u32> = const { Cell::new(SEED) };
}

/// Marks are in snapshots: a simulation that is run again on a thread sends the same bytes only if it draws the same.
#[cfg(test)]
pub fn draw_anew() {
    DRAW.set(SEED);
}

/// One entry's mark: seconds in the upper 24 bits, counter in the lower 8.
#[derive(Debug)]
pub struct AccessMark(AtomicU32);

impl Clone for AccessMark {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.bits()))
    }
}

impl AccessMark {
    pub fn new(seconds: u32) -> Self {
        Self(AtomicU32::new(seconds << 8 | COUNTER_INITIAL))
    }

    pub fn from_bits(bits: u32) -> Self {
        Self(AtomicU32::new(bits))
    }

    pub fn bits(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub fn touch(&self, seconds: u32) {
        let counter = increment(self.frequency_at(seconds));
        let bits = seconds << 8 | counter;
        // Most touches change nothing: do not dirty the cache line then.
        if bits != self.bits() {
            self.0.store(bits, Relaxed);
        }
    }

    /// For writes: a touch for each would be 7 % of a SET.
    pub fn touch_by_second(&self, seconds: u32) {
        if self.bits() >> 8 != seconds {
            self.touch(seconds);
        }
    }

    pub fn frequency(&self) -> u8 {
        (self.bits() & 0xFF) as u8
    }

    /// The counter less one per minute of idleness.
    pub fn frequency_at(&self, seconds: u32) -> u32 {
        (self.bits() & 0xFF).saturating_sub(self.idle_seconds(seconds) / DECAY_SECONDS)
    }

    /// Wraps after 194 days. A mark ahead of the clock (clocks of two nodes) counts as not idle.
    pub fn idle_seconds(&self, seconds: u32) -> u32 {
        let idle = seconds.wrapping_sub(self.bits() >> 8) & SECONDS_MASK;
        if idle > SECONDS_MASK / 2 { 0 } else { idle }
    }
}

/// 24-bit seconds of a timestamp.
pub fn seconds(now: Timestamp) -> u32 {
    (now.as_ms().div_euclid(1000) & i64::from(SECONDS_MASK)) as u32
}

fn increment(counter: u32) -> u32 {
    if counter == 255 {
        return counter;
    }
    let odds = counter.saturating_sub(COUNTER_INITIAL) * LOG_FACTOR + 1;
    let draw = DRAW.with(|cell| {
        let mut draw = cell.get();
        draw ^= draw << 13;
        draw ^= draw >> 17;
        draw ^= draw << 5;
        cell.set(draw);
        draw
    });
    if draw.is_multiple_of(odds) { counter + 1 } else { counter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_grows_with_the_logarithm_of_touches_and_decays_by_the_minute() {
        let mark = AccessMark::new(100);
        (0..100_000).for_each(|_| mark.touch(100));
        let frequency = u32::from(mark.frequency());
        assert!((100..200).contains(&frequency), "{frequency}");
        assert_eq!(mark.frequency_at(100 + 10 * 60), frequency - 10);
        assert_eq!(mark.idle_seconds(160), 60);
        assert_eq!(mark.idle_seconds(90), 0);
    }

    #[test]
    fn writes_within_a_second_are_one_touch() {
        let mark = AccessMark::new(100);
        (0..100).for_each(|_| mark.touch_by_second(101));
        assert_eq!((mark.frequency(), mark.idle_seconds(101)), (6, 0));
    }

    #[test]
    fn idleness_survives_the_wrap_of_the_clock() {
        assert_eq!(AccessMark::new(SECONDS_MASK).idle_seconds(9), 10);
    }
}
