//! Clocks: wall time as milliseconds, CLOCK_BOOTTIME for leases, and the group clock that stamps entries.
//!
//! The only file of layers 0-2 that may read a clock. Nothing here decides expiry: a key is expired when an entry's
//! stamp says so (see `command/`), never when a local clock does.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. In an entry it is the group clock's, elsewhere the wall clock's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn wall_now() -> Self {
        #[cfg(test)]
        if let Some(clocks) = simulated::clocks() {
            return clocks.wall;
        }
        // By the C library, so that the fault tests can turn it.
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(SystemTime::UNIX_EPOCH.elapsed().map_or_else(|before| -ms(before.duration()), ms))
    }

    /// Milliseconds.
    pub fn as_ms(self) -> i64 {
        self.0
    }

    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Nanoseconds of CLOCK_BOOTTIME, which, unlike CLOCK_MONOTONIC, goes on while the machine is suspended: a lease
/// that outlived a suspend must look expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(pub u64);

impl Boottime {
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(clocks) = simulated::clocks() {
            return clocks.boot;
        }
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How far a new leader's wall clock may lead what the log and the elapsed time say, and how far the wall clock may
/// stray from a group clock before an operator is told.
pub const STAMP_LEAD_MS_MAX: i64 = 1000;

/// The largest correction of one `slew`.
const SLEW_MS_MAX: i64 = 1;

/// One group's clock: the leader's elapsed time since its election on top of the last stamp of the log.
///
/// § It never runs backwards and never jumps: it starts at max(last stamp, wall clock), follows CLOCK_BOOTTIME, and takes
/// corrections of the wall clock a millisecond at a time. So a step of one node's wall clock cannot expire a group's keys.
#[derive(Debug, Default)]
pub struct GroupClock {
    /// Stamp minus boot time, both in milliseconds.
    offset_ms: AtomicI64,
    /// This replica has led in this life of its process.
    started: AtomicBool,
}

/// The last stamp of the log, and when this process applied it (`None`: before this process started).
#[derive(Debug, Clone, Copy)]
pub struct LastStamp {
    pub stamp: Timestamp,
    pub seen: Option<Boottime>,
}

/// The wall clock disagreed by more than [`STAMP_LEAD_MS_MAX`]; milliseconds, positive when the wall clock is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAlarm(pub i64);

impl Boottime {
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0 / 1_000_000).expect("milliseconds since boot fit 63 bits")
    }
}

impl GroupClock {
    /// Called when this replica becomes the leader, with every earlier entry applied.
    ///
    /// § Without a stamp that was seen in time, the clock of its former leadership goes on, if there was one: that one stamped nothing that was
    /// committed, and the wall clock may have been turned since.
    pub fn start(&self, last: LastStamp, wall: Timestamp, now: Boottime) -> Option<ClockAlarm> {
        let mut stamp = wall.0.max(last.stamp.0);
        let mut alarm = None;
        let since_seen = |seen| i64::try_from(now.saturating_since(seen).as_millis()).unwrap_or(i64::MAX);
        let by_stamp = last.seen.map(|seen| last.stamp.0.saturating_add(since_seen(seen)));
        let led_before = self.started.swap(true, Ordering::AcqRel);
        if let Some(expected) = by_stamp.or_else(|| led_before.then(|| self.now(now).0)) {
            alarm = alarm_unless_near(wall.0 - expected);
            stamp = stamp.min(expected.saturating_add(STAMP_LEAD_MS_MAX)).max(last.stamp.0);
        }
        self.offset_ms.store(stamp - now.as_ms(), Ordering::Release);
        alarm
    }

    /// Whether this replica has led, so that its clock goes on.
    pub fn has_led(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// The group's time now. A caller that stamps an entry takes the maximum with the last stamp it gave.
    pub fn now(&self, now: Boottime) -> Timestamp {
        Timestamp(now.as_ms() + self.offset_ms.load(Ordering::Acquire))
    }

    /// It is `stamp` now at least, which the log says already. How far that may lead is the caller's to check.
    pub fn raise(&self, stamp: Timestamp, now: Boottime) {
        self.offset_ms.fetch_max(stamp.0.saturating_sub(now.as_ms()), Ordering::AcqRel);
    }

    /// Moves at most a millisecond towards the wall clock; called at a fixed pace by the leader.
    pub fn slew(&self, wall: Timestamp, now: Boottime) -> Option<ClockAlarm> {
        let lead_ms = wall.0 - self.now(now).0;
        self.offset_ms.fetch_add(lead_ms.clamp(-SLEW_MS_MAX, SLEW_MS_MAX), Ordering::AcqRel);
        alarm_unless_near(lead_ms)
    }
}

/// Of a wall clock that is so far ahead of a group's clock.
pub fn alarm_unless_near(lead_ms: i64) -> Option<ClockAlarm> {
    (lead_ms.abs() > STAMP_LEAD_MS_MAX).then_some(ClockAlarm(lead_ms))
}

#[cfg(test)]
pub mod simulated {
    //! What this thread's clocks say while it simulates a node.

    use std::cell::Cell;

    use super::{Boottime, Timestamp};

    #[derive(Debug, Clone, Copy)]
    pub struct Clocks {
        pub boot: Boottime,
        pub wall: Timestamp,
    }

    thread_local! {
        static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
    }

    /// `None`: the machine's.
    pub fn set(clocks: Option<Clocks>) {
        CLOCKS.set(clocks);
    }

    pub fn clocks() -> Option<Clocks> {
        CLOCKS.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_new_leader_starts_at_the_later_of_log_and_wall() {
        let clock = GroupClock::default();
        let unseen = |ms| LastStamp { stamp: Timestamp(ms), seen: None };
        clock.start(unseen(5_000), Timestamp(9_000), Boottime(SECOND));
        assert_eq!(clock.now(Boottime(SECOND)), Timestamp(9_000));
        clock.start(unseen(12_000), Timestamp(9_000), Boottime(SECOND));
        assert_eq!(clock.now(Boottime(2 * SECOND)), Timestamp(13_000));
    }

    #[test]
    fn a_wall_clock_jump_moves_a_new_leader_by_a_second_at_most_and_alarms() {
        let clock = GroupClock::default();
        let last = LastStamp { stamp: Timestamp(10_000), seen: Some(Boottime(SECOND)) };
        let alarm = clock.start(last, Timestamp(3_610_000), Boottime(3 * SECOND));
        assert_eq!(clock.now(Boottime(3 * SECOND)), Timestamp(13_000));
        assert_eq!(alarm, Some(ClockAlarm(3_598_000)));
    }

    #[test]
    fn a_leader_that_leads_again_does_not_follow_a_wall_clock_that_was_turned_meanwhile() {
        let clock = GroupClock::default();
        let unseen = LastStamp { stamp: Timestamp(5_000), seen: None };
        clock.start(unseen, Timestamp(9_000), Boottime(SECOND));
        let alarm = clock.start(unseen, Timestamp(3_600_000), Boottime(3 * SECOND));
        assert_eq!(clock.now(Boottime(3 * SECOND)), Timestamp(12_000), "11 s and the allowance");
        assert_eq!(alarm, Some(ClockAlarm(3_589_000)));
    }

    #[test]
    fn a_clock_that_is_raised_goes_on_from_there_and_never_back() {
        let clock = GroupClock::default();
        clock.start(LastStamp { stamp: Timestamp(0), seen: None }, Timestamp(10_000), Boottime(0));
        clock.raise(Timestamp(10_800), Boottime(0));
        assert_eq!(clock.now(Boottime(SECOND)), Timestamp(11_800));
        clock.raise(Timestamp(5_000), Boottime(SECOND));
        assert_eq!(clock.now(Boottime(SECOND)), Timestamp(11_800));
    }

    #[test]
    fn slewing_follows_the_wall_clock_a_millisecond_at_a_time() {
        let clock = GroupClock::default();
        clock.start(LastStamp { stamp: Timestamp(0), seen: None }, Timestamp(10_000), Boottime(0));
        assert_eq!(clock.slew(Timestamp(10_500), Boottime(0)), None);
        assert_eq!(clock.now(Boottime(0)), Timestamp(10_001));
        assert_eq!(clock.slew(Timestamp(0), Boottime(0)), Some(ClockAlarm(-10_001)));
        assert_eq!(clock.now(Boottime(0)), Timestamp(10_000));
    }
}
