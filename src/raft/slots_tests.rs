//! Each step counts once, in its place, and for its own move only.

use super::*;

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn id(number: u64) -> MoveId {
    MoveId(number)
}

fn attempt(term: u64, number: u64) -> Attempt {
    Attempt { term, replica: 1, number }
}

fn owner() -> SlotTable {
    let mut table = SlotTable::default();
    table.found(std::iter::once(slot()));
    table
}

fn settle(number: u64, outcome: Outcome) -> MoveOp {
    MoveOp::Settle { id: id(number), outcome }
}

/// All ops of the moves 1 to 3 that could come late.
fn late_ops() -> Vec<MoveOp> {
    let of = |number| {
        let (id, attempt) = (id(number), attempt(1, 1));
        [
            MoveOp::Freeze { id },
            MoveOp::Begin { id, attempt, stamp: Timestamp(0) },
            MoveOp::Stage { id, attempt, number: 0 },
            MoveOp::Adopt {
                id,
                attempt,
                number: 1,
                checksum: checksum_of(checksum_of(0, b"page"), b"page"),
                stamp: Timestamp(1),
            },
            settle(number, Outcome::Committed),
            settle(number, Outcome::Aborted),
        ]
    };
    (1..=3).flat_map(of).collect()
}

fn assert_deaf(table: &SlotTable, what: &str) {
    for op in late_ops() {
        let mut copy = table.clone();
        assert_eq!(copy.apply(slot(), &op, b"page"), Effect::Nothing, "{what}: {op:?}");
        assert_eq!(&copy, table, "{what}: {op:?}");
    }
}

fn receive(table: &mut SlotTable, number: u64) {
    let (id, attempt) = (id(number), attempt(1, 1));
    assert_eq!(table.apply(slot(), &MoveOp::Begin { id, attempt, stamp: Timestamp(0) }, b""), Effect::Clear);
    assert_eq!(table.apply(slot(), &MoveOp::Stage { id, attempt, number: 0 }, b"page"), Effect::Take);
    let checksum = checksum_of(checksum_of(0, b"page"), b"last");
    let adopt = MoveOp::Adopt { id, attempt, number: 1, checksum, stamp: Timestamp(9) };
    assert_eq!(table.apply(slot(), &adopt, b"last"), Effect::TakeLast(Timestamp(9)));
    assert_eq!(table.held(slot()), Some(Held::Adopted { id }));
}

#[test]
fn a_slot_that_went_and_came_back_is_deaf_to_all_that_is_late() {
    let (mut source, mut target) = (owner(), SlotTable::default());
    assert_eq!(source.apply(slot(), &MoveOp::Freeze { id: id(1) }, b""), Effect::Stop);
    receive(&mut target, 1);
    assert_eq!(target.apply(slot(), &settle(1, Outcome::Committed), b""), Effect::Serve);
    assert_eq!(source.apply(slot(), &settle(1, Outcome::Committed), b""), Effect::Clear);
    // Back, after a third move that was aborted.
    assert_eq!(target.apply(slot(), &settle(2, Outcome::Aborted), b""), Effect::Nothing);
    assert_eq!(target.apply(slot(), &MoveOp::Freeze { id: id(3) }, b""), Effect::Stop);
    assert_eq!(source.apply(slot(), &settle(2, Outcome::Aborted), b""), Effect::Nothing);
    receive(&mut source, 3);
    assert_eq!(source.apply(slot(), &settle(3, Outcome::Committed), b""), Effect::Serve);
    assert_eq!(target.apply(slot(), &settle(3, Outcome::Committed), b""), Effect::Clear);
    assert!(source.owns(slot()) && target.held(slot()).is_none());
    assert_deaf(&source, "the owner");
    assert_deaf(&target, "the other one");
}

#[test]
fn an_aborted_move_leaves_each_group_as_it_was_and_cannot_freeze_it_late() {
    let (mut source, mut target) = (owner(), SlotTable::default());
    source.apply(slot(), &MoveOp::Freeze { id: id(3) }, b"");
    assert_eq!(source.apply(slot(), &settle(3, Outcome::Aborted), b""), Effect::Serve);
    receive(&mut target, 3);
    assert_eq!(target.apply(slot(), &settle(3, Outcome::Aborted), b""), Effect::Clear);
    assert_deaf(&source, "unfrozen");
    assert_deaf(&target, "discarded");
    // One that was aborted before anything of it was logged.
    let (mut source, mut target) = (owner(), SlotTable::default());
    for table in [&mut source, &mut target] {
        assert_eq!(table.apply(slot(), &settle(3, Outcome::Aborted), b""), Effect::Nothing);
    }
    assert_deaf(&source, "never frozen");
    assert_deaf(&target, "never staged");
}

#[test]
fn only_the_move_that_froze_a_slot_lets_it_go() {
    let mut source = owner();
    source.apply(slot(), &MoveOp::Freeze { id: id(2) }, b"");
    for other in [1, 3] {
        for outcome in [Outcome::Committed, Outcome::Aborted] {
            assert_eq!(source.apply(slot(), &settle(other, outcome), b""), Effect::Nothing);
        }
    }
    assert_eq!(source.held(slot()), Some(Held::Frozen { id: id(2) }));
    assert_eq!(source.apply(slot(), &MoveOp::Freeze { id: id(3) }, b""), Effect::Nothing);
}

#[test]
fn pages_count_in_order_once_and_for_the_newest_attempt_only() {
    let mut table = SlotTable::default();
    let begin = |number| MoveOp::Begin { id: id(1), attempt: attempt(1, number), stamp: Timestamp(0) };
    let stage = |number, page| MoveOp::Stage { id: id(1), attempt: attempt(1, number), number: page };
    table.apply(slot(), &begin(1), b"");
    let steps = [
        (stage(1, 1), Effect::Nothing, "a gap"),
        (stage(1, 0), Effect::Take, "the first"),
        (stage(1, 0), Effect::Nothing, "twice"),
        (begin(1), Effect::Nothing, "a duplicate begins nothing"),
        (begin(2), Effect::Clear, "a new attempt"),
        (stage(1, 1), Effect::Nothing, "an old attempt's"),
        (begin(1), Effect::Nothing, "an old attempt does not come back"),
        (stage(2, 0), Effect::Take, "the new one's"),
    ];
    for (op, effect, what) in steps {
        assert_eq!(table.apply(slot(), &op, b"page"), effect, "{what}");
    }
}

#[test]
fn staged_data_that_is_not_what_the_source_sent_is_not_adopted() {
    let mut table = SlotTable::default();
    let (id, attempt) = (id(1), attempt(1, 1));
    table.apply(slot(), &MoveOp::Begin { id, attempt, stamp: Timestamp(0) }, b"");
    table.apply(slot(), &MoveOp::Stage { id, attempt, number: 0 }, b"page");
    let sound = checksum_of(checksum_of(0, b"page"), b"last");
    let adopt = |number, checksum| MoveOp::Adopt { id, attempt, number, checksum, stamp: Timestamp(1) };
    for (op, page) in [
        (adopt(0, sound), &b"last"[..]),
        (adopt(2, sound), b"last"),
        (adopt(1, sound), b"lost"),
        (adopt(1, checksum_of(0, b"last")), b"last"),
    ] {
        assert_eq!(table.apply(slot(), &op, page), Effect::Nothing);
    }
    assert_eq!(table.apply(slot(), &adopt(1, sound), b"last"), Effect::TakeLast(Timestamp(1)));
    assert_eq!(table.unsettled_count(), 1);
}
