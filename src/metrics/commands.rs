//! Calls, time and failures of each command, and errors by their first word. Hot path: arrays of relaxed counters.
//!
//! The counters exist once per stripe and a thread keeps to one stripe, so that threads serving the same command do not
//! fight for one cache line; readers add the stripes up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::latency::{LatencyCounts, LatencyHistogram};

const STRIPES: usize = 8;
/// As in Redis: a script or module that makes up error words must not fill memory.
const ERROR_WORDS_MAX: usize = 128;

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// One row per command, in the order of the names given at creation.
#[derive(Debug)]
pub struct CommandStats {
    names: Vec<&'static str>,
    stripes: Vec<Vec<Counters>>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    calls: AtomicU64,
    micros: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    latency: LatencyHistogram,
}

/// One command's counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct CommandCounts {
    /// Executed, failures included.
    pub calls: u64,
    pub micros: u64,
    /// Refused before execution: arity, authentication, redirection.
    pub rejected: u64,
    /// Executed and answered with an error.
    pub failed: u64,
    pub latency: LatencyCounts,
}

/// Error replies by their first word (ERR, MOVED, WRONGTYPE, ..).
#[derive(Debug, Default)]
pub struct ErrorStats {
    counts: Mutex<BTreeMap<String, u64>>,
}

fn stripe() -> usize {
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

impl CommandStats {
    /// `names` in the order of the command table; all later calls name a command by its index.
    pub fn new(names: Vec<&'static str>) -> Self {
        let row = || names.iter().map(|_| Counters::default()).collect();
        Self { stripes: (0..STRIPES).map(|_| row()).collect(), names }
    }

    pub fn record(&self, command: usize, duration: Duration) {
        self.record_many(command, duration, 1);
    }

    /// `count` executions that took `duration` each, as when one pipeline's equal commands were timed together.
    pub fn record_many(&self, command: usize, duration: Duration, count: u64) {
        let counters = self.counters(command);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        counters.calls.fetch_add(count, Ordering::Relaxed);
        counters.micros.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
        counters.latency.record_many(duration, count);
    }

    pub fn record_rejected(&self, command: usize) {
        self.counters(command).rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// In addition to `record`.
    pub fn record_failed(&self, command: usize) {
        self.counters(command).failed.fetch_add(1, Ordering::Relaxed);
    }

    fn counters(&self, command: usize) -> &Counters {
        &self.stripes[stripe()][command]
    }

    pub fn counts(&self, command: usize) -> CommandCounts {
        let mut sum = CommandCounts::default();
        for counters in self.stripes.iter().map(|stripe| &stripe[command]) {
            sum.calls += counters.calls.load(Ordering::Relaxed);
            sum.micros += counters.micros.load(Ordering::Relaxed);
            sum.rejected += counters.rejected.load(Ordering::Relaxed);
            sum.failed += counters.failed.load(Ordering::Relaxed);
            counters.latency.add_to(&mut sum.latency);
        }
        sum
    }

    /// Commands that were called, refused or failed at least once.
    pub fn used(&self) -> impl Iterator<Item = (&'static str, CommandCounts)> + '_ {
        let all = self.names.iter().enumerate().map(|(index, name)| (*name, self.counts(index)));
        all.filter(|(_, counts)| counts.calls + counts.rejected + counts.failed > 0)
    }

    /// Commands executed since the start or the last CONFIG RESETSTAT.
    pub fn calls_total(&self) -> u64 {
        let all = self.stripes.iter().flatten();
        all.map(|counters| counters.calls.load(Ordering::Relaxed)).sum()
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for counters in self.stripes.iter().flatten() {
            for counter in [&counters.calls, &counters.micros, &counters.rejected, &counters.failed] {
                counter.store(0, Ordering::Relaxed);
            }
            counters.latency.reset();
        }
    }

    /// LATENCY RESET of the histograms alone.
    pub fn reset_latency(&self, command: usize) {
        self.stripes.iter().for_each(|stripe| stripe[command].latency.reset());
    }

    /// Appends Prometheus text: four counters per used command and a histogram with buckets a factor of 4 apart.
    pub fn render(&self, out: &mut String) {
        let used: Vec<_> = self.used().collect();
        type Count = fn(&CommandCounts) -> u64;
        let counters: [(&str, &str, Count); 3] = [
            ("kvorum_commands_total", "Commands executed, failures included.", |counts| counts.calls),
            ("kvorum_commands_rejected_total", "Commands refused before execution.", |counts| counts.rejected),
            ("kvorum_commands_failed_total", "Commands answered with an error.", |counts| counts.failed),
        ];
        for (name, help, count) in counters {
            push(out, format_args!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            for (command, counts) in &used {
                push(out, format_args!("{name}{{command=\"{command}\"}} {}\n", count(counts)));
            }
        }
        let name = "kvorum_command_duration_seconds";
        push(out, format_args!("# HELP {name} Time from execution to reply of a command.\n# TYPE {name} histogram\n"));
        for (command, counts) in &used {
            for (bound_us, below) in counts.latency.cumulative_by_octave().step_by(2) {
                let bound = bound_us as f64 / 1e6;
                push(out, format_args!("{name}_bucket{{command=\"{command}\",le=\"{bound}\"}} {below}\n"));
            }
            let total = counts.latency.total();
            push(out, format_args!("{name}_bucket{{command=\"{command}\",le=\"+Inf\"}} {total}\n"));
            let seconds = counts.micros as f64 / 1e6;
            push(out, format_args!("{name}_sum{{command=\"{command}\"}} {seconds}\n"));
            push(out, format_args!("{name}_count{{command=\"{command}\"}} {total}\n"));
        }
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a String cannot fail");
}

impl ErrorStats {
    /// `error` is the reply's text without the dash; its first word is counted, as in Redis.
    pub fn record(&self, error: &[u8]) {
        let word = error.split(|byte| *byte == b' ').next().unwrap_or_default();
        let word = String::from_utf8_lossy(&word[..word.len().min(32)]);
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(word.as_ref()) {
            *count += 1;
        } else if counts.len() < ERROR_WORDS_MAX {
            counts.insert(word.into_owned(), 1);
        }
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    pub fn total(&self) -> u64 {
        self.counts.lock().values().sum()
    }

    pub fn reset(&self) {
        self.counts.lock().clear();
    }

    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        let name = "kvorum_error_replies_total";
        push(out, format_args!("# HELP {name} Error replies by their first word.\n# TYPE {name} counter\n"));
        for (word, count) in self.counts() {
            let label: String =
                word.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect();
            push(out, format_args!("{name}{{error=\"{label}\"}} {count}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let stats = CommandStats::new(vec!["get", "set"]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| stats.record(1, Duration::from_micros(7))));
            }
        });
        stats.record_rejected(1);
        stats.record_failed(1);
        let counts = stats.counts(1);
        assert_eq!((counts.calls, counts.micros, counts.rejected, counts.failed), (400, 2800, 1, 1));
        assert_eq!(counts.latency.percentile_us(50.0), 7);
        assert_eq!(stats.calls_total(), 400);
        assert_eq!(stats.used().map(|(name, _)| name).collect::<Vec<_>>(), ["set"]);
        stats.reset();
        assert_eq!(stats.used().count(), 0);
    }

    #[test]
    fn used_commands_are_rendered_for_prometheus() {
        let stats = CommandStats::new(vec!["get", "set"]);
        stats.record_many(0, Duration::from_micros(5), 2);
        let mut text = String::new();
        stats.render(&mut text);
        for line in [
            "kvorum_commands_total{command=\"get\"} 2",
            "kvorum_command_duration_seconds_bucket{command=\"get\",le=\"0.000004\"} 0",
            "kvorum_command_duration_seconds_bucket{command=\"get\",le=\"0.000016\"} 2",
            "kvorum_command_duration_seconds_bucket{command=\"get\",le=\"+Inf\"} 2",
            "kvorum_command_duration_seconds_sum{command=\"get\"} 0.00001",
            "kvorum_command_duration_seconds_count{command=\"get\"} 2",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        assert!(!text.contains("\"set\""), "{text}");
    }

    #[test]
    fn errors_count_by_their_first_word_up_to_a_limit() {
        let errors = ErrorStats::default();
        errors.record(b"MOVED 1 a:1");
        errors.record(b"MOVED 2 a:1");
        errors.record(b"ERR");
        (0..1000).for_each(|number| errors.record(format!("E{number} x").as_bytes()));
        let counts = errors.counts();
        assert_eq!((counts["MOVED"], counts["ERR"], counts.len()), (2, 1, ERROR_WORDS_MAX));
    }
}
