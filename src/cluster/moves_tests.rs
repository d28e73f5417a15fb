//! Moves in the meta group: compare and set, duplicates, and what is kept until both groups have cleaned up.

use std::collections::BTreeSet;

use super::fixture::topology;
use super::{
    GroupId, MOVE_TRIES_MAX, MetaError, MetaOp, MetaOutcome, MoveEnd, MoveId, MoveState, Topology, apply_meta,
};
use crate::clock::Timestamp;
use crate::slot::Slot;

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

fn slots_of(topology: &Topology, group: GroupId, count: usize) -> BTreeSet<Slot> {
    topology.slots_of(group).take(count).collect()
}

fn start(topology: &mut Topology, to: GroupId, slots: &BTreeSet<Slot>) -> Result<MetaOutcome, MetaError> {
    let first = topology.next_move();
    topology.apply(&MetaOp::StartMoves { first, to, slots: slots.clone(), why: String::new(), by_hand: false })
}

fn finish_both(topology: &mut Topology, id: MoveId) {
    for end in [MoveEnd::Source, MoveEnd::Target] {
        assert_eq!(topology.apply(&MetaOp::FinishMove { id, end }), Ok(MetaOutcome::Moves));
    }
}

#[test]
fn a_slot_changes_its_owner_at_commit_and_the_move_stays_until_both_have_cleaned_up() {
    let mut topology = topology(3, 3, 3);
    let slots = slots_of(&topology, A, 1);
    let slot = *slots.first().unwrap();
    assert_eq!(start(&mut topology, B, &slots), Ok(MetaOutcome::Moves));
    let id = MoveId(topology.next_move().0 - 1);
    assert_eq!(topology.group_of(slot), A);
    assert_eq!(
        topology.apply(&MetaOp::FinishMove { id, end: MoveEnd::Source }),
        Err(MetaError::MoveNotOver(id)),
        "a group cannot be done with what is under way"
    );
    assert_eq!(topology.apply(&MetaOp::CommitMove { id }), Ok(MetaOutcome::Moves));
    assert_eq!(topology.group_of(slot), B);
    assert_eq!(topology.apply(&MetaOp::CommitMove { id }), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology.apply(&MetaOp::AbortMove { id, again: false }), Err(MetaError::MoveCommitted(id)));
    for end in [MoveEnd::Source, MoveEnd::Source, MoveEnd::Target] {
        assert_eq!(topology.slot_move(id).map(|kept| kept.state), Some(MoveState::Committed));
        topology.apply(&MetaOp::FinishMove { id, end }).unwrap();
    }
    assert_eq!(topology.slot_move(id), None);
    assert_eq!(topology.apply(&MetaOp::FinishMove { id, end: MoveEnd::Source }), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology.group_of(slot), B);
}

#[test]
fn an_aborted_move_cannot_be_committed_any_more() {
    let mut topology = topology(3, 3, 3);
    let slots = slots_of(&topology, A, 1);
    let id = topology.next_move();
    start(&mut topology, B, &slots).unwrap();
    assert_eq!(topology.apply(&MetaOp::AbortMove { id, again: false }), Ok(MetaOutcome::Moves));
    assert_eq!(topology.apply(&MetaOp::CommitMove { id }), Err(MetaError::MoveAborted(id)));
    finish_both(&mut topology, id);
    assert_eq!(topology.apply(&MetaOp::CommitMove { id }), Err(MetaError::UnknownMove(id)));
    assert!(slots.iter().all(|slot| topology.group_of(*slot) == A));
    assert_eq!(topology.moves().count(), 0);
}

#[test]
fn one_aborted_to_be_done_again_starts_anew_under_another_id_unless_it_is_given_up_meanwhile() {
    for given_up in [false, true] {
        let mut topology = topology(3, 3, 3);
        let slots = slots_of(&topology, A, 1);
        let id = topology.next_move();
        start(&mut topology, B, &slots).unwrap();
        topology.apply(&MetaOp::AbortMove { id, again: true }).unwrap();
        if given_up {
            topology.apply(&MetaOp::AbortMove { id, again: false }).unwrap();
            let late = topology.apply(&MetaOp::AbortMove { id, again: true });
            assert_eq!(late, Ok(MetaOutcome::Unchanged), "a late duplicate does not bring it back");
        }
        finish_both(&mut topology, id);
        let left: Vec<_> = topology.moves().map(|(id, left)| (id, left.state)).collect();
        let expected = if given_up { vec![] } else { vec![(MoveId(id.0 + 1), MoveState::Started)] };
        assert_eq!(left, expected);
    }
}

#[test]
fn a_late_duplicate_of_a_start_does_not_move_a_slot_that_has_come_back() {
    let mut topology = topology(3, 3, 3);
    let slots = slots_of(&topology, A, 2);
    let op = MetaOp::StartMoves {
        first: topology.next_move(),
        to: B,
        slots: slots.clone(),
        why: String::new(),
        by_hand: false,
    };
    topology.apply(&op).unwrap();
    for to in [B, A] {
        for id in topology.moves().map(|(id, _)| id).collect::<Vec<_>>() {
            topology.apply(&MetaOp::CommitMove { id }).unwrap();
            finish_both(&mut topology, id);
        }
        assert!(slots.iter().all(|slot| topology.group_of(*slot) == to));
        start(&mut topology, A, &slots).unwrap();
    }
    let before = topology.clone();
    assert_eq!(topology.apply(&op), Err(MetaError::NextMove(before.next_move())));
    assert_eq!(topology, before);
}

#[test]
fn a_start_is_refused_whole_when_a_slot_is_moving_or_the_group_is_unknown() {
    let mut topology = topology(3, 3, 3);
    let slots = slots_of(&topology, A, 3);
    start(&mut topology, B, &slots.iter().copied().take(1).collect()).unwrap();
    let before = topology.clone();
    assert!(matches!(start(&mut topology, B, &slots), Err(MetaError::SlotMoves { .. })));
    assert_eq!(start(&mut topology, GroupId(9), &slots), Err(MetaError::UnknownGroup(GroupId(9))));
    assert_eq!(start(&mut topology, A, &slots_of(&before, A, 9)), Ok(MetaOutcome::Unchanged), "they are there");
    let damaged: BTreeSet<Slot> = postcard::from_bytes(&postcard::to_stdvec(&[5000u16].as_slice()).unwrap()).unwrap();
    assert!(matches!(start(&mut topology, B, &damaged), Err(MetaError::UnknownSlot(_))));
    assert_eq!(topology, before);
}

#[test]
fn a_topology_with_moves_survives_encoding_and_one_that_contradicts_itself_is_refused() {
    let mut topology = topology(3, 3, 3);
    let id = topology.next_move();
    let slots = slots_of(&topology, A, 2);
    start(&mut topology, B, &slots).unwrap();
    assert_eq!(Topology::decode(&topology.encode()).as_ref(), Ok(&topology));
    topology.moves.get_mut(&id).unwrap().state = MoveState::Committed;
    assert!(Topology::decode(&topology.encode()).is_err(), "committed, and the slot not moved");
}

#[test]
fn a_move_that_never_comes_to_its_end_is_given_up_after_so_many_tries_and_said_to_be() {
    let mut topology = Some(topology(3, 3, 3));
    let slots = slots_of(topology.as_ref().unwrap(), A, 1);
    start(topology.as_mut().unwrap(), B, &slots).unwrap();
    let mut tries = 0;
    let next = |topology: &Option<Topology>| topology.as_ref()?.moves().next().map(|(id, moved)| (id, moved.tries));
    while let Some((id, counted)) = next(&topology) {
        assert_eq!(counted, tries);
        tries += 1;
        assert!(tries <= MOVE_TRIES_MAX, "it is begun again for ever");
        let abort = MetaOp::AbortMove { id, again: true };
        assert_eq!(apply_meta(&mut topology, &abort, Timestamp(0)), Ok(MetaOutcome::Moves));
        assert_eq!(apply_meta(&mut topology, &abort, Timestamp(0)), Ok(MetaOutcome::Unchanged));
        finish_both(topology.as_mut().unwrap(), id);
    }
    let topology = topology.unwrap();
    assert_eq!(tries, MOVE_TRIES_MAX);
    let told: Vec<_> = topology.events().iter().filter(|event| event.what.contains("is given up")).collect();
    assert_eq!((told.len(), told[0].why.as_str()), (1, "no try came to its end"));
    assert!(slots.iter().all(|slot| topology.group_of(*slot) == A));
}

#[test]
fn a_move_is_confirmed_while_it_is_started_and_that_changes_nothing() {
    let mut topology = topology(3, 3, 3);
    let (id, slots) = (topology.next_move(), slots_of(&topology, A, 1));
    let confirm = MetaOp::ConfirmMove { id };
    assert_eq!(topology.apply(&confirm), Err(MetaError::UnknownMove(id)));
    start(&mut topology, B, &slots).unwrap();
    let before = topology.clone();
    assert_eq!(topology.apply(&confirm), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology, before);
    topology.apply(&MetaOp::AbortMove { id, again: true }).unwrap();
    assert_eq!(topology.apply(&confirm), Err(MetaError::MoveAborted(id)));
}

#[test]
fn a_move_changes_nothing_but_slots_and_a_change_of_replicas_or_settings_does() {
    let before = topology(3, 3, 3);
    let mut moved = before.clone();
    let id = moved.next_move();
    start(&mut moved, B, &slots_of(&before, A, 2)).unwrap();
    assert!(moved.differs_in_slots_alone(&before) && !before.differs_in_slots_alone(&moved));
    let started = moved.clone();
    moved.apply(&MetaOp::CommitMove { id }).unwrap();
    assert!(moved.differs_in_slots_alone(&started) && moved.differs_in_slots_alone(&before));
    assert!(!moved.differs_in_slots_alone(&moved));
    moved.apply(&MetaOp::PauseRebalance).unwrap();
    assert!(!moved.differs_in_slots_alone(&started));
    let (group, replica) = (A, *started.group(A).unwrap().replicas.keys().next().unwrap());
    let mut smaller = started.clone();
    let place = MetaOp::Place { epoch: started.epoch(), group, remove: Some(replica), add: None, why: String::new() };
    smaller.apply(&place).unwrap();
    assert!(!smaller.differs_in_slots_alone(&started));
}
