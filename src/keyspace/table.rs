//! A sub-table: up to 1,000 records in ascending order of hash.
//!
//! Hot path. A sorted vector instead of a hash table: hashes are uniform, so interpolation lands within a few records of
//! the right one; SCAN and splits need the order anyway; and there are no empty slots to pay for (an eighth spare).

use crate::keyspace::record::Record;

/// § Splitting, copying or scanning one sub-table is the largest step taken under a bucket's lock.
pub const RECORDS_MAX: usize = 1000;
/// Neighbours that together hold fewer are merged.
pub const MERGE_RECORDS_MAX: usize = RECORDS_MAX / 4;

const _: () = assert!(RECORDS_MAX * crate::keyspace::record::INLINE_BYTES_MAX <= 256 * 1024);

#[derive(Debug, Clone, Default)]
pub struct SubTable {
    records: Vec<Record>,
}

/// The hashes that a sub-table covers, both inclusive.
#[derive(Debug, Clone, Copy)]
pub struct HashRange {
    pub first: u32,
    pub last: u32,
}

impl SubTable {
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Record {
        &mut self.records[index]
    }

    /// Index of the key's record, or where it belongs.
    pub(super) fn find(&self, range: HashRange, hash: u32, key: &[u8]) -> Result<usize, usize> {
        let mut index = self.lower_bound(range, hash);
        while let Some(record) = self.records.get(index)
            && record.hash == hash
        {
            if record.key() == key {
                return Ok(index);
            }
            index += 1;
        }
        Err(index)
    }

    /// Where the hash should be, as hashes are uniform.
    fn guess(&self, range: HashRange, hash: u32) -> usize {
        let width = u64::from(range.last - range.first) + 1;
        let guess = u64::from(hash.saturating_sub(range.first)) * self.records.len() as u64 / width;
        (guess as usize).min(self.records.len())
    }

    /// The records around where the hash should be.
    pub(super) fn near(&self, range: HashRange, hash: u32) -> &[Record] {
        &self.records[self.guess(range, hash).saturating_sub(2)..]
    }

    /// Index of the first record whose hash is at least `hash`.
    pub(super) fn lower_bound(&self, range: HashRange, hash: u32) -> usize {
        let mut index = self.guess(range, hash);
        while index > 0 && self.records[index - 1].hash >= hash {
            index -= 1;
        }
        while index < self.records.len() && self.records[index].hash < hash {
            index += 1;
        }
        index
    }

    pub(super) fn insert(&mut self, index: usize, record: Record) {
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(self.records.len() / 8 + 4);
        }
        self.records.insert(index, record);
    }

    pub(super) fn remove(&mut self, index: usize) -> Record {
        let record = self.records.remove(index);
        if self.records.len() < self.records.capacity() / 2 {
            self.records.shrink_to(self.records.len() + self.records.len() / 8);
        }
        record
    }

    /// The upper half of an overfull table, cut between two different hashes; `None` when there is no such place.
    pub(super) fn split(&mut self) -> Option<Self> {
        let middle = self.records.len() / 2;
        let hash = self.records[middle].hash;
        let mut cut = self.records.partition_point(|record| record.hash < hash);
        if cut == 0 {
            cut = self.records.partition_point(|record| record.hash <= hash);
        }
        if cut == self.records.len() {
            return None;
        }
        let mut records = Vec::with_capacity(self.records.len() - cut + self.records.len() / 8);
        records.extend(self.records.drain(cut..));
        self.records.shrink_to(cut + cut / 8);
        Some(Self { records })
    }

    pub(super) fn append(&mut self, mut upper: Self) {
        self.records.append(&mut upper.records);
    }

    /// Milliseconds of the earliest expiry, `i64::MAX` without any.
    pub(super) fn next_expiry(&self) -> i64 {
        self.records.iter().filter_map(|record| record.expire_at()).map(|at| at.0).min().unwrap_or(i64::MAX)
    }
}
