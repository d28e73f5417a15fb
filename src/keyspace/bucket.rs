//! One key slot's data: position, ownership and sub-tables, all under one lock.
//!
//! Hot path. Mutations are called from apply alone, through `Keyspace::apply`, which holds the write lock and afterwards
//! takes the tally and the garbage out. Sub-tables lie in ascending order of hash and cover all hashes without gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::keyspace::access::{self, AccessMark};
use crate::keyspace::entry::{Entry, Lookup};
use crate::keyspace::prefetch::prefetch;
use crate::keyspace::record::{Discarded, Record, Traits};
use crate::keyspace::rope::Patch;
use crate::keyspace::table::{HashRange, MERGE_RECORDS_MAX, RECORDS_MAX, SubTable};
use crate::keyspace::terms::{Position, SlotState, Time, Value};

/// What all buckets of a keyspace share.
#[derive(Debug)]
pub struct Context {
    pub hasher: RandomState,
    /// Seconds for the marks of new entries; advanced by stamps and clocks seen, since apply reads no clock.
    pub seconds: AtomicU32,
    /// Reads that found their key, and that did not. Of this process; not replicated.
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

impl Context {
    pub fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }
}

/// Changes to the counters during one apply.
#[derive(Debug, Default)]
pub struct Tally {
    pub keys_with_ttl: i64,
    pub bytes: i64,
    pub expired: u64,
}

/// A bucket's part of the keyspace's counters: nothing unless it is owned.
#[derive(Debug, Default)]
pub struct Counted {
    pub keys: i64,
    pub keys_with_ttl: i64,
    pub bytes: i64,
}

#[derive(Debug)]
pub struct TableRef {
    pub first: u32,
    /// Lower bound of the earliest expiry in the table, raised by the scan for due keys under the read lock.
    pub next_expiry: AtomicI64,
    pub table: Arc<SubTable>,
}

#[derive(Debug)]
pub struct Bucket {
    pub(super) position: Position,
    pub(super) state: SlotState,
    /// Most buckets have one: that is found without another wait for memory.
    pub(super) tables: SmallVec<[TableRef; 1]>,
    pub(super) len: usize,
    pub(super) tally: Tally,
    /// Sums of the tallies of earlier applies: what a clear takes off the counters without visiting the records.
    pub(super) totals: Tally,
    pub(super) garbage: Vec<Arc<SubTable>>,
    pub(super) discarded: Vec<Discarded>,
    /// Earliest expiry set during this apply.
    pub(super) earliest_noted: i64,
    context: Arc<Context>,
}

/// In this order.
#[derive(Debug, Clone, Copy)]
pub enum WarmStep {
    Table,
    Records,
    Body,
}

/// Where a key's record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    table: usize,
    record: usize,
}

impl Bucket {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            position: Position::default(),
            state: SlotState::Absent,
            tables: SmallVec::new(),
            len: 0,
            tally: Tally::default(),
            totals: Tally::default(),
            garbage: Vec::new(),
            discarded: Vec::new(),
            earliest_noted: i64::MAX,
            context,
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// § To be checked under the same lock as the read it guards.
    pub fn state(&self) -> SlotState {
        self.state
    }

    /// Number of keys, those past due included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, key: &[u8], time: Time) -> Lookup<'_> {
        let miss = || {
            self.context.misses.fetch_add(1, Relaxed);
            Lookup::Miss
        };
        let Ok(place) = self.find(self.hash(key), key) else { return miss() };
        let record = self.record(place);
        match record.expire_at() {
            Some(at) if at <= time.stamp => miss(),
            // Looked up again when the log has decided.
            Some(at) if at <= time.clock => Lookup::Due,
            Some(_) | None => {
                self.context.hits.fetch_add(1, Relaxed);
                Lookup::Hit(Entry::new(record))
            }
        }
    }

    /// As `get`, and not counted. Written out, since `get` by way of this takes more instructions.
    pub fn peek(&self, key: &[u8], time: Time) -> Lookup<'_> {
        let Ok(place) = self.find(self.hash(key), key) else { return Lookup::Miss };
        let record = self.record(place);
        match record.expire_at() {
            Some(at) if at <= time.stamp => Lookup::Miss,
            Some(at) if at <= time.clock => Lookup::Due,
            Some(_) | None => Lookup::Hit(Entry::new(record)),
        }
    }

    /// Length of the key's value, 0 if there is none alive at `stamp`.
    pub fn value_len(&self, key: &[u8], stamp: Timestamp) -> usize {
        let record = self.find(self.hash(key), key).ok().map(|place| self.record(place));
        let live = record.filter(|record| record.expire_at().is_none_or(|at| at > stamp));
        live.map_or(0, Record::value_len)
    }

    /// The key's entry unless it is dead at `stamp`, in which case it is removed and counted as expired. Marks it as used, as Redis does,
    /// whatever comes of the write.
    pub fn live(&mut self, key: &[u8], stamp: Timestamp) -> Option<Entry<'_>> {
        let place = self.find_live(key, stamp)?;
        Some(Entry::new(self.record(place)))
    }

    /// The same for a write that answers with the value: counted as a read.
    pub fn live_read(&mut self, key: &[u8], stamp: Timestamp) -> Option<Entry<'_>> {
        let place = self.find_live(key, stamp);
        let counter = if place.is_some() { &self.context.hits } else { &self.context.misses };
        counter.fetch_add(1, Relaxed);
        Some(Entry::new(self.record(place?)))
    }

    /// Creates or replaces the key, its value and its expiry.
    pub fn insert(&mut self, key: &[u8], value: Value<'_>, expire_at: Option<Timestamp>) {
        let hash = self.hash(key);
        let traits = Traits { expire_at, edited: false };
        match self.find(hash, key) {
            Ok(place) => self.change(place, |record| record.set_value(value, traits)),
            Err(place) => {
                let mark = AccessMark::new(self.context.seconds.load(Relaxed));
                self.insert_record(place, Record::new(hash, mark, key, value, traits));
            }
        }
    }

    /// False when there is no such key. An expiry in the past leaves the key to its next touch or to the collection.
    pub fn set_expire(&mut self, key: &[u8], expire_at: Option<Timestamp>) -> bool {
        let Ok(place) = self.find(self.hash(key), key) else { return false };
        self.change(place, |record| {
            record.set_expire(expire_at);
            None
        });
        true
    }

    /// True when the key was there and alive at `stamp`; a dead one is removed too, and counted as expired.
    pub fn remove(&mut self, key: &[u8], stamp: Timestamp) -> bool {
        let Some(place) = self.find_live(key, stamp) else { return false };
        self.remove_at(place);
        true
    }

    /// Writes into the key's value, padding with zeroes up to the patch, creating the key; keeps its expiry. The new length.
    pub fn write(&mut self, key: &[u8], stamp: Timestamp, patch: Patch<'_>) -> usize {
        let end = patch.end();
        let Some(place) = self.find_live(key, stamp) else {
            self.insert(key, patch.into_value(), None);
            return end;
        };
        self.change(place, |record| Some(record.write(patch)));
        self.record(place).value_len()
    }

    /// Removes all keys. § Nothing is freed here: the tables go to the keyspace's graveyard.
    pub fn clear(&mut self) {
        self.tally.keys_with_ttl = -self.totals.keys_with_ttl;
        self.tally.bytes = -self.totals.bytes;
        self.len = 0;
        self.garbage.extend(std::mem::take(&mut self.tables).into_iter().map(|table| table.table));
    }

    /// With every tally settled.
    pub(super) fn counted(&self) -> Counted {
        match self.state {
            SlotState::Absent => Counted::default(),
            SlotState::Owned => {
                let Tally { keys_with_ttl, bytes, expired: _ } = self.totals;
                Counted { keys: self.len as i64, keys_with_ttl, bytes }
            }
        }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        self.context.hash(key)
    }

    pub(super) fn table_of(&self, hash: u32) -> usize {
        self.tables.partition_point(|table| table.first <= hash).saturating_sub(1)
    }

    pub(super) fn range(&self, table: usize) -> HashRange {
        let last = self.tables.get(table + 1).map_or(u32::MAX, |next| next.first - 1);
        HashRange { first: self.tables[table].first, last }
    }

    /// Fetches what `find` will look at next; each step knows where that is once the step before it has come.
    pub(super) fn warm(&self, hash: u32, step: WarmStep) {
        let table = self.table_of(hash);
        let Some(reference) = self.tables.get(table) else { return };
        match step {
            WarmStep::Table => prefetch(&*reference.table, 1),
            WarmStep::Records => prefetch(reference.table.near(self.range(table), hash), 2),
            WarmStep::Body => {
                let at = reference.table.lower_bound(self.range(table), hash);
                if let Some(record) = reference.table.records().get(at) {
                    record.warm();
                }
            }
        }
    }

    fn find(&self, hash: u32, key: &[u8]) -> Result<Place, Place> {
        let table = self.table_of(hash);
        let Some(reference) = self.tables.get(table) else { return Err(Place { table, record: 0 }) };
        match reference.table.find(self.range(table), hash, key) {
            Ok(record) => Ok(Place { table, record }),
            Err(record) => Err(Place { table, record }),
        }
    }

    fn find_live(&mut self, key: &[u8], stamp: Timestamp) -> Option<Place> {
        let seconds = access::seconds(stamp);
        self.context.seconds.fetch_max(seconds, Relaxed);
        let place = self.find(self.hash(key), key).ok()?;
        let record = self.record(place);
        if record.expire_at().is_some_and(|at| at <= stamp) {
            self.remove_at(place);
            self.tally.expired += 1;
            return None;
        }
        record.mark.touch_by_second(seconds);
        Some(place)
    }

    fn record(&self, place: Place) -> &Record {
        &self.tables[place.table].table.records()[place.record]
    }

    fn change(&mut self, place: Place, change: impl FnOnce(&mut Record) -> Option<Discarded>) {
        let reference = &mut self.tables[place.table];
        // Copy-on-write: an export may hold the table.
        let record = Arc::make_mut(&mut reference.table).get_mut(place.record);
        self.tally.subtract(record);
        if let Some(discarded) = change(record)
            && discarded.is_slow_to_free()
        {
            self.discarded.push(discarded);
        }
        self.tally.add(record);
        let expire_at = record.expire_at();
        self.earliest_noted = self.earliest_noted.min(reference.note_expiry(expire_at));
    }

    pub(super) fn insert_restored(&mut self, record: Record) {
        match self.find(record.hash, record.key()) {
            Ok(place) => self.change(place, |old| Some(std::mem::replace(old, record).discard())),
            Err(place) => self.insert_record(place, record),
        }
    }

    /// A further part of a value that comes in parts, the first of which was restored as a record.
    pub(super) fn write_restored(&mut self, key: &[u8], mark: AccessMark, patch: Patch<'_>, traits: Traits) {
        let hash = self.hash(key);
        match self.find(hash, key) {
            Ok(place) => self.change(place, |record| Some(record.write_part(patch, traits))),
            Err(place) => self.insert_record(place, Record::new(hash, mark, key, patch.into_value(), traits)),
        }
    }

    pub(super) fn remove_restored(&mut self, key: &[u8]) {
        if let Ok(place) = self.find(self.hash(key), key) {
            self.remove_at(place);
        }
    }

    fn insert_record(&mut self, place: Place, record: Record) {
        if self.tables.is_empty() {
            self.tables.push(TableRef::new(0, Arc::default()));
        }
        self.tally.add(&record);
        self.len += 1;
        let reference = &mut self.tables[place.table];
        self.earliest_noted = self.earliest_noted.min(reference.note_expiry(record.expire_at()));
        let table = Arc::make_mut(&mut reference.table);
        table.insert(place.record, record);
        if table.len() > RECORDS_MAX
            && let Some(upper) = table.split()
        {
            let next_expiry = reference.next_expiry.load(Relaxed);
            let upper = TableRef::new(upper.records()[0].hash, Arc::new(upper));
            // The bound of the whole is a bound of its half, and needs no look at the records.
            upper.next_expiry.store(next_expiry, Relaxed);
            self.tables.insert(place.table + 1, upper);
        }
    }

    fn remove_at(&mut self, place: Place) {
        let table = Arc::make_mut(&mut self.tables[place.table].table);
        let record = table.remove(place.record);
        let len = table.len();
        self.tally.subtract(&record);
        self.len -= 1;
        let discarded = record.discard();
        if discarded.is_slow_to_free() {
            self.discarded.push(discarded);
        }
        if self.len == 0 {
            self.tables = SmallVec::new();
        } else if len < MERGE_RECORDS_MAX / 2 {
            self.merge(place.table);
        }
    }

    /// Joins a shrunken table with its upper neighbour, or the lower one if it is the last.
    fn merge(&mut self, table: usize) {
        let lower = if table + 1 < self.tables.len() { table } else { table.saturating_sub(1) };
        let Some(upper) = self.tables.get(lower + 1) else { return };
        if self.tables[lower].table.len() + upper.table.len() > MERGE_RECORDS_MAX {
            return;
        }
        let upper = self.tables.remove(lower + 1);
        self.tables[lower].next_expiry.fetch_min(upper.next_expiry.load(Relaxed), Relaxed);
        let records = Arc::try_unwrap(upper.table).unwrap_or_else(|shared| (*shared).clone());
        Arc::make_mut(&mut self.tables[lower].table).append(records);
    }

    /// Lower bound of the earliest expiry in the bucket, in milliseconds.
    pub(super) fn next_expiry(&self) -> i64 {
        self.tables.iter().map(|table| table.next_expiry.load(Relaxed)).min().unwrap_or(i64::MAX)
    }
}

impl TableRef {
    fn new(first: u32, table: Arc<SubTable>) -> Self {
        Self { first, next_expiry: AtomicI64::new(i64::MAX), table }
    }

    /// Lowers the bound; the expiry in milliseconds, `i64::MAX` without one.
    fn note_expiry(&mut self, expire_at: Option<Timestamp>) -> i64 {
        let at = expire_at.map_or(i64::MAX, |at| at.0);
        let bound = self.next_expiry.get_mut();
        *bound = at.min(*bound);
        at
    }
}

impl Tally {
    fn add(&mut self, record: &Record) {
        self.bytes += record.memory_bytes() as i64;
        self.keys_with_ttl += i64::from(record.expire_at().is_some());
    }

    fn subtract(&mut self, record: &Record) {
        self.bytes -= record.memory_bytes() as i64;
        self.keys_with_ttl -= i64::from(record.expire_at().is_some());
    }
}
