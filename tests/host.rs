//! How much of the processor was not to be had: on a virtual machine the host may take it away for seconds, and then nobody keeps any time.

use std::fs;
use std::time::Duration;

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

    /// How long `limit` is, begun at `before`, when what the host took is not counted.
    pub fn stretch(before: &Self, limit: Duration) -> Duration {
        let left = 100 - Self::look().stolen_percent(before).min(99) as u32;
        limit * (100 / left).min(LONGER_MAX)
    }

    /// Of what all processes together wanted since `before`.
    pub fn stolen_percent(&self, before: &Self) -> u64 {
        let (used, stolen) = (self.used - before.used, self.stolen - before.stolen);
        stolen * 100 / (used + stolen).max(1)
    }
}

#[test]
fn the_share_of_the_host_is_that_of_the_time_that_was_wanted() {
    let before = Host::of("cpu  100 0 50 900 10 0 5 20 0 0\ncpu0 1 2 3");
    let after = Host::of("cpu  120 0 60 990 10 0 5 30 0 0\ncpu0 1 2 3");
    assert_eq!((after.stolen_percent(&before), before.stolen_percent(&before)), (25, 0));
    assert_eq!(Host::of("").stolen_percent(&Host::of("nothing")), 0);
    assert!(Host::look().used > 0);
}
