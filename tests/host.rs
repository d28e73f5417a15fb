//! How much of the processor was not to be had: on a virtual machine the host may take it away for seconds, and then nobody keeps any time.

use std::fs;
use std::time::{Duration, Instant};

/// Before what may never be, however little of the processor was to be had: `.ci/run` gives no test that says so a second chance.
pub const VIOLATION: &str = "VIOLATION: ";
/// Waits end all the same, however little of the processor is to be had.
const LONGER_MAX: u32 = 6;

/// Beyond this share of what was wanted, what a planned stop costs is the host's doing.
pub const STOLEN_PERCENT_MAX: u64 = 25;

/// Ticks of all processors since the start of the machine.
#[derive(Default)]
pub struct Host {
    used: u64,
    stolen: u64,
}

impl Host {
    pub fn look() -> Self {
        Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// `cpu user nice system idle iowait irq softirq steal ...`, see proc_stat(5).
    fn of(text: &str) -> Self {
        let ticks: Vec<u64> =
            text.lines().next().unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, _, _, irq, softirq, stolen, ..] = ticks[..] else { return Self::default() };
        Self { used: user + nice + system + irq + softirq, stolen }
    }

    /// Of what all processes together wanted since `before`.
    pub fn stolen_percent(&self, before: &Self) -> u64 {
        let (used, stolen) = (self.used - before.used, self.stolen - before.stolen);
        stolen * 100 / (used + stolen).max(1)
    }
}

/// Time, of which what the host takes of the processor is not counted against the nodes.
pub struct Stopwatch {
    started: Instant,
    host: Host,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { started: Instant::now(), host: Host::look() }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn is_over(&self, limit: Duration) -> bool {
        let elapsed = self.elapsed();
        // Most waits end before anyone has to ask.
        elapsed >= limit && elapsed >= self.stretched(limit)
    }

    /// What something may take that would take less than `limit` on a machine of its own.
    pub fn stretched(&self, limit: Duration) -> Duration {
        limit * longer(Host::look().stolen_percent(&self.host))
    }
}

/// How many times as long everything takes.
fn longer(stolen_percent: u64) -> u32 {
    (100_u64.div_ceil(100 - stolen_percent.min(99)) as u32).min(LONGER_MAX)
}

#[test]
fn what_the_host_takes_makes_waits_longer_and_not_endless() {
    assert_eq!([0, 10, 50, 67, 75, 100].map(longer), [1, 2, 2, 4, 4, LONGER_MAX]);
}

#[test]
fn the_share_of_the_host_is_that_of_the_time_that_was_wanted() {
    let before = Host::of("cpu  100 0 50 900 10 0 5 20 0 0\ncpu0 1 2 3");
    let after = Host::of("cpu  120 0 60 990 10 0 5 30 0 0\ncpu0 1 2 3");
    assert_eq!((after.stolen_percent(&before), before.stolen_percent(&before)), (25, 0));
    assert_eq!(Host::of("").stolen_percent(&Host::of("nothing")), 0);
    assert!(Host::look().used > 0);
}
