//! One group's log since its purge point: the newest entries in memory, where to find the others on disk. Hot path.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::raft::log::format::payload;
use crate::raft::log::place::{Found, Place};
use crate::raft::types::{Entry, LogId, Vote};

/// What an entry costs beside its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 64;
/// Of the newest entries, large ones stay in memory: they are still to be sent and applied. There are more than a leader has under way.
pub const LARGE_KEPT: usize = 16;

#[derive(Clone, Default)]
pub struct Tail {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub snapshot: Option<LogId>,
    entries: VecDeque<Kept>,
    /// Bytes of all entries ever purged: where the first one here begins.
    purged_bytes: u64,
    /// Of `entries`, from the oldest on, how many have been moved to disk or cannot be.
    moved: usize,
    /// Of payloads in memory that can leave it, once they are written.
    memory_bytes: u64,
}

/// An entry, and the bytes of all entries up to and with it: what a range holds is one subtraction.
#[derive(Clone)]
struct Kept {
    held: Held,
    end: u64,
}

#[derive(Clone)]
enum Held {
    /// Not yet written, for all that is known here.
    Queued(Entry),
    Written(Entry, Place),
    /// Written, and nothing worth reading back.
    Stays(Entry),
    Moved {
        log_id: LogId,
        length: usize,
        place: Place,
    },
}

/// Entries that do not continue the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {found} does not follow entry {last}")]
pub struct Gap {
    pub last: u64,
    pub found: u64,
}

pub fn entry_bytes(entry: &Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES + payload(entry).len() as u64
}

pub fn found_bytes(found: &Found) -> u64 {
    match found {
        Found::Here(entry) => entry_bytes(entry),
        Found::Away { length, .. } => ENTRY_OVERHEAD_BYTES + *length as u64,
    }
}

impl Kept {
    fn log_id(&self) -> LogId {
        match &self.held {
            Held::Queued(entry) | Held::Written(entry, _) | Held::Stays(entry) => entry.log_id,
            Held::Moved { log_id, .. } => *log_id,
        }
    }

    fn memory_bytes(&self) -> u64 {
        match &self.held {
            Held::Queued(entry) | Held::Written(entry, _) => payload(entry).len() as u64,
            // What cannot leave must not drive out what could stay.
            Held::Stays(_) | Held::Moved { .. } => 0,
        }
    }

    fn found(&self) -> Found {
        match &self.held {
            Held::Queued(entry) | Held::Written(entry, _) | Held::Stays(entry) => Found::Here(entry.clone()),
            Held::Moved { log_id, length, place } => {
                Found::Away { log_id: *log_id, length: *length, place: place.clone() }
            }
        }
    }
}

impl Tail {
    pub fn last(&self) -> Option<LogId> {
        self.entries.back().map(Kept::log_id).or(self.purged)
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.end() - self.purged_bytes
    }

    /// Bytes of the entries that no snapshot covers.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.end() - self.end_of(self.snapshot.map_or(0, |snapshot| snapshot.index + 1))
    }

    /// Index of the last entry that the snapshot covers and that is not among the newest `bytes` of those; at most `entries` of them go
    /// at a time. `None` when there is nothing to purge.
    pub fn purgeable(&self, bytes: u64, entries: usize) -> Option<u64> {
        let first = self.first_index()?;
        let covered = self.snapshot?.index + 1;
        let keep_from = self.end_of(covered).saturating_sub(bytes);
        let count = self.entries.partition_point(|kept| kept.log_id().index < covered && kept.end <= keep_from);
        (count > 0).then(|| first + count.min(entries) as u64 - 1)
    }

    fn end(&self) -> u64 {
        self.entries.back().map_or(self.purged_bytes, |kept| kept.end)
    }

    /// Where the entries before `index` end.
    fn end_of(&self, index: u64) -> u64 {
        let Some(before) = index.checked_sub(1 + self.first_index().unwrap_or(0)) else { return self.purged_bytes };
        usize::try_from(before).ok().and_then(|before| self.entries.get(before)).map_or(self.end(), |kept| kept.end)
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|kept| kept.log_id().index)
    }

    fn last_here(&self) -> Option<u64> {
        self.entries.back().map(|kept| kept.log_id().index)
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
        let end = self.end() + entry_bytes(&entry);
        let kept = Kept { held: Held::Queued(entry), end };
        self.memory_bytes += kept.memory_bytes();
        self.entries.push_back(kept);
        Ok(())
    }

    /// The entry is written; without a place, it stays in memory. Another may be in its stead by now.
    pub fn written(&mut self, log_id: LogId, place: Option<Place>) {
        let Some(number) = self.first_index().and_then(|first| log_id.index.checked_sub(first)) else { return };
        let kept = usize::try_from(number).ok().and_then(|number| self.entries.get_mut(number));
        if let Some(Kept { held, .. }) = kept
            && let Held::Queued(entry) = held
            && entry.log_id == log_id
        {
            let entry = Entry { log_id, payload: std::mem::replace(&mut entry.payload, EntryPayload::Blank) };
            *held = match place {
                Some(place) => Held::Written(entry, place),
                None => {
                    self.memory_bytes -= payload(&entry).len() as u64;
                    Held::Stays(entry)
                }
            };
        }
    }

    /// Keeps at most about `bytes` of payloads in memory, or the newest `LARGE_KEPT` entries if those are more: the oldest that are written
    /// are read back if they are asked for. At most `entries` go at a time.
    pub fn move_to_disk(&mut self, bytes: u64, entries: usize) {
        for _ in 0..entries {
            if self.memory_bytes <= bytes {
                return;
            }
            let newer = self.entries.len() - self.moved;
            let Some(kept) = self.entries.get_mut(self.moved) else { return };
            match &kept.held {
                Held::Queued(_) => return,
                Held::Written(_, Place::Parts(_)) if newer <= LARGE_KEPT => return,
                Held::Stays(_) | Held::Moved { .. } => (),
                Held::Written(entry, place) => {
                    let (log_id, length) = (entry.log_id, payload(entry).len());
                    self.memory_bytes -= length as u64;
                    kept.held = Held::Moved { log_id, length, place: place.clone() };
                }
            }
            self.moved += 1;
        }
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
        while self.last_here().is_some_and(|last| last >= index) {
            let dropped = self.entries.pop_back().expect("there is a last one");
            self.memory_bytes -= dropped.memory_bytes();
        }
        self.moved = self.moved.min(self.entries.len());
    }

    /// Drops entries up to `log_id`.
    pub fn purge(&mut self, log_id: LogId) {
        while self.first_index().is_some_and(|first| first <= log_id.index) {
            let dropped = self.entries.pop_front().expect("there is a first one");
            self.purged_bytes = dropped.end;
            self.memory_bytes -= dropped.memory_bytes();
            self.moved = self.moved.saturating_sub(1);
        }
        // The same index with another term replaces what recovery assumed of segments that are gone.
        if self.purged.is_none_or(|purged| purged.index <= log_id.index) {
            self.purged = Some(log_id);
        }
    }

    /// Entries in [start, end), as far as they are here.
    pub fn range(&self, start: u64, end: u64) -> impl Iterator<Item = Found> {
        let first = self.first_index().unwrap_or(0);
        let from = (start.max(first) - first) as usize;
        let to = (end.max(first) - first) as usize;
        let length = self.entries.len();
        self.entries.range(from.min(length)..to.clamp(from.min(length), length)).map(Kept::found)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::raft::types::{Batch, LeaderId};

    const EACH: u64 = 1000;

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn push(tail: &mut Tail, indexes: std::ops::Range<u64>) {
        for index in indexes {
            let bytes = Bytes::from(vec![0; (EACH - ENTRY_OVERHEAD_BYTES) as usize]);
            let payload = EntryPayload::Normal(Batch(bytes));
            tail.push(Entry { log_id: log_id(index), payload }).expect("follows");
        }
    }

    #[test]
    fn bytes_since_the_snapshot_are_those_of_entries_behind_it() {
        let mut tail = Tail::default();
        push(&mut tail, 0..10);
        assert_eq!((tail.bytes(), tail.bytes_since_snapshot()), (10 * EACH, 10 * EACH));
        for (snapshot, since) in [(0, 9), (4, 5), (9, 0), (20, 0)] {
            tail.snapshot = Some(log_id(snapshot));
            assert_eq!(tail.bytes_since_snapshot(), since * EACH, "snapshot at {snapshot}");
        }
        tail.snapshot = Some(log_id(4));
        tail.purge(log_id(2));
        assert_eq!((tail.bytes(), tail.bytes_since_snapshot()), (7 * EACH, 5 * EACH));
        tail.truncate_from(8);
        push(&mut tail, 8..9);
        assert_eq!((tail.bytes(), tail.bytes_since_snapshot()), (6 * EACH, 4 * EACH));
        tail.purge(log_id(30));
        assert_eq!((tail.bytes(), tail.bytes_since_snapshot()), (0, 0));
    }

    #[test]
    fn what_a_snapshot_covers_may_go_but_for_its_newest_bytes() {
        let mut tail = Tail::default();
        push(&mut tail, 0..20);
        assert_eq!(tail.purgeable(0, 100), None, "there is no snapshot");
        tail.snapshot = Some(log_id(9));
        for (bytes, entries, last) in [
            (0, 100, Some(9)),
            (1, 100, Some(8)),
            (3 * EACH, 100, Some(6)),
            (3 * EACH, 2, Some(1)),
            (10 * EACH, 100, None),
            (u64::MAX, 100, None),
        ] {
            assert_eq!(tail.purgeable(bytes, entries), last, "{bytes} bytes, {entries} entries");
        }
        tail.purge(log_id(6));
        assert_eq!((tail.purgeable(3 * EACH, 100), tail.purgeable(EACH, 100)), (None, Some(8)));
        // Installed from the leader: past all that is here.
        tail.snapshot = Some(log_id(50));
        assert_eq!(tail.purgeable(3 * EACH, 100), Some(16));
    }
}
