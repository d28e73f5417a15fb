//! A keyspace that takes in every delta of another one holds the same, whatever happens between them.

use crate::clock::Timestamp;
use crate::keyspace::{
    BucketExport, Delta, Encoded, HashSecret, Keyspace, PIECE_BYTES, Patch, Position, SlotState, Value,
};
use crate::random::simulated::Chance;
use crate::slot::{KeySlot, Slot};

/// Two ends of a move of one slot.
struct Pair {
    source: Keyspace,
    target: Keyspace,
    slot: Slot,
    key_slot: KeySlot,
    index: u64,
    sent: Option<BucketExport>,
    /// More than is asked for, where a change is.
    page_bytes_most: usize,
}

const PAGE_BYTES: usize = 2 * PIECE_BYTES;

impl Pair {
    fn new() -> Self {
        let key_slot = KeySlot::of_key(b"{t}");
        let slot = key_slot.slot();
        let (source, target) = (Keyspace::new(HashSecret([1; 4])), Keyspace::new(HashSecret([2; 4])));
        source.set_state(slot, SlotState::Owned);
        Self { source, target, slot, key_slot, index: 0, sent: None, page_bytes_most: PAGE_BYTES }
    }

    fn write(&mut self, change: impl FnOnce(&mut crate::keyspace::Bucket)) {
        self.index += 1;
        let position = Position { index: self.index, op: 0 };
        assert!(matches!(self.source.apply(self.key_slot, position, change), crate::keyspace::Applied::Done(())));
    }

    /// One pass; bytes sent.
    fn pass(&mut self) -> usize {
        let mut delta = Delta::new(self.sent.take(), self.source.export(self.key_slot));
        let mut sent = 0;
        loop {
            let mut page = Vec::new();
            let done = delta.encode_into(&mut page, PAGE_BYTES);
            assert!(page.len() <= self.page_bytes_most);
            sent += page.len();
            self.index += 1;
            self.target.stage(self.slot, Position { index: self.index, op: 0 }, &page).expect("sound");
            if done == Encoded::All {
                break;
            }
        }
        self.sent = Some(delta.into_newer());
        sent
    }

    fn check(&self) {
        assert_eq!(self.source.slot_size(self.slot).0, self.target.slot_size(self.slot).0);
        self.target.set_state(self.slot, SlotState::Owned);
        assert_eq!(self.source.digest(), self.target.digest());
        assert_eq!(self.source.counters().keys, self.target.counters().keys);
        assert_eq!(self.source.counters().keys_with_ttl, self.target.counters().keys_with_ttl);
        self.target.set_state(self.slot, SlotState::Absent);
        assert_eq!(self.target.counters().keys, 0, "what is not owned does not count");
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("{{t}}{number}").into_bytes()
}

#[test]
fn passes_over_a_bucket_that_changes_end_with_the_same_data() {
    let mut pair = Pair::new();
    let mut chance = Chance(7);
    for round in 0..30 {
        for _ in 0..200 {
            let (key, kind, length) = (key(chance.below(3000)), chance.below(6), chance.below(300) as usize);
            pair.write(|bucket| match kind {
                0..=2 => bucket.insert(&key, Value::Slice(&vec![round; length]), None),
                3 => bucket.insert(&key, Value::Slice(b"v"), Some(Timestamp(5_000))),
                4 => drop(bucket.remove(&key, Timestamp(0))),
                _ => drop(bucket.set_expire(&key, Some(Timestamp(i64::from(round) + 9_000)))),
            });
        }
        if round % 7 == 6 {
            pair.write(crate::keyspace::Bucket::clear);
        }
        pair.pass();
        pair.check();
    }
}

#[test]
fn a_pass_costs_what_was_changed_and_not_what_is_there() {
    let mut pair = Pair::new();
    for number in 0..20_000 {
        pair.write(|bucket| bucket.insert(&key(number), Value::Slice(&[7; 100]), None));
    }
    assert!(pair.pass() > 2_000_000);
    assert_eq!(pair.pass(), 0);
    pair.write(|bucket| bucket.insert(&key(5), Value::Slice(&[8; 100]), None));
    pair.write(|bucket| assert!(bucket.remove(&key(6), Timestamp(0))));
    assert!(pair.pass() < 400);
    pair.check();
}

#[test]
fn a_large_value_comes_in_parts_and_again_only_where_it_was_edited() {
    let mut pair = Pair::new();
    let value: Vec<u8> = (0..3_000_000u32).map(|byte| byte as u8).collect();
    pair.write(|bucket| bucket.insert(&key(1), Value::Slice(&value), Some(Timestamp(9_000))));
    assert!(pair.pass() > 3_000_000);
    pair.check();
    let encoding = |keyspace: &Keyspace, pair: &Pair| {
        let time = crate::keyspace::Time::new(Timestamp(0), Timestamp(0));
        keyspace.read(pair.key_slot, |bucket| match bucket.get(&key(1), time) {
            crate::keyspace::Lookup::Hit(entry) => entry.encoding(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(encoding(&pair.source, &pair), encoding(&pair.target, &pair));
    // At both ends, past the end, and its expiry alone.
    for (offset, length) in [(5, 10), (2_999_000, 1000), (3_000_000, 200_000)] {
        let bytes = vec![9; length];
        pair.write(|bucket| {
            bucket.write(&key(1), Timestamp(0), Patch::new(offset, &bytes));
        });
        let sent = pair.pass();
        assert!(sent < 4 * PIECE_BYTES, "{sent} bytes for an edit of {length} at {offset}");
        pair.check();
    }
    pair.write(|bucket| assert!(bucket.set_expire(&key(1), None)));
    assert!(pair.pass() < 2 * PIECE_BYTES);
    pair.check();
    // Shorter, and then not a large one any more.
    for length in [1_000_000, 300_000, 10] {
        pair.write(|bucket| bucket.insert(&key(1), Value::Slice(&vec![3; length]), None));
        pair.pass();
        pair.check();
    }
}

#[test]
fn a_page_is_skipped_by_a_bucket_that_holds_it_already() {
    let mut pair = Pair::new();
    pair.write(|bucket| bucket.insert(&key(1), Value::Slice(b"old"), None));
    pair.pass();
    let at = pair.target.read(pair.key_slot, crate::keyspace::Bucket::position);
    let mut page = Vec::new();
    let empty = Keyspace::new(HashSecret([1; 4])).export(pair.key_slot);
    assert_eq!(Delta::new(pair.sent.clone(), empty).encode_into(&mut page, PAGE_BYTES), Encoded::All);
    pair.target.stage(pair.slot, at, &page).unwrap();
    pair.check();
    pair.target.stage(pair.slot, Position { index: at.index, op: at.op + 1 }, &page).unwrap();
    assert_eq!(pair.target.slot_size(pair.slot).0, 0);
    pair.target.clear_slot(pair.slot, at);
    assert_eq!(pair.target.read(pair.key_slot, crate::keyspace::Bucket::position).op, at.op + 1);
}

#[test]
fn damaged_pages_are_refused() {
    let mut pair = Pair::new();
    pair.write(|bucket| bucket.insert(&key(1), Value::Slice(b"v"), None));
    let mut page = Vec::new();
    Delta::new(None, pair.source.export(pair.key_slot)).encode_into(&mut page, PAGE_BYTES);
    let at = Position { index: 100, op: 0 };
    for length in 1..page.len() {
        assert!(pair.target.stage(pair.slot, at, &page[..length]).is_err());
    }
    let elsewhere = Slot::all().find(|slot| *slot != pair.slot).unwrap();
    assert!(pair.target.stage(elsewhere, at, &page).is_err());
    assert_eq!(pair.target.slot_size(pair.slot).0, 0);
}

#[test]
fn keys_that_fit_no_page_have_pages_of_their_own_and_take_as_much_of_their_value_along() {
    let mut pair = Pair::new();
    let long = |number: u64| [key(number), vec![b'x'; 5 * PIECE_BYTES]].concat();
    pair.page_bytes_most = 11 * PIECE_BYTES;
    for number in 0..3 {
        pair.write(|bucket| bucket.insert(&key(number), Value::Slice(b"v"), None));
        pair.write(|bucket| bucket.insert(&long(number), Value::Slice(&vec![7; number as usize * 1_000_000]), None));
    }
    let sent = pair.pass();
    let needed = 3 * 5 * PIECE_BYTES + 3_000_000;
    assert!((needed..2 * needed).contains(&sent), "{sent} bytes for {needed}");
    pair.check();
    pair.write(|bucket| assert!(bucket.set_expire(&long(2), None)));
    pair.write(|bucket| assert!(bucket.remove(&long(1), Timestamp(0))));
    pair.pass();
    pair.check();
}
