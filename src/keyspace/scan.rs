//! SCAN, KEYS, RANDOMKEY and the listing of a key slot.
//!
//! A cursor is (key slot, hash) in ascending order and says nothing of tables, so it stays true through inserts, splits
//! and merges: a key that is there from start to end of a scan is passed exactly once. The lock is let go after each
//! sub-table.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::keyspace::entry::Entry;
use crate::keyspace::store::Keyspace;
use crate::keyspace::terms::{SlotState, Time};
use crate::slot::{KEY_SLOT_COUNT, KeySlot};

const RANDOM_TRIES_MAX: u64 = 100;
/// § The key that reaches this is the last one passed under one hold of a read lock, or the last one of its hash.
pub const KEY_BYTES_PER_LOCK: usize = 128 * 1024;

/// ```text
/// 0 (18 bits) | key slot (14 bits) | hash of the next key (32 bits)
/// ```
/// Zero is both the start and the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCursor(pub u64);

impl ScanCursor {
    fn at(key_slot: usize, hash: u32) -> Self {
        Self((key_slot as u64) << 32 | u64::from(hash))
    }

    /// The cursor of a client: `None` when its key slot does not exist.
    fn split(self) -> Option<(usize, u32)> {
        let key_slot = usize::try_from(self.0 >> 32).ok().filter(|key_slot| *key_slot < KEY_SLOT_COUNT)?;
        Some((key_slot, self.0 as u32))
    }
}

impl Keyspace {
    /// Visits at least `count` keys of owned buckets that `owned` accepts (fewer only at the end), all keys of an equal
    /// hash together, keys past due included. The cursor to go on from; zero at the end, and for one that is nonsense.
    pub fn scan(
        &self,
        cursor: ScanCursor,
        owned: impl Fn(KeySlot) -> bool,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Entry<'_>),
    ) -> ScanCursor {
        let Some((start, mut hash)) = cursor.split() else { return ScanCursor::default() };
        let mut left = count.max(1);
        for key_slot in KeySlot::all().skip(start) {
            if self.keys_in_slot(key_slot) > 0 && owned(key_slot) {
                while let ControlFlow::Break(next) = self.scan_table(key_slot, hash, &mut left, visit) {
                    if left == 0 {
                        return ScanCursor::at(key_slot.index(), next);
                    }
                    hash = next;
                }
            }
            hash = 0;
            if left == 0 && key_slot.index() + 1 < KEY_SLOT_COUNT {
                return ScanCursor::at(key_slot.index() + 1, 0);
            }
        }
        ScanCursor::default()
    }

    /// Visits one sub-table from `hash` on, up to `left` keys of it; breaks with the hash to go on from in this bucket.
    pub(super) fn scan_table(
        &self,
        key_slot: KeySlot,
        hash: u32,
        left: &mut usize,
        visit: &mut dyn FnMut(&[u8], Entry<'_>),
    ) -> ControlFlow<u32> {
        let bucket = self.cells[key_slot.index()].bucket.read();
        // § Ownership is read under the same lock as the keys.
        if bucket.state != SlotState::Owned || bucket.is_empty() {
            return ControlFlow::Continue(());
        }
        let table = bucket.table_of(hash);
        let range = bucket.range(table);
        let records = bucket.tables[table].table.records();
        let (mut last, mut key_bytes) = (None, 0);
        for record in &records[bucket.tables[table].table.lower_bound(range, hash)..] {
            if (*left == 0 || key_bytes >= KEY_BYTES_PER_LOCK) && last != Some(record.hash) {
                return ControlFlow::Break(record.hash);
            }
            visit(record.key(), Entry::new(record));
            *left = left.saturating_sub(1);
            key_bytes += record.key().len();
            last = Some(record.hash);
        }
        match range.last.checked_add(1) {
            Some(next) => ControlFlow::Break(next),
            None => ControlFlow::Continue(()),
        }
    }

    /// Up to `count` keys of one key slot, in no order a client may count on.
    pub fn list_slot(&self, key_slot: KeySlot, count: usize) -> Vec<Bytes> {
        let mut keys = Vec::new();
        let mut left = count;
        let mut hash = 0;
        let mut visit = |_: &[u8], entry: Entry<'_>| keys.push(entry.shared_key());
        while left > 0
            && let ControlFlow::Break(next) = self.scan_table(key_slot, hash, &mut left, &mut visit)
        {
            hash = next;
        }
        keys.truncate(count);
        keys
    }

    /// A key alive at both times, about evenly drawn; `None` if a hundred draws find none.
    pub fn random_key(&self, seed: u64, time: Time) -> Option<Bytes> {
        (0..RANDOM_TRIES_MAX).find_map(|attempt| self.draw_key(draw(seed.wrapping_add(attempt)), time))
    }

    fn draw_key(&self, draw: u64, time: Time) -> Option<Bytes> {
        let total: usize = KeySlot::all().map(|key_slot| self.keys_in_slot(key_slot)).sum();
        let mut index = usize::try_from(draw.checked_rem(total as u64)?).ok()?;
        let key_slot = KeySlot::all().find(|key_slot| {
            let keys = self.keys_in_slot(*key_slot);
            let found = index < keys;
            index -= if found { 0 } else { keys };
            found
        })?;
        let bucket = self.cells[key_slot.index()].bucket.read();
        if bucket.state != SlotState::Owned || bucket.is_empty() {
            return None;
        }
        // § The sub-table of a random hash, not the one that counting through thousands of them would find: they cover as
        // much of the hashes as they have of the keys.
        let records = bucket.tables[bucket.table_of((draw >> 32) as u32)].table.records();
        let record = &records[index.checked_rem(records.len())?];
        let dead = record.expire_at().is_some_and(|at| at <= time.stamp.max(time.clock));
        (!dead).then(|| record.shared_key())
    }
}

/// SplitMix64.
fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
