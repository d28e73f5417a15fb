//! A replica that begins from a snapshot, whose buckets may be newer than its head, comes to the same state as one that applied everything.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::clock::Timestamp;
use crate::cluster::{GroupId, ReplicaId};
use crate::command::op;
use crate::keyspace::{Delta, HashSecret, Keyspace, Value};
use crate::protocol::Reply;
use crate::raft::group_op;
use crate::raft::slots::{Attempt, SlotTable, checksum_of};
use crate::random::simulated::Chance;
use crate::slot::KeySlot;

fn key_slot() -> KeySlot {
    KeySlot::of_key(b"{t}")
}

fn state() -> GroupState {
    GroupState::new(GroupId(1), ReplicaId(1), 7, Keyspace::new(HashSecret([1; 4])), None)
}

/// One entry of the group's log.
#[derive(Clone)]
enum Logged {
    Move(MoveOp, Vec<u8>),
    Flush,
    /// A write to the slot, whether it is owned or not.
    Put(u64),
}

fn apply_logged(state: &GroupState, index: u64, logged: &Logged) {
    let position = Position { index, op: 0 };
    let op = match logged {
        Logged::Put(number) => {
            let key = format!("{{t}}{number}");
            let _ = state.keyspace.apply(key_slot(), position, |bucket| {
                bucket.insert(key.as_bytes(), Value::Slice(&index.to_le_bytes()), None);
            });
            return;
        }
        Logged::Move(step, page) => {
            let mut chunk = Chunk::new(Protocol::Resp2);
            chunk.push_move(key_slot().slot(), step, page);
            chunk.ops
        }
        Logged::Flush => {
            let mut chunk = Chunk::new(Protocol::Resp2);
            chunk.push_flush();
            chunk.ops
        }
    };
    let op = op::decode(&mut BytesMut::freeze(op)).expect("encoded").expect("one op");
    group_op::apply(state, &op, position, &mut Reply::discard()).expect("applies");
}

/// Pages of what a source has, with keys of its own.
fn page(seed: u64, count: u64) -> Vec<u8> {
    let source = Keyspace::new(HashSecret([9; 4]));
    source.set_state(key_slot().slot(), SlotState::Owned);
    for number in 0..count {
        let key = format!("{{t}}{}", seed * 7 + number);
        let _ = source.apply(key_slot(), Position { index: number + 1, op: 0 }, |bucket| {
            bucket.insert(key.as_bytes(), Value::Slice(b"moved"), None);
        });
    }
    let mut page = Vec::new();
    Delta::new(None, source.export(key_slot())).encode_into(&mut page, 1 << 16);
    page
}

/// The slot leaves, a move to here is begun twice and aborted, the slot comes back, writes in between.
fn history() -> Vec<Logged> {
    let mut log = Vec::new();
    let step = |op| Logged::Move(op, Vec::new());
    let settle = |id, outcome| step(MoveOp::Settle { id: MoveId(id), outcome });
    let attempt = |number| Attempt { term: 1, replica: 1, number };
    let put = |log: &mut Vec<Logged>| log.extend((0..3).map(Logged::Put));
    put(&mut log);
    log.push(step(MoveOp::Freeze { id: MoveId(1) }));
    put(&mut log);
    log.push(Logged::Flush);
    log.push(settle(1, Outcome::Aborted));
    put(&mut log);
    log.push(step(MoveOp::Freeze { id: MoveId(1) }));
    log.push(Logged::Flush);
    put(&mut log);
    log.push(step(MoveOp::Freeze { id: MoveId(2) }));
    log.push(settle(2, Outcome::Committed));
    put(&mut log);
    for (id, number, outcome) in [(3, 1, None), (3, 2, Some(Outcome::Aborted)), (4, 3, Some(Outcome::Committed))] {
        let (id, attempt) = (MoveId(id), attempt(number));
        log.push(step(MoveOp::Begin { id, attempt, stamp: Timestamp(0) }));
        let pages = [page(number, 5), page(number + 1, 9)];
        let checksum = pages.iter().fold(0, |sum, page| checksum_of(sum, page));
        log.push(Logged::Move(MoveOp::Stage { id, attempt, number: 0 }, pages[0].clone()));
        put(&mut log);
        if let Some(outcome) = outcome {
            let adopt = MoveOp::Adopt { id, attempt, number: 1, checksum, stamp: Timestamp(9) };
            log.push(Logged::Move(adopt, pages[1].clone()));
            log.push(Logged::Flush);
            put(&mut log);
            log.push(settle(id.0, outcome));
        }
    }
    put(&mut log);
    log.push(settle(3, Outcome::Aborted));
    log
}

fn founded() -> GroupState {
    let state = state();
    state.update_slots(|slots| slots.found(std::iter::once(key_slot().slot())));
    state.keyspace.set_state(key_slot().slot(), SlotState::Owned);
    state
}

fn seen(state: &GroupState) -> (SlotTable, (u64, u64), u64, Position, Timestamp) {
    let slot = key_slot().slot();
    let position = state.keyspace.read(key_slot(), |bucket| bucket.position());
    let size = state.keyspace.slot_size(slot);
    (state.read_slots(SlotTable::clone), size, state.keyspace.digest(), position, state.stamp())
}

#[test]
fn a_replica_that_begins_from_any_snapshot_comes_to_the_same_state() {
    let log = history();
    let whole = founded();
    (1..).zip(&log).for_each(|(index, logged)| apply_logged(&whole, index, logged));
    assert!(whole.keyspace.counters().keys > 0 && whole.read_slots(|slots| slots.owns(key_slot().slot())));
    let mut chance = Chance(3);
    for at in 0..log.len() {
        // The head is of `at`, the bucket of any time since.
        let newer = at + chance.below((log.len() - at + 1) as u64) as usize;
        let source = founded();
        (1..).zip(&log[..at]).for_each(|(index, logged)| apply_logged(&source, index, logged));
        let (head, stamp) = (source.read_slots(SlotTable::clone), source.stamp());
        (at as u64 + 1..).zip(&log[at..newer]).for_each(|(index, logged)| apply_logged(&source, index, logged));
        let replica = state();
        let (mut export, mut piece) = (source.keyspace.export(key_slot()), Vec::new());
        while export.encode_into(&mut piece) {
            replica.keyspace.import(&Bytes::from(std::mem::take(&mut piece))).expect("sound");
        }
        replica.restore_stamp(stamp);
        let owned = if head.owns(key_slot().slot()) { SlotState::Owned } else { SlotState::Absent };
        replica.keyspace.set_state(key_slot().slot(), owned);
        replica.update_slots(|slots| *slots = head);
        (at as u64 + 1..).zip(&log[at..]).for_each(|(index, logged)| apply_logged(&replica, index, logged));
        assert_eq!(seen(&replica), seen(&whole), "a head of {at} with a bucket of {newer}");
    }
}

#[test]
fn nothing_is_emptied_while_a_slot_waits_for_a_moves_outcome() {
    let state = founded();
    apply_logged(&state, 1, &Logged::Put(1));
    apply_logged(&state, 2, &Logged::Move(MoveOp::Freeze { id: MoveId(1) }, Vec::new()));
    assert_eq!(state.keyspace.counters().keys, 0, "frozen, it is not served");
    apply_logged(&state, 3, &Logged::Flush);
    let settle = MoveOp::Settle { id: MoveId(1), outcome: Outcome::Aborted };
    apply_logged(&state, 4, &Logged::Move(settle, Vec::new()));
    assert_eq!(state.keyspace.counters().keys, 1);
}

#[test]
fn a_whole_group_read_that_a_freeze_falls_into_is_noticed() {
    const FREEZES: u64 = 20_000;
    let state = founded();
    let slot = key_slot().slot();
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            loop {
                let before = state.slot_version();
                let owned = state.keyspace.owns(slot);
                if before.is_some() && before == state.slot_version() {
                    assert!(owned, "the slot was missed, and nobody noticed");
                    reads += 1;
                }
                if state.read_slots(|slots| slots.ended(slot)) == MoveId(FREEZES) {
                    return reads;
                }
            }
        });
        for id in (1..=FREEZES).map(MoveId) {
            let step = |op| Logged::Move(op, Vec::new());
            apply_logged(&state, 2 * id.0, &step(MoveOp::Freeze { id }));
            apply_logged(&state, 2 * id.0 + 1, &step(MoveOp::Settle { id, outcome: Outcome::Aborted }));
        }
        reader.join().expect("no read went wrong")
    });
    assert!(reads > 0);
}

#[test]
fn a_page_that_comes_wakes_nobody() {
    let state = state();
    let (id, attempt) = (MoveId(1), Attempt { term: 1, replica: 1, number: 1 });
    apply_logged(&state, 1, &Logged::Move(MoveOp::Begin { id, attempt, stamp: Timestamp(0) }, Vec::new()));
    let before = state.slot_version();
    let pages: Vec<Vec<u8>> = (0..3).map(|number| page(number, 4)).collect();
    for (number, page) in (0..).zip(&pages[..2]) {
        apply_logged(&state, 2 + number, &Logged::Move(MoveOp::Stage { id, attempt, number }, page.clone()));
    }
    assert!(before.is_some() && state.slot_version() == before);
    let checksum = pages.iter().fold(0, |sum, page| checksum_of(sum, page));
    let adopt = MoveOp::Adopt { id, attempt, number: 2, checksum, stamp: Timestamp(9) };
    apply_logged(&state, 4, &Logged::Move(adopt, pages[2].clone()));
    assert_eq!(state.slot_version(), None, "whose keys these are is not known");
}

#[test]
fn steps_that_decide_who_owns_a_slot_are_synced_in_every_mode() {
    let (id, attempt, stamp) = (MoveId(1), Attempt { term: 1, replica: 1, number: 1 }, Timestamp(0));
    for (step, durable) in [
        (MoveOp::Freeze { id }, true),
        (MoveOp::Begin { id, attempt, stamp }, false),
        (MoveOp::Stage { id, attempt, number: 0 }, false),
        (MoveOp::Adopt { id, attempt, number: 0, checksum: 0, stamp }, true),
        (MoveOp::Settle { id, outcome: Outcome::Committed }, true),
    ] {
        let mut chunk = Chunk::new(Protocol::Resp2);
        chunk.push_move(key_slot().slot(), &step, b"");
        assert_eq!(chunk.durable, durable, "{step:?}");
    }
}

#[test]
fn slots_that_are_sent_beside_each_other_share_the_rate_and_one_alone_has_all_of_it() {
    let (moved, now, second) = (Moved::default(), Instant::now(), Duration::from_secs(1));
    for sent in 0..4 {
        assert_eq!(moved.turn(now, second), now + sent * second);
    }
    let later = now + 10 * second;
    assert_eq!(moved.turn(later, second), later, "what nobody has used is not saved up");
}
