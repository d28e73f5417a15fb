//! The keyspace: 16384 buckets behind their locks, counters, and the graveyard.
//!
//! Hot path. `apply` is the only way to change keys; it is called from `raft/` alone.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize};

use ahash::RandomState;
use parking_lot::{Mutex, RwLock};

use crate::clock::Timestamp;
use crate::keyspace::access;
use crate::keyspace::bucket::{Bucket, Context, Counted, WarmStep};
use crate::keyspace::prefetch::prefetch;
use crate::keyspace::table::SubTable;
use crate::keyspace::terms::{Applied, HashSecret, Position, SlotState};
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

/// Keys whose memory is fetched together: about as many fetches as a core has under way.
pub const WARMED_AT_ONCE: usize = 8;
const CELL_LINES: usize = 4;

#[derive(Debug)]
pub struct Keyspace {
    pub(super) cells: Box<[Cell]>,
    pub(super) context: Arc<Context>,
    /// One bit per slot, for those that route requests: what counts is the buckets' state, under their locks.
    owned: [AtomicU64; SLOT_COUNT / 64],
    /// Of owned buckets.
    totals: Totals,
    /// § Tables of cleared buckets, freed one per apply and by [`Keyspace::reclaim`]: freeing millions of keys at once
    /// would stall whoever does it.
    graveyard: Mutex<Vec<Arc<SubTable>>>,
    graves: AtomicUsize,
}

/// A bucket with what can be asked about it without its lock.
#[derive(Debug)]
#[repr(align(64))]
pub struct Cell {
    pub bucket: RwLock<Bucket>,
    /// None while it is not owned.
    pub keys: AtomicUsize,
    /// Lower bound of the bucket's earliest expiry.
    pub next_expiry: AtomicI64,
}

#[derive(Debug, Default)]
struct Totals {
    keys: AtomicI64,
    keys_with_ttl: AtomicI64,
    bytes: AtomicI64,
    expired: AtomicU64,
}

/// A relaxed reading of the counters; after writes have stopped they are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub keys: u64,
    pub keys_with_ttl: u64,
    /// Keys, values and records, without allocator overhead and spare room.
    pub bytes: u64,
    pub expired: u64,
}

impl Keyspace {
    pub fn new(secret: HashSecret) -> Self {
        let [a, b, c, d] = secret.0;
        let hasher = RandomState::with_seeds(a, b, c, d);
        let context = Arc::new(Context {
            hasher,
            seconds: AtomicU32::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        });
        let cell = |_| Cell {
            bucket: RwLock::new(Bucket::new(context.clone())),
            keys: AtomicUsize::new(0),
            next_expiry: AtomicI64::new(i64::MAX),
        };
        let cells = KeySlot::all().map(cell).collect();
        let (graveyard, graves) = (Mutex::default(), AtomicUsize::new(0));
        Self { cells, context, owned: Default::default(), totals: Totals::default(), graveyard, graves }
    }

    pub fn read<R>(&self, key_slot: KeySlot, read: impl FnOnce(&Bucket) -> R) -> R {
        read(&self.cells[key_slot.index()].bucket.read())
    }

    /// Fetches what applying to these keys will need. Their waits for memory overlap: a fetch holds up nothing, the lock of the next bucket would.
    pub fn warm(&self, keys: &[(KeySlot, &[u8])]) {
        let mut hashes = [0; WARMED_AT_ONCE];
        let keys = &keys[..keys.len().min(WARMED_AT_ONCE)];
        for (hash, (key_slot, key)) in hashes.iter_mut().zip(keys) {
            prefetch(&self.cells[key_slot.index()], CELL_LINES);
            *hash = self.context.hash(key);
        }
        for step in [WarmStep::Table, WarmStep::Records, WarmStep::Body] {
            for (hash, (key_slot, _)) in hashes.iter().zip(keys) {
                self.read(*key_slot, |bucket| bucket.warm(*hash, step));
            }
        }
    }

    /// Runs one op on a bucket. § Replay skips an op at or below the bucket's position, and the position is set under the
    /// same lock as the op's effect, so that an export can never show one without the other.
    pub fn apply<R>(&self, key_slot: KeySlot, position: Position, run: impl FnOnce(&mut Bucket) -> R) -> Applied<R> {
        self.change(key_slot, |bucket| {
            if bucket.position >= position {
                return Applied::Skipped;
            }
            match bucket.state {
                SlotState::Absent => Applied::NotOwned,
                SlotState::Owned => {
                    let result = run(bucket);
                    bucket.position = position;
                    Applied::Done(result)
                }
            }
        })
    }

    /// FLUSHALL's step on one bucket, skipped like any op. The emptied bucket keeps its position as a tombstone.
    pub fn flush(&self, key_slot: KeySlot, position: Position) {
        match self.apply(key_slot, position, Bucket::clear) {
            Applied::Skipped | Applied::NotOwned | Applied::Done(()) => (),
        }
    }

    /// Empties everything before a snapshot is installed: no keys, no positions, nothing owned.
    pub fn clear_for_import(&self) {
        for key_slot in KeySlot::all() {
            self.change(key_slot, |bucket| {
                bucket.clear();
                bucket.position = Position::default();
                bucket.state = SlotState::Absent;
            });
        }
        self.owned.iter().for_each(|word| word.store(0, Release));
    }

    pub fn set_state(&self, slot: Slot, state: SlotState) {
        slot.key_slots().for_each(|key_slot| self.change(key_slot, |bucket| bucket.state = state));
        let (word, bit) = (&self.owned[slot.index() / 64], 1 << (slot.index() % 64));
        match state {
            SlotState::Owned => word.fetch_or(bit, Release),
            SlotState::Absent => word.fetch_and(!bit, Release),
        };
    }

    /// Whether requests for the slot may be tried here.
    pub fn owns(&self, slot: Slot) -> bool {
        self.owned[slot.index() / 64].load(Acquire) & 1 << (slot.index() % 64) != 0
    }

    /// Empties a slot that is not owned, in one step per bucket that is skipped like any op. The buckets keep their positions.
    pub fn clear_slot(&self, slot: Slot, position: Position) {
        for key_slot in slot.key_slots() {
            self.change(key_slot, |bucket| {
                if bucket.position < position {
                    bucket.clear();
                    bucket.position = position;
                }
            });
        }
    }

    /// Keys and bytes of a slot, owned or not.
    pub fn slot_size(&self, slot: Slot) -> (u64, u64) {
        slot.key_slots().fold((0, 0), |(keys, bytes), key_slot| {
            let (len, size) = self.read(key_slot, |bucket| (bucket.len, bucket.totals.bytes));
            (keys + len as u64, bytes + size.max(0) as u64)
        })
    }

    /// The state of a slot's first bucket; all 16 change together but for a moment.
    pub fn slot_state(&self, slot: Slot) -> SlotState {
        let first = slot.key_slots().next().expect("a slot has sixteen key slots");
        self.read(first, Bucket::state)
    }

    /// Advances the seconds given to the access marks of new entries.
    pub fn set_access_clock(&self, now: Timestamp) {
        self.context.seconds.fetch_max(access::seconds(now), Relaxed);
    }

    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicI64| counter.load(Relaxed).max(0) as u64;
        Counters {
            keys: read(&self.totals.keys),
            keys_with_ttl: read(&self.totals.keys_with_ttl),
            bytes: read(&self.totals.bytes),
            expired: self.totals.expired.load(Relaxed),
        }
    }

    /// Reads that found their key and reads that did not, since the process started.
    pub fn lookups(&self) -> (u64, u64) {
        (self.context.hits.load(Relaxed), self.context.misses.load(Relaxed))
    }

    pub fn keys_in_slot(&self, key_slot: KeySlot) -> usize {
        self.cells[key_slot.index()].keys.load(Relaxed)
    }

    /// Frees up to `tables` sub-tables (of at most 1,000 keys) of cleared buckets; true when more remain.
    pub fn reclaim(&self, tables: usize) -> bool {
        for _ in 0..tables {
            let Some(table) = self.graveyard.lock().pop() else { return false };
            self.graves.fetch_sub(1, Relaxed);
            drop(table);
        }
        self.graves.load(Relaxed) > 0
    }

    /// Changes a bucket under its write lock and settles the books; what it threw away is freed after the lock.
    pub(super) fn change<R>(&self, key_slot: KeySlot, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let cell = &self.cells[key_slot.index()];
        let mut bucket = cell.bucket.write();
        let before = bucket.counted();
        let result = change(&mut bucket);
        let tally = std::mem::take(&mut bucket.tally);
        let (garbage, discarded) = (std::mem::take(&mut bucket.garbage), std::mem::take(&mut bucket.discarded));
        bucket.totals.keys_with_ttl += tally.keys_with_ttl;
        bucket.totals.bytes += tally.bytes;
        let after = bucket.counted();
        cell.keys.store(after.keys as usize, Relaxed);
        if bucket.earliest_noted < cell.next_expiry.load(Relaxed) {
            cell.next_expiry.store(bucket.earliest_noted, Relaxed);
        }
        bucket.earliest_noted = i64::MAX;
        drop(bucket);
        drop(discarded);
        self.totals.add(&before, &after, tally.expired);
        if !garbage.is_empty() {
            self.graves.fetch_add(garbage.len(), Relaxed);
            self.graveyard.lock().extend(garbage);
        } else if self.graves.load(Relaxed) > 0 {
            self.reclaim(1);
        }
        result
    }
}

impl Totals {
    fn add(&self, before: &Counted, after: &Counted, expired: u64) {
        let counters = [
            (&self.keys, after.keys - before.keys),
            (&self.keys_with_ttl, after.keys_with_ttl - before.keys_with_ttl),
            (&self.bytes, after.bytes - before.bytes),
        ];
        for (counter, change) in counters {
            if change != 0 {
                counter.fetch_add(change, Relaxed);
            }
        }
        if expired != 0 {
            self.expired.fetch_add(expired, Relaxed);
        }
    }
}
