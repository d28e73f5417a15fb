//! Tests of the keyspace as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::scan::KEY_BYTES_PER_LOCK;
use crate::keyspace::{
    Applied, Bucket, Encoding, Entry, HashSecret, Keyspace, Lookup, Patch, Position, ScanCursor, SlotState, Time, Value,
};
use crate::slot::{KeySlot, Slot};

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn owned_keyspace() -> Keyspace {
    let keyspace = Keyspace::new(HashSecret([1, 2, 3, 4]));
    Slot::all().for_each(|slot| keyspace.set_state(slot, SlotState::Owned));
    keyspace
}

fn at(index: u64) -> Position {
    Position { index, op: 0 }
}

fn time(ms: i64) -> Time {
    Time::new(Timestamp(ms), Timestamp(ms))
}

fn done<R>(applied: Applied<R>) -> R {
    match applied {
        Applied::Done(result) => result,
        Applied::Skipped => panic!("skipped"),
        Applied::NotOwned => panic!("not owned"),
    }
}

fn tagged(number: u64) -> Vec<u8> {
    format!("{{t}}{number}").into_bytes()
}

fn tag_slot() -> KeySlot {
    KeySlot::of_key(b"t")
}

fn put(keyspace: &Keyspace, index: u64, key: &[u8], value: &[u8], expire_at: Option<i64>) {
    let insert = |bucket: &mut Bucket| bucket.insert(key, Value::Slice(value), expire_at.map(Timestamp));
    done(keyspace.apply(KeySlot::of_key(key), at(index), insert));
}

fn contents(keyspace: &Keyspace) -> Model {
    let mut model = Model::new();
    let mut visit = |key: &[u8], entry: Entry<'_>| {
        let value = (bytes_of(entry), entry.expire_at().map(Timestamp::as_ms));
        assert!(model.insert(key.to_vec(), value).is_none(), "a key was passed twice");
    };
    let mut cursor = ScanCursor::default();
    loop {
        cursor = keyspace.scan(cursor, |_| true, 100, &mut visit);
        if cursor == ScanCursor::default() {
            return model;
        }
    }
}

fn bytes_of(entry: Entry<'_>) -> Vec<u8> {
    entry.value().into_shared().to_bytes().to_vec()
}

fn pieces(keyspace: &Keyspace, key_slot: KeySlot) -> Vec<Vec<u8>> {
    let mut export = keyspace.export(key_slot);
    std::iter::from_fn(|| {
        let mut piece = Vec::new();
        export.encode_into(&mut piece).then_some(piece)
    })
    .collect()
}

fn random_value(random: &mut Random) -> Vec<u8> {
    let length = match random.below(20) {
        0 => random.below(9000),
        1 => random.below(600),
        _ => random.below(40),
    };
    vec![random.below(256) as u8; length as usize]
}

/// One random op on both; the stamp moves on so that keys die.
fn step(random: &mut Random, bucket: &mut Bucket, model: &mut Model, stamp: i64, keys: u64) {
    let key = tagged(random.below(keys));
    let dead = model.get(&key).is_some_and(|(_, expire_at)| expire_at.is_some_and(|at| at <= stamp));
    let now = Timestamp(stamp);
    match random.below(12) {
        0..=3 => {
            let value = random_value(random);
            let expire_at = (random.below(3) == 0).then(|| stamp + 1 + random.below(3000) as i64);
            match random.below(2) {
                0 => bucket.insert(&key, Value::Slice(&value), expire_at.map(Timestamp)),
                _ => bucket.insert(&key, Value::Shared(Bytes::from(value.clone()).into()), expire_at.map(Timestamp)),
            }
            model.insert(key, (value, expire_at));
        }
        4..=5 => {
            let existed = model.remove(&key).is_some();
            assert_eq!(bucket.remove(&key, now), existed && !dead);
        }
        6 => {
            let expire_at = (random.below(2) == 0).then(|| stamp + 1 + random.below(3000) as i64);
            assert_eq!(bucket.set_expire(&key, expire_at.map(Timestamp)), model.contains_key(&key));
            if let Some(value) = model.get_mut(&key) {
                value.1 = expire_at;
            }
        }
        kind @ 7..=9 => {
            if dead {
                model.remove(&key);
            }
            let tail = random_value(random);
            let value = &mut model.entry(key.clone()).or_default().0;
            if kind == 7 {
                let offset = random.below(50) as usize;
                value.resize(value.len().max(offset + tail.len()), 0);
                value[offset..offset + tail.len()].copy_from_slice(&tail);
                assert_eq!(bucket.write(&key, now, Patch::new(offset, &tail)), value.len());
            } else {
                let patch = Patch::new(value.len(), &tail);
                assert_eq!(bucket.value_len(&key, now), value.len());
                value.extend_from_slice(&tail);
                assert_eq!(bucket.write(&key, now, patch), value.len());
            }
        }
        _ => {
            let expected = model.get(&key).filter(|_| !dead).map(|(value, _)| value.clone());
            match bucket.get(&key, time(stamp)) {
                Lookup::Hit(entry) => assert_eq!(Some(bytes_of(entry)), expected),
                Lookup::Miss => assert_eq!(expected, None),
                Lookup::Due => panic!("nothing is due when the clock is the stamp"),
            }
            assert_eq!(bucket.live(&key, now).map(bytes_of), expected);
            if dead {
                model.remove(&key);
            }
        }
    }
}

#[test]
fn random_ops_match_a_map() {
    for (seed, keys) in [(11, 50), (12, 4000), (13, 20_000)] {
        let (keyspace, mut model, mut random) = (owned_keyspace(), Model::new(), Random(seed));
        for index in 1..20_000 {
            let stamp = index as i64 / 4;
            done(keyspace.apply(tag_slot(), at(index), |bucket| step(&mut random, bucket, &mut model, stamp, keys)));
        }
        check_books(&keyspace, &model, seed);
        let mut index = 20_000;
        for key in model.keys().cloned().collect::<Vec<_>>() {
            if random.below(10) != 0 {
                done(keyspace.apply(tag_slot(), at(index), |bucket| bucket.remove(&key, Timestamp(0))));
                model.remove(&key);
                index += 1;
            }
        }
        check_books(&keyspace, &model, seed);
        keyspace.flush(tag_slot(), at(index));
        check_books(&keyspace, &Model::new(), seed);
        assert_eq!(keyspace.counters().bytes, 0);
        while keyspace.reclaim(1) {}
    }
}

fn check_books(keyspace: &Keyspace, model: &Model, seed: u64) {
    assert!(contents(keyspace) == *model, "seed {seed}");
    let counters = keyspace.counters();
    assert_eq!(counters.keys, model.len() as u64, "seed {seed}");
    assert_eq!(counters.keys_with_ttl, model.values().filter(|value| value.1.is_some()).count() as u64, "seed {seed}");
    assert_eq!(keyspace.keys_in_slot(tag_slot()), model.len());
    let mut bytes = 0;
    keyspace.scan(ScanCursor::default(), |_| true, usize::MAX, &mut |_, entry| bytes += entry.memory_bytes() as u64);
    assert_eq!(counters.bytes, bytes, "seed {seed}");
}

#[test]
fn an_op_at_or_below_the_position_is_skipped() {
    let keyspace = owned_keyspace();
    put(&keyspace, 5, b"k", b"v", None);
    let key_slot = KeySlot::of_key(b"k");
    for index in [4, 5] {
        assert_eq!(keyspace.apply(key_slot, at(index), |_| panic!("must not run")), Applied::<()>::Skipped);
    }
    assert_eq!(keyspace.apply(key_slot, Position { index: 5, op: 1 }, |_| ()), Applied::Done(()));
    keyspace.flush(key_slot, at(5));
    assert_eq!(keyspace.counters().keys, 1);
}

#[test]
fn an_absent_slot_takes_no_op_and_shows_no_key_to_scan() {
    let keyspace = owned_keyspace();
    put(&keyspace, 1, b"k", b"v", None);
    let key_slot = KeySlot::of_key(b"k");
    keyspace.set_state(key_slot.slot(), SlotState::Absent);
    assert_eq!(keyspace.apply(key_slot, at(2), |_| panic!("must not run")), Applied::<()>::NotOwned);
    assert_eq!(keyspace.read(key_slot, |bucket| (bucket.state(), bucket.position())), (SlotState::Absent, at(1)));
    assert!(contents(&keyspace).is_empty());
    assert_eq!(keyspace.random_key(1, time(0)), None);
}

#[test]
fn a_key_past_due_by_the_clock_alone_is_due_and_past_the_stamp_a_miss() {
    let keyspace = owned_keyspace();
    put(&keyspace, 1, b"k", b"v", Some(100));
    let look = |stamp, clock| {
        let time = Time::new(Timestamp(stamp), Timestamp(clock));
        keyspace.read(KeySlot::of_key(b"k"), |bucket| match bucket.get(b"k", time) {
            Lookup::Hit(_) => "hit",
            Lookup::Miss => "miss",
            Lookup::Due => "due",
        })
    };
    assert_eq!([look(99, 99), look(99, 100), look(100, 100), look(100, 99)], ["hit", "due", "miss", "miss"]);
}

#[test]
fn due_keys_are_collected_once_around_within_the_budget() {
    let keyspace = owned_keyspace();
    for number in 0..3000u64 {
        put(&keyspace, 2 * number + 1, &tagged(number), b"v", Some(1000 + number as i64));
        put(&keyspace, 2 * number + 2, format!("other{number}").as_bytes(), b"v", Some(10_000));
    }
    let collect = |clock, budget, resume: &mut KeySlot| {
        let mut out = Vec::new();
        keyspace.collect_due(Timestamp(clock), budget, resume, &mut out);
        out
    };
    let mut resume = KeySlot::new(16000).unwrap();
    assert!(collect(999, 10_000, &mut resume).is_empty());
    let due = collect(2999, 10_000, &mut resume);
    assert_eq!(due.len(), 2000);
    assert_eq!(collect(2999, 5, &mut resume).len(), 5);
    let mut index = 6000;
    for (key_slot, key) in due {
        index += 1;
        assert!(!done(keyspace.apply(key_slot, at(index), |bucket| bucket.remove(&key, Timestamp(2999)))));
    }
    assert!(collect(2999, 5, &mut resume).is_empty());
    assert_eq!(keyspace.counters().expired, 2000);
    assert_eq!(collect(3999, 10_000, &mut resume).len(), 1000);
}

#[test]
fn a_scan_passes_every_key_that_stays_while_others_come_and_go() {
    let (keyspace, mut random) = (owned_keyspace(), Random(5));
    let stay: BTreeSet<Vec<u8>> = (0..5000).map(tagged).collect();
    stay.iter().zip(1..).for_each(|(key, index)| put(&keyspace, index, key, b"v", None));
    let (mut seen, mut cursor, mut index) = (BTreeSet::new(), ScanCursor::default(), 6000);
    loop {
        cursor = keyspace.scan(cursor, |_| true, 10, &mut |key, _| {
            let fresh = seen.insert(key.to_vec());
            assert!(fresh || !stay.contains(key), "a key that stays is passed once");
        });
        if cursor == ScanCursor::default() {
            break;
        }
        for _ in 0..40 {
            index += 1;
            let key = tagged(10_000 + random.below(20_000));
            let grow = index % 10_000 < 7000;
            done(keyspace.apply(tag_slot(), at(index), |bucket| match grow {
                true => bucket.insert(&key, Value::Slice(b"x"), None),
                false => assert!(bucket.remove(&key, Timestamp(0)) || !grow),
            }));
        }
    }
    assert!(stay.is_subset(&seen));
}

#[test]
fn a_nonsense_cursor_ends_the_scan() {
    let keyspace = owned_keyspace();
    put(&keyspace, 1, b"k", b"v", None);
    for cursor in [u64::MAX, 16384 << 32] {
        let next = keyspace.scan(ScanCursor(cursor), |_| true, 10, &mut |_, _| panic!("nothing is there"));
        assert_eq!(next, ScanCursor::default());
    }
}

#[test]
fn an_export_keeps_the_state_it_was_taken_at_while_writes_go_on() {
    let (keyspace, mut model, mut random) = (owned_keyspace(), Model::new(), Random(77));
    for index in 1..30_000 {
        done(keyspace.apply(tag_slot(), at(index), |bucket| step(&mut random, bucket, &mut model, 0, 6000)));
    }
    let (mut export, expected) = (keyspace.export(tag_slot()), model.clone());
    let imported = Keyspace::new(HashSecret([9, 9, 9, 9]));
    let (mut piece, mut index, mut count) = (Vec::new(), 30_000, 0);
    while export.encode_into(&mut piece) {
        assert!(piece.len() <= 256 * 1024, "{}", piece.len());
        imported.import(&piece).unwrap();
        piece.clear();
        count += 1;
        for _ in 0..2000 {
            index += 1;
            done(keyspace.apply(tag_slot(), at(index), |bucket| step(&mut random, bucket, &mut model, 0, 9000)));
        }
    }
    assert!(count > 3);
    let restored = imported.read(tag_slot(), |bucket| (bucket.position(), bucket.state()));
    assert_eq!(restored, (at(29_999), SlotState::Absent), "who imports sets the owner when all of it is there");
    imported.set_state(tag_slot().slot(), SlotState::Owned);
    assert!(contents(&imported) == expected);
    assert!(contents(&keyspace) == model);
    // The same state again, and marks and encodings with it.
    let again = Keyspace::new(HashSecret([9, 9, 9, 9]));
    let exported = pieces(&imported, tag_slot());
    exported.iter().for_each(|piece| again.import(piece).unwrap());
    again.set_state(tag_slot().slot(), SlotState::Owned);
    assert_eq!(pieces(&again, tag_slot()), exported);
    assert_eq!(again.counters(), imported.counters());
}

#[test]
fn an_emptied_bucket_is_exported_as_a_tombstone() {
    let keyspace = owned_keyspace();
    put(&keyspace, 7, b"k", b"v", None);
    keyspace.flush(KeySlot::of_key(b"k"), at(9));
    let exported = pieces(&keyspace, KeySlot::of_key(b"k"));
    assert_eq!(exported.len(), 1);
    let imported = Keyspace::new(HashSecret([1; 4]));
    imported.import(&exported[0]).unwrap();
    assert_eq!(imported.read(KeySlot::of_key(b"k"), Bucket::position), at(9));
    imported.clear_for_import();
    assert!(pieces(&imported, KeySlot::of_key(b"k")).is_empty());
}

#[test]
fn damaged_pieces_are_errors_and_never_panics() {
    let keyspace = owned_keyspace();
    for number in 0..20 {
        put(&keyspace, number + 1, &tagged(number), &vec![7; number as usize * 30], (number % 2 == 0).then_some(9));
    }
    let piece = pieces(&keyspace, tag_slot()).remove(0);
    let imported = Keyspace::new(HashSecret([1; 4]));
    for cut in 0..piece.len() {
        assert!(imported.import(&piece[..cut]).is_err(), "cut at {cut}");
        assert_eq!(imported.counters().keys, 0, "half a piece was stored");
    }
    for place in 0..piece.len() {
        for bit in [0x01, 0x80] {
            let mut flipped = piece.clone();
            flipped[place] ^= bit;
            // A flipped value is for the file's checksum to find; here it must only not panic.
            let _ = imported.import(&flipped);
        }
    }
    let trailing = [&piece[..], &[0]].concat();
    assert_eq!(imported.import(&trailing), Err(super::ImportError::Trailing(1)));
}

#[test]
fn encodings_are_those_of_redis() {
    let keyspace = owned_keyspace();
    let encoding = |key: &[u8]| {
        keyspace.read(tag_slot(), |bucket| match bucket.get(key, time(0)) {
            Lookup::Hit(entry) => entry.encoding(),
            Lookup::Miss | Lookup::Due => panic!("it is there"),
        })
    };
    put(&keyspace, 1, b"{t}i", b"12", None);
    put(&keyspace, 2, b"{t}e", &[b'x'; 44], None);
    put(&keyspace, 3, b"{t}r", &[b'x'; 45], None);
    assert_eq!(
        [encoding(b"{t}i"), encoding(b"{t}e"), encoding(b"{t}r")],
        [Encoding::Int, Encoding::Embstr, Encoding::Raw]
    );
    done(keyspace.apply(tag_slot(), at(4), |bucket| bucket.write(b"{t}i", Timestamp(0), Patch::new(2, b"3"))));
    assert_eq!(encoding(b"{t}i"), Encoding::Raw);
}

#[test]
fn a_large_value_is_shared_not_copied_and_survives_its_snapshot_in_pieces() {
    let keyspace = owned_keyspace();
    let value = Bytes::from((0..1_000_000u32).map(|number| number as u8).collect::<Vec<_>>());
    let insert = |bucket: &mut Bucket| bucket.insert(b"{t}", Value::Shared(value.clone().into()), None);
    done(keyspace.apply(tag_slot(), at(1), insert));
    let read = |keyspace: &Keyspace| {
        keyspace.read(tag_slot(), |bucket| match bucket.get(b"{t}", time(0)) {
            Lookup::Hit(entry) => (entry.value().into_shared(), entry.encoding(), entry.memory_bytes()),
            Lookup::Miss | Lookup::Due => panic!("it is there"),
        })
    };
    let before = read(&keyspace).0;
    assert_eq!(before.to_bytes().as_ptr(), value.as_ptr());
    done(keyspace.apply(tag_slot(), at(2), |bucket| bucket.write(b"{t}", Timestamp(0), Patch::new(999_999, b"xyz"))));
    let (edited, _, memory_bytes) = read(&keyspace);
    assert_eq!(before.to_bytes(), value, "a reader keeps what it read");
    assert_eq!(edited.to_bytes(), [&value[..999_999], b"xyz"].concat());
    assert!((1_000_002..1_300_000).contains(&memory_bytes), "{memory_bytes}");
    let imported = Keyspace::new(HashSecret([1; 4]));
    pieces(&keyspace, tag_slot()).iter().for_each(|piece| imported.import(piece).unwrap());
    let (restored, encoding, _) = read(&imported);
    assert_eq!((restored.to_bytes(), encoding), (edited.to_bytes(), Encoding::Raw));
}

#[test]
fn flushing_a_huge_bucket_frees_nothing_under_its_lock() {
    let keyspace = owned_keyspace();
    (0..20_000).for_each(|number| put(&keyspace, number + 1, &tagged(number), b"v", None));
    let export = keyspace.export(tag_slot());
    assert!(export.tables().iter().all(|table| table.len() <= 1000));
    assert!(export.tables().len() >= 20);
    drop(export);
    keyspace.flush(tag_slot(), at(30_000));
    assert_eq!(keyspace.counters(), Default::default());
    assert!(keyspace.reclaim(1), "the tables wait in the graveyard");
    while keyspace.reclaim(100) {}
}

#[test]
fn one_hold_of_a_lock_touches_little_of_a_huge_bucket() {
    let keyspace = owned_keyspace();
    let long =
        |number: u64| [&tagged(number)[..], &vec![b'k'; if number.is_multiple_of(9) { 3000 } else { 5000 }]].concat();
    for number in 0..30_000u64 {
        let key = if number.is_multiple_of(10) { long(number) } else { tagged(number) };
        put(&keyspace, number + 1, &key, b"v", Some(5));
    }
    let (mut hash, mut left, mut holds, mut seen) = (0, usize::MAX, 0, 0);
    loop {
        let (mut keys, mut bytes) = (0, 0);
        let next = keyspace.scan_table(tag_slot(), hash, &mut left, &mut |key, entry| {
            assert_eq!(entry.shared_key(), key);
            assert!(key.len() < 4096 || entry.shared_key().as_ptr() == key.as_ptr(), "a long key was copied");
            (keys, bytes) = (keys + 1, bytes + key.len());
        });
        assert!(keys <= 1000 && bytes <= KEY_BYTES_PER_LOCK + 5020, "{keys} keys of {bytes} bytes");
        (holds, seen) = (holds + 1, seen + keys);
        let ControlFlow::Break(next) = next else { break };
        hash = next;
    }
    assert_eq!((seen, left), (30_000, usize::MAX - 30_000));
    assert!(holds > 30, "{holds}");
    let addresses = || keyspace.export(tag_slot()).tables().iter().map(Arc::as_ptr).collect::<BTreeSet<_>>();
    let (mut random, mut model) = (Random(3), Model::new());
    for index in 40_000..41_000 {
        let (before, export) = (addresses(), keyspace.export(tag_slot()));
        done(keyspace.apply(tag_slot(), at(index), |bucket| step(&mut random, bucket, &mut model, 0, 1)));
        assert!(addresses().difference(&before).count() <= 2, "a write copies what it touches of an exported bucket");
        drop(export);
    }
}

#[test]
fn due_keys_of_many_bytes_are_collected_over_several_calls() {
    let keyspace = owned_keyspace();
    let key = |number: u64| [&tagged(number)[..], &[b'k'; 3000]].concat();
    (0..200).for_each(|number| put(&keyspace, number + 1, &key(number), b"v", Some(5)));
    let (mut index, mut calls) = (1000, 0);
    while keyspace.counters().keys > 0 {
        let mut due = Vec::new();
        keyspace.collect_due(Timestamp(5), 10_000, &mut KeySlot::new(0).unwrap(), &mut due);
        assert!(!due.is_empty() && due.len() <= KEY_BYTES_PER_LOCK / 3000 + 1, "{}", due.len());
        for (key_slot, key) in due {
            index += 1;
            done(keyspace.apply(key_slot, at(index), |bucket| bucket.remove(&key, Timestamp(5))));
        }
        calls += 1;
    }
    assert_eq!(calls, 5);
}

#[test]
fn random_keys_of_a_huge_bucket_are_drawn_evenly() {
    let keyspace = owned_keyspace();
    (0..1100).for_each(|number| put(&keyspace, number + 1, &tagged(number), b"v", None));
    let mut drawn = BTreeMap::new();
    for seed in 0..1000 {
        *drawn.entry(keyspace.random_key(seed, time(0)).unwrap()).or_insert(0) += 1;
    }
    // Even draws find 657 of them.
    assert!(drawn.len() > 600, "{} different keys", drawn.len());
    assert!(drawn.values().all(|times| *times < 10));
}

#[test]
fn random_key_finds_live_keys_only() {
    let keyspace = owned_keyspace();
    assert_eq!(keyspace.random_key(3, time(0)), None);
    put(&keyspace, 1, b"dead", b"v", Some(10));
    put(&keyspace, 1, b"alive", b"v", None);
    for seed in 0..50 {
        assert_eq!(keyspace.random_key(seed, time(10)).as_deref(), Some(&b"alive"[..]));
    }
    assert_eq!(keyspace.list_slot(KeySlot::of_key(b"alive"), 10), [&b"alive"[..]]);
}
