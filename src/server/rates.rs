//! How much a node does per second now (INFO's `instantaneous_*`), and what its counters stood at when CONFIG RESETSTAT was sent.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Boottime;

/// Counters that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub commands: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// From other nodes, and to them.
    pub peer_read_bytes: u64,
    pub peer_written_bytes: u64,
}

/// Per second, over the last sampled interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerSecond {
    pub commands: f64,
    pub read_bytes: f64,
    pub written_bytes: f64,
    pub peer_read_bytes: f64,
    pub peer_written_bytes: f64,
}

/// Counters of other owners cannot be set to zero; these are subtracted from them instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Baseline {
    pub expired: u64,
    pub hits: u64,
    pub misses: u64,
    pub peer_read_bytes: u64,
    pub peer_written_bytes: u64,
    pub accepted: u64,
    pub rejected: u64,
}

#[derive(Debug, Default)]
pub struct Rates(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Boottime, Totals)>,
    now: PerSecond,
    baseline: Baseline,
}

impl Rates {
    /// Called about once a second.
    pub fn sample(&self, at: Boottime, totals: Totals) {
        let mut state = self.0.lock();
        if let Some((before, last)) = state.last {
            state.now = per_second(last, totals, at.saturating_since(before));
        }
        state.last = Some((at, totals));
    }

    pub fn now(&self) -> PerSecond {
        self.0.lock().now
    }

    pub fn baseline(&self) -> Baseline {
        self.0.lock().baseline
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self, baseline: Baseline) {
        *self.0.lock() = State { baseline, ..State::default() };
    }
}

fn per_second(last: Totals, now: Totals, elapsed: Duration) -> PerSecond {
    let seconds = elapsed.as_secs_f64();
    // A reset in between makes totals fall.
    let rate = |last: u64, now: u64| if seconds > 0.0 { now.saturating_sub(last) as f64 / seconds } else { 0.0 };
    PerSecond {
        commands: rate(last.commands, now.commands),
        read_bytes: rate(last.read_bytes, now.read_bytes),
        written_bytes: rate(last.written_bytes, now.written_bytes),
        peer_read_bytes: rate(last.peer_read_bytes, now.peer_read_bytes),
        peer_written_bytes: rate(last.peer_written_bytes, now.peer_written_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_are_differences_over_the_time_between_samples() {
        let rates = Rates::default();
        rates.sample(Boottime(SECOND), Totals { commands: 100, written_bytes: 10, ..Totals::default() });
        assert_eq!(rates.now(), PerSecond::default());
        rates.sample(
            Boottime(3 * SECOND),
            Totals { commands: 500, read_bytes: 1000, written_bytes: 10, peer_read_bytes: 4, peer_written_bytes: 6 },
        );
        assert_eq!(
            rates.now(),
            PerSecond {
                commands: 200.0,
                read_bytes: 500.0,
                written_bytes: 0.0,
                peer_read_bytes: 2.0,
                peer_written_bytes: 3.0
            }
        );
    }

    #[test]
    fn totals_that_fell_are_no_negative_rate() {
        let rates = Rates::default();
        rates.sample(Boottime(SECOND), Totals { commands: 100, ..Totals::default() });
        rates.reset(Baseline { expired: 7, ..Baseline::default() });
        rates.sample(Boottime(2 * SECOND), Totals { commands: 3, ..Totals::default() });
        assert_eq!(rates.now().commands, 0.0);
        assert_eq!(rates.baseline().expired, 7);
    }
}
