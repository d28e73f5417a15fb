//! Clocks: wall time as milliseconds, CLOCK_BOOTTIME for leases, and the group clock that stamps entries.
//!
//! The only file of layers 0-2 that may read a clock. Nothing here decides expiry: a key is expired when an entry's
//! stamp says so (see `command/`), never when a local clock does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. In an entry it is the group clock's, elsewhere the wall clock's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn wall_now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self(now.tv_sec * 1000 + now.tv_nsec / 1_000_000)
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
