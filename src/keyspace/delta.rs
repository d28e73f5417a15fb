//! What has changed in a bucket between two exports: what a slot that moves sends to its new group.
//!
//! ```text
//! change:  flags u8 (1 expires, 2 edited, 4 removed, 8 part) | key length u32 | mark u32 | offset u32 | length u32 | [expire_at i64] | key | bytes
//! ```
//! Integers are little-endian. A value longer than [`PIECE_BYTES`] comes as its first piece, then as parts that are written into it. `stage.rs` reads
//! this back.
//!
//! The older export holds what was sent, so sub-tables that nobody has written since are still the same memory and are passed over
//! without a look, and so are the pieces of a large value that was edited. A bucket of millions of keys costs what was changed in it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::keyspace::export::{BucketExport, FLAG_EDITED, FLAG_EXPIRES};
use crate::keyspace::record::Record;
use crate::keyspace::rope::{PIECE_BYTES, SharedValue};
use crate::keyspace::table::SubTable;
use crate::keyspace::terms::Value;

pub const FLAG_REMOVED: u8 = 4;
pub const FLAG_PART: u8 = 8;
const HEADER_BYTES_MAX: usize = 25;

/// Records compared before others get a turn.
const LOOKS_MAX: usize = 4096;

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded {
    /// There are no more changes.
    All,
    /// The next one does not fit this page.
    Full,
    /// It has looked at enough for now.
    Paused,
}

/// See the module's text.
#[derive(Debug)]
pub struct Delta {
    older: Option<BucketExport>,
    newer: BucketExport,
    older_at: Cursor,
    newer_at: Cursor,
    /// Found and not yet encoded.
    found: VecDeque<Change>,
    /// Where the value of the first of `found` goes on.
    offset: usize,
}

/// Where a record is in an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    table: usize,
    record: usize,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Put { newer: Cursor, older: Option<Cursor> },
    Removed { older: Cursor },
}

impl Delta {
    /// `older` of `None`: everything.
    pub fn new(older: Option<BucketExport>, newer: BucketExport) -> Self {
        let older = older.filter(|older| !older.tables().is_empty());
        let (older_at, newer_at) = (Cursor::default(), Cursor::default());
        Self { older, newer, older_at, newer_at, found: VecDeque::new(), offset: 0 }
    }

    /// What the next delta begins from, once this one has been sent to its end.
    pub fn into_newer(self) -> BucketExport {
        self.newer
    }

    /// Appends changes to `page`, which may have `page_bytes_max`; a change that is longer is a page of its own.
    pub fn encode_into(&mut self, page: &mut Vec<u8>, page_bytes_max: usize) -> Encoded {
        let mut looks = 0;
        loop {
            let Some(change) = self.found.front().copied() else {
                if looks == LOOKS_MAX {
                    return Encoded::Paused;
                }
                looks += 1;
                if !self.find() {
                    return Encoded::All;
                }
                continue;
            };
            let length = self.key_of(change).len();
            if !page.is_empty() && page.len() + HEADER_BYTES_MAX + length + self.next_bytes(change) > page_bytes_max {
                return Encoded::Full;
            }
            if self.encode(change, page) {
                self.found.pop_front();
                self.offset = 0;
            }
        }
    }

    fn older_tables(&self) -> &[Arc<SubTable>] {
        self.older.as_ref().map_or(&[], BucketExport::tables)
    }

    fn older_record(&self, at: Cursor) -> &Record {
        &self.older_tables()[at.table].records()[at.record]
    }

    fn newer_record(&self, at: Cursor) -> &Record {
        &self.newer.tables()[at.table].records()[at.record]
    }

    fn key_of(&self, change: Change) -> &[u8] {
        match change {
            Change::Put { newer, .. } => self.newer_record(newer).key(),
            Change::Removed { older } => self.older_record(older).key(),
        }
    }

    fn next_bytes(&self, change: Change) -> usize {
        match change {
            Change::Put { newer, .. } => {
                let record = self.newer_record(newer);
                (record.value_len() - self.offset).min(part_bytes(record))
            }
            Change::Removed { .. } => 0,
        }
    }

    /// Goes on to the next hash; false at the end.
    fn find(&mut self) -> bool {
        loop {
            let older = settle(&mut self.older_at, self.older.as_ref().map_or(&[], BucketExport::tables));
            let newer = settle(&mut self.newer_at, self.newer.tables());
            match (older, newer) {
                (Some(older), Some(newer)) if self.at_same_table(&older, &newer) => {
                    self.older_at = Cursor { table: self.older_at.table + 1, record: 0 };
                    self.newer_at = Cursor { table: self.newer_at.table + 1, record: 0 };
                }
                (None, None) => return false,
                (_, _) => {
                    self.find_in_runs();
                    return true;
                }
            }
        }
    }

    fn at_same_table(&self, older: &Arc<SubTable>, newer: &Arc<SubTable>) -> bool {
        self.older_at.record == 0 && self.newer_at.record == 0 && Arc::ptr_eq(older, newer)
    }

    /// Compares the records of the smallest hash on either side. Those of one hash are in one sub-table.
    fn find_in_runs(&mut self) {
        let hash_at = |tables: &[Arc<SubTable>], at: Cursor| Some(tables.get(at.table)?.records()[at.record].hash);
        let hashes = [hash_at(self.older_tables(), self.older_at), hash_at(self.newer.tables(), self.newer_at)];
        let hash = hashes.into_iter().flatten().min().expect("one side has a record");
        let older_run = run(self.older_tables(), self.older_at, hash);
        let newer_run = run(self.newer.tables(), self.newer_at, hash);
        for newer in newer_run.clone() {
            let record = self.newer_record(newer);
            let older = older_run.clone().find(|older| self.older_record(*older).key() == record.key());
            if older.is_none_or(|older| !is_same(self.older_record(older), record)) {
                self.found.push_back(Change::Put { newer, older });
            }
        }
        for older in older_run.clone() {
            let key = self.older_record(older).key();
            if !newer_run.clone().any(|newer| self.newer_record(newer).key() == key) {
                self.found.push_back(Change::Removed { older });
            }
        }
        self.older_at.record += older_run.count();
        self.newer_at.record += newer_run.count();
    }

    /// Appends the change, or its next part; true when that was the last.
    fn encode(&mut self, change: Change, page: &mut Vec<u8>) -> bool {
        let (newer, older) = match change {
            Change::Removed { older } => {
                head(self.older_record(older), FLAG_REMOVED, 0, 0, page);
                return true;
            }
            Change::Put { newer, older } => (newer, older),
        };
        let record = self.newer_record(newer);
        let length = record.value_len();
        // Written into only where it was changed, if it can have been.
        let edited = older.map(|older| self.older_record(older)).filter(|older| {
            let before = older.value_len();
            before > PIECE_BYTES && before <= length
        });
        let mut at = self.offset;
        if let Some(older) = edited {
            while at + PIECE_BYTES < length && is_same_part(older, record, at) {
                at += PIECE_BYTES;
            }
        }
        let end = length.min(at + part_bytes(record));
        let part = if at > 0 || edited.is_some() { FLAG_PART } else { 0 };
        head(record, part, at, end - at, page);
        match record.value() {
            Value::Slice(bytes) => page.extend_from_slice(&bytes[at..end]),
            Value::Shared(value) => value.pieces(at..end).for_each(|piece| page.extend_from_slice(&piece)),
        }
        self.offset = end;
        end == length
    }
}

/// How much of a value goes into one change. Each names the key, so a long key takes as much of its value along.
fn part_bytes(record: &Record) -> usize {
    PIECE_BYTES * (record.key().len() / PIECE_BYTES).max(1)
}

/// Moves a cursor past the end of its sub-table; the sub-table it is in then.
fn settle(at: &mut Cursor, tables: &[Arc<SubTable>]) -> Option<Arc<SubTable>> {
    while tables.get(at.table).is_some_and(|table| at.record == table.len()) {
        *at = Cursor { table: at.table + 1, record: 0 };
    }
    tables.get(at.table).cloned()
}

/// The records of one hash from a cursor on.
fn run(tables: &[Arc<SubTable>], at: Cursor, hash: u32) -> impl Iterator<Item = Cursor> + Clone + use<> {
    let rest = tables.get(at.table).map_or(&[][..], |table| &table.records()[at.record..]);
    let count = rest.iter().take_while(|record| record.hash == hash).count();
    (at.record..at.record + count).map(move |record| Cursor { table: at.table, record })
}

/// Access marks apart, which change without a write. A large value is the same if it is the same memory: neither is changed in place while the
/// exports live.
fn is_same(older: &Record, newer: &Record) -> bool {
    let same_value = || match (older.value(), newer.value()) {
        (Value::Slice(older), Value::Slice(newer)) => older == newer,
        (Value::Shared(older), Value::Shared(newer)) => {
            older.len() == newer.len() && is_same_memory(&older, &newer, 0, newer.len())
        }
        (Value::Slice(_), Value::Shared(_)) | (Value::Shared(_), Value::Slice(_)) => false,
    };
    older.traits() == newer.traits() && same_value()
}

fn is_same_part(older: &Record, newer: &Record, at: usize) -> bool {
    let end = at + PIECE_BYTES;
    match (older.value(), newer.value()) {
        (Value::Shared(older), Value::Shared(newer)) => end <= older.len() && is_same_memory(&older, &newer, at, end),
        (Value::Slice(_), _) | (_, Value::Slice(_)) => false,
    }
}

fn is_same_memory(older: &SharedValue, newer: &SharedValue, start: usize, end: usize) -> bool {
    let place = |bytes: bytes::Bytes| (bytes.as_ptr(), bytes.len());
    let piece_starts = (start..end).step_by(PIECE_BYTES);
    piece_starts.map(|start| start..end.min(start + PIECE_BYTES)).all(|range| {
        let (older, newer) = (older.pieces(range.clone()), newer.pieces(range));
        older.map(place).eq(newer.map(place))
    })
}

fn head(record: &Record, flags: u8, offset: usize, length: usize, page: &mut Vec<u8>) {
    let traits = record.traits();
    let expires = if traits.expire_at.is_some() { FLAG_EXPIRES } else { 0 };
    page.push(flags | expires | if traits.edited { FLAG_EDITED } else { 0 });
    let number = |number: usize| u32::try_from(number).expect("strings are limited to 512 MB").to_le_bytes();
    page.extend_from_slice(&number(record.key().len()));
    page.extend_from_slice(&record.mark.bits().to_le_bytes());
    page.extend_from_slice(&number(offset));
    page.extend_from_slice(&number(length));
    if let Some(at) = traits.expire_at {
        page.extend_from_slice(&at.0.to_le_bytes());
    }
    page.extend_from_slice(record.key());
}
