//! Counts per command and per error code: INFO commandstats, errorstats and stats. Hot path: relaxed atomics only.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::command::{self, Row};

/// Distinct error codes counted; Redis's number. A value that a client stored never becomes a code, but texts may vary.
const ERROR_CODE_COUNT_MAX: usize = 128;
/// Longest error code kept.
const ERROR_CODE_BYTES_MAX: usize = 32;

/// A command's or subcommand's number in the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandNumber(pub u32);

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

/// One line of INFO commandstats.
#[derive(Debug, Clone, Copy)]
pub struct CommandUse {
    pub name: &'static str,
    pub calls: u64,
    pub usec: u64,
    pub rejected: u64,
    pub failed: u64,
}

/// What became of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// It ran and answered an error.
    Failed,
    /// It was refused before it ran: arity, MOVED, NOAUTH and the like.
    Rejected,
}

#[derive(Debug)]
pub struct Stats {
    /// A row's address to its number; rows are statics.
    numbers: HashMap<usize, u32, ahash::RandomState>,
    rows: Vec<&'static Row>,
    counters: Vec<Counters>,
    errors: Mutex<BTreeMap<Box<str>, u64>>,
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    /// Commands answered by no row.
    unknown: AtomicU64,
    pub error_replies: AtomicU64,
    pub keyspace_hits: AtomicU64,
    pub keyspace_misses: AtomicU64,
}

fn address(row: &'static Row) -> usize {
    std::ptr::from_ref(row) as usize
}

impl Default for Stats {
    fn default() -> Self {
        let rows: Vec<&'static Row> =
            command::table::rows().flat_map(|row| std::iter::once(row).chain(row.subcommands)).collect();
        let numbers = rows.iter().zip(0..).map(|(row, number)| (address(row), number)).collect();
        let counters = rows.iter().map(|_| Counters::default()).collect();
        Self {
            numbers,
            rows,
            counters,
            errors: Mutex::default(),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            error_replies: AtomicU64::new(0),
            keyspace_hits: AtomicU64::new(0),
            keyspace_misses: AtomicU64::new(0),
        }
    }
}

impl Stats {
    pub fn number(&self, row: &'static Row) -> CommandNumber {
        CommandNumber(*self.numbers.get(&address(row)).expect("every row was numbered at the start"))
    }

    /// The full name behind a number that `number` gave; "NULL", as Redis prints it, behind any other.
    pub fn name(&self, number: u32) -> &'static str {
        self.rows.get(number as usize).map_or("NULL", |row| row.name)
    }

    pub fn count(&self, row: &'static Row, verdict: Verdict, nanoseconds: u64) {
        let counters = &self.counters[self.number(row).0 as usize];
        match verdict {
            Verdict::Done => (),
            Verdict::Failed => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            Verdict::Rejected => {
                counters.rejected.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        counters.calls.fetch_add(1, Ordering::Relaxed);
        counters.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub fn count_unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// `reply` is an error reply, with its `-`.
    pub fn count_error(&self, reply: &[u8]) {
        self.error_replies.fetch_add(1, Ordering::Relaxed);
        let text = reply.get(1..).unwrap_or_default();
        let end = text.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(text.len());
        let Ok(code) = std::str::from_utf8(&text[..end.min(ERROR_CODE_BYTES_MAX)]) else { return };
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_CODE_COUNT_MAX {
            errors.insert(code.into(), 1);
        }
    }

    /// Commands that were used, in the table's order.
    pub fn commands(&self) -> Vec<CommandUse> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let used = self.rows.iter().zip(&self.counters).map(|(row, counters)| CommandUse {
            name: row.name,
            calls: load(&counters.calls),
            usec: load(&counters.nanoseconds) / 1000,
            rejected: load(&counters.rejected),
            failed: load(&counters.failed),
        });
        used.filter(|used| used.calls + used.rejected + used.failed > 0).collect()
    }

    /// (code, count), by code.
    pub fn errors(&self) -> Vec<(Box<str>, u64)> {
        self.errors.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    pub fn total_commands(&self) -> u64 {
        self.counters.iter().map(|counters| counters.calls.load(Ordering::Relaxed)).sum()
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for counters in &self.counters {
            for value in [&counters.calls, &counters.nanoseconds, &counters.rejected, &counters.failed] {
                value.store(0, Ordering::Relaxed);
            }
        }
        for value in [&self.read_bytes, &self.written_bytes, &self.unknown, &self.error_replies] {
            value.store(0, Ordering::Relaxed);
        }
        for value in [&self.keyspace_hits, &self.keyspace_misses] {
            value.store(0, Ordering::Relaxed);
        }
        self.errors.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> &'static Row {
        command::table::rows().find(|row| row.name == name).expect("exists")
    }

    #[test]
    fn rejected_commands_are_no_calls() {
        let stats = Stats::default();
        stats.count(row("get"), Verdict::Done, 3_000);
        stats.count(row("get"), Verdict::Failed, 1_000);
        stats.count(row("get"), Verdict::Rejected, 9_000);
        let commands = stats.commands();
        assert_eq!(commands.len(), 1);
        let get = commands[0];
        assert_eq!((get.name, get.calls, get.usec, get.rejected, get.failed), ("get", 2, 4, 1, 1));
        assert_eq!(stats.total_commands(), 2);
        stats.reset();
        assert!(stats.commands().is_empty());
    }

    #[test]
    fn errors_are_counted_by_code_and_the_number_of_codes_is_bounded() {
        let stats = Stats::default();
        stats.count_error(b"-MOVED 1 a:1\r\n");
        stats.count_error(b"-MOVED 2 b:1\r\n");
        stats.count_error(b"-ERR\r\n");
        assert_eq!(stats.errors(), [("ERR".into(), 1), ("MOVED".into(), 2)]);
        for number in 0..1000 {
            stats.count_error(format!("-E{number} x\r\n").as_bytes());
        }
        assert_eq!(stats.errors().len(), ERROR_CODE_COUNT_MAX);
    }
}
