//! Snapshots: a bucket's state, taken under the read lock in a few microseconds and encoded outside it.
//!
//! ```text
//! piece:   key slot u16 | state u8 (0 absent, 1 owned) | position index u64 | position op u32 | records u32 | record ...
//! record:  flags u8 (1 expires, 2 edited) | key length u32 | value length u32 | mark u32 | [expire_at i64] | key | value
//! ```
//! Integers are little-endian. A bucket is one piece or several, each complete in itself; hashes are not in it, since they
//! differ between machines.

use std::sync::Arc;

use crate::keyspace::record::Record;
use crate::keyspace::store::Keyspace;
use crate::keyspace::table::SubTable;
use crate::keyspace::terms::{Position, SlotState, Value};
use crate::slot::KeySlot;

/// A piece ends with the record that reaches this.
const PIECE_BYTES: usize = 192 * 1024;
pub const FLAG_EXPIRES: u8 = 1;
pub const FLAG_EDITED: u8 = 2;

/// A bucket as it was when exported. While it lives, writers copy the sub-tables they touch.
#[derive(Debug, Clone)]
pub struct BucketExport {
    key_slot: KeySlot,
    position: Position,
    state: SlotState,
    tables: Vec<Arc<SubTable>>,
    table: usize,
    record: usize,
    started: bool,
}

impl Keyspace {
    pub fn export(&self, key_slot: KeySlot) -> BucketExport {
        self.read(key_slot, |bucket| BucketExport {
            key_slot,
            position: bucket.position,
            state: bucket.state,
            tables: bucket.tables.iter().map(|reference| reference.table.clone()).collect(),
            table: 0,
            record: 0,
            started: false,
        })
    }
}

impl BucketExport {
    pub fn key_slot(&self) -> KeySlot {
        self.key_slot
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn state(&self) -> SlotState {
        self.state
    }

    pub fn tables(&self) -> &[Arc<SubTable>] {
        &self.tables
    }

    /// Appends the next piece, at most 256 KiB unless one large record is more; false when there is none left. A bucket
    /// that was never written makes no piece, an emptied one makes a piece without records: its tombstone.
    pub fn encode_into(&mut self, out: &mut Vec<u8>) -> bool {
        let untouched = self.position == Position::default() && self.state == SlotState::Absent;
        if self.table == self.tables.len() && (self.started || (self.tables.is_empty() && untouched)) {
            return false;
        }
        self.started = true;
        let start = out.len();
        out.extend_from_slice(&self.key_slot.get().to_le_bytes());
        out.push(match self.state {
            SlotState::Absent => 0,
            SlotState::Owned => 1,
        });
        out.extend_from_slice(&self.position.index.to_le_bytes());
        out.extend_from_slice(&self.position.op.to_le_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0u32;
        while let Some(table) = self.tables.get(self.table)
            && out.len() - start < PIECE_BYTES
        {
            match table.records().get(self.record) {
                // A large record starts its own piece.
                Some(record) if count > 0 && out.len() - start + record.value_len() > PIECE_BYTES + 8192 => break,
                Some(record) => {
                    encode(record, out);
                    count += 1;
                    self.record += 1;
                }
                None => (self.table, self.record) = (self.table + 1, 0),
            }
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        self.skip_ended_tables();
        true
    }

    fn skip_ended_tables(&mut self) {
        while self.tables.get(self.table).is_some_and(|table| self.record == table.len()) {
            (self.table, self.record) = (self.table + 1, 0);
        }
    }
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let (traits, key, value) = (record.traits(), record.key(), record.value());
    let expires = if traits.expire_at.is_some() { FLAG_EXPIRES } else { 0 };
    out.push(expires | if traits.edited { FLAG_EDITED } else { 0 });
    for length in [key.len(), value.len()] {
        out.extend_from_slice(&u32::try_from(length).expect("strings are limited to 512 MB").to_le_bytes());
    }
    out.extend_from_slice(&record.mark.bits().to_le_bytes());
    if let Some(at) = traits.expire_at {
        out.extend_from_slice(&at.0.to_le_bytes());
    }
    out.extend_from_slice(key);
    encode_value(record, out);
}

fn encode_value(record: &Record, out: &mut Vec<u8>) {
    match record.value() {
        Value::Slice(bytes) => out.extend_from_slice(bytes),
        Value::Shared(value) => value.pieces(0..value.len()).for_each(|piece| out.extend_from_slice(&piece)),
    }
}
