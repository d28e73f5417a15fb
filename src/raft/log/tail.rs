//! One group's log in memory: everything that is not purged. Hot path.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::raft::types::{Entry, LogId, Vote};

/// What an entry costs beside its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

#[derive(Debug, Clone, Default)]
pub struct Tail {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub snapshot: Option<LogId>,
    entries: VecDeque<Entry>,
    bytes: u64,
}

/// Entries that do not continue the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {found} does not follow entry {last}")]
pub struct Gap {
    pub last: u64,
    pub found: u64,
}

pub fn entry_bytes(entry: &Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(batch) => batch.0.len() as u64,
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

impl Tail {
    pub fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    /// Index of the entry that comes next.
    fn next_index(&self) -> Option<u64> {
        self.last().map(|log_id| log_id.index + 1)
    }

    pub fn push(&mut self, entry: Entry) -> Result<(), Gap> {
        let found = entry.log_id.index;
        match self.next_index() {
            Some(next) if next != found => return Err(Gap { last: next.saturating_sub(1), found }),
            Some(_) | None => (),
        }
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
        Ok(())
    }

    /// At recovery: a later record of an index replaces what was there.
    pub fn replay(&mut self, entry: Entry) -> Result<(), Gap> {
        if self.purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
            return Ok(());
        }
        self.truncate_from(entry.log_id.index);
        self.push(entry)
    }

    /// Drops entries from `index` on.
    pub fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= index) {
            let entry = self.entries.pop_back().expect("there is a last one");
            self.bytes -= entry_bytes(&entry);
        }
    }

    /// Drops entries up to `log_id`.
    pub fn purge(&mut self, log_id: LogId) {
        while self.first_index().is_some_and(|first| first <= log_id.index) {
            let entry = self.entries.pop_front().expect("there is a first one");
            self.bytes -= entry_bytes(&entry);
        }
        // The same index with another term replaces what recovery assumed of segments that are gone.
        if self.purged.is_none_or(|purged| purged.index <= log_id.index) {
            self.purged = Some(log_id);
        }
    }

    /// Entries in [start, end), as far as they are here.
    pub fn range(&self, start: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first_index().unwrap_or(0);
        let from = (start.max(first) - first) as usize;
        let to = (end.max(first) - first) as usize;
        let length = self.entries.len();
        self.entries.range(from.min(length)..to.clamp(from.min(length), length))
    }
}
