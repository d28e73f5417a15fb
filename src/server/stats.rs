//! The node's counters as the request path uses them: which number a row has, and what a stretch adds. Hot path.
//!
//! The counters themselves are `metrics/commands.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{self, Row};
use crate::metrics::{CommandStats, ErrorStats, NodeMetrics};

/// What became of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// It ran and answered an error.
    Failed,
    /// It was refused before it ran: arity, MOVED, NOAUTH and the like.
    Rejected,
}

pub struct Stats {
    /// A row's address to its number; rows are statics.
    numbers: HashMap<usize, u32, ahash::RandomState>,
    rows: Vec<&'static Row>,
    /// By row number, subcommands included.
    pub commands: CommandStats,
    pub errors: ErrorStats,
    pub node: NodeMetrics,
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    /// Reads from and writes to clients' sockets that moved something.
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    /// AUTH and HELLO with a wrong user or password.
    pub denied_auths: AtomicU64,
}

impl std::fmt::Debug for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stats").field("commands", &self.commands.calls_total()).finish_non_exhaustive()
    }
}

fn address(row: &'static Row) -> usize {
    std::ptr::from_ref(row) as usize
}

impl Default for Stats {
    fn default() -> Self {
        let rows: Vec<&'static Row> =
            command::table::rows().flat_map(|row| std::iter::once(row).chain(row.subcommands)).collect();
        // Addresses of our own statics: nobody can flood this table, so the seeds may be fixed.
        let mut numbers = HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        numbers.extend(rows.iter().zip(0..).map(|(row, number)| (address(row), number)));
        let commands = CommandStats::new(rows.iter().map(|row| row.name).collect());
        Self {
            numbers,
            rows,
            commands,
            errors: ErrorStats::default(),
            node: NodeMetrics::new(),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            denied_auths: AtomicU64::new(0),
        }
    }
}

impl Stats {
    /// The row's number in `commands`.
    pub fn number(&self, row: &'static Row) -> u32 {
        *self.numbers.get(&address(row)).expect("every row was numbered at the start")
    }

    /// The full name behind a number that `number` gave; "NULL", as Redis prints it, behind any other.
    pub fn name(&self, number: u32) -> &'static str {
        self.rows.get(number as usize).map_or("NULL", |row| row.name)
    }

    pub fn count(&self, row: &'static Row, verdict: Verdict, duration: Duration) {
        let number = self.number(row) as usize;
        match verdict {
            Verdict::Done => self.commands.record(number, duration),
            Verdict::Failed => {
                self.commands.record(number, duration);
                self.commands.record_failed(number);
            }
            Verdict::Rejected => self.commands.record_rejected(number),
        }
    }

    /// `reply` is an error reply with its `-` and line end.
    pub fn count_error(&self, reply: &[u8]) {
        self.errors.record(reply.get(1..).unwrap_or_default().trim_ascii_end());
    }

    pub fn count_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_write(&self, bytes: u64) {
        if bytes > 0 {
            self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.commands.reset();
        self.errors.reset();
        for counter in [&self.read_bytes, &self.written_bytes, &self.reads, &self.writes, &self.denied_auths] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_commands_are_no_calls_and_errors_go_by_their_code() {
        let stats = Stats::default();
        let get = command::table::lookup(b"get").expect("exists");
        stats.count(get, Verdict::Done, Duration::from_micros(3));
        stats.count(get, Verdict::Failed, Duration::from_micros(1));
        stats.count(get, Verdict::Rejected, Duration::ZERO);
        let counts = stats.commands.counts(stats.number(get) as usize);
        assert_eq!((counts.calls, counts.micros, counts.rejected, counts.failed), (2, 4, 1, 1));
        stats.count_error(b"-MOVED 1 a:1\r\n");
        stats.count_error(b"-EXECABORT\r\n");
        assert_eq!(stats.errors.counts().into_keys().collect::<Vec<_>>(), ["EXECABORT", "MOVED"]);
        assert_eq!(stats.name(stats.number(get)), "get");
        assert_eq!(stats.name(u32::MAX), "NULL");
    }
}
