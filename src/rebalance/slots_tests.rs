//! Plans of slots: they end, even out what can be, and touch nothing else.

use proptest::prelude::*;

use super::*;
use crate::cluster::{MoveEnd, fixture_node as node, fixture_topology};

fn apply(topology: &mut Topology, op: &MetaOp) {
    topology.apply(op).unwrap_or_else(|error| panic!("{op:?}: {error}"));
}

fn add_group(topology: &mut Topology) -> GroupId {
    let epoch = topology.epoch();
    apply(topology, &MetaOp::MakeGroup { epoch, homes: vec![node(1), node(2)], why: String::new() });
    *topology.groups().keys().next_back().unwrap()
}

fn finish_moves(topology: &mut Topology) {
    let moves: Vec<_> = topology.moves().map(|(id, _)| id).collect();
    for id in moves {
        apply(topology, &MetaOp::CommitMove { id });
        for end in [MoveEnd::Source, MoveEnd::Target] {
            apply(topology, &MetaOp::FinishMove { id, end });
        }
    }
}

/// Ops until nothing is left to do.
fn carry_out(topology: &mut Topology, weights: &SlotWeights) -> usize {
    for ops in 0..500 {
        let Some(op) = next_slots(topology, weights, &BTreeSet::new()) else { return ops };
        apply(topology, &op);
        assert_eq!(next_slots(topology, weights, &BTreeSet::new()), None, "one op at a time");
        finish_moves(topology);
    }
    panic!("no end: {:?}", next_slots(topology, weights, &BTreeSet::new()));
}

fn load(topology: &Topology, weights: &SlotWeights, group: GroupId) -> f64 {
    topology.slots_of(group).map(|slot| weights.of(slot)).sum()
}

#[test]
fn what_is_even_stays() {
    for (nodes, groups) in [(1, 1), (3, 3), (5, 7), (3, 64)] {
        let topology = fixture_topology(nodes, groups, 3);
        assert_eq!(next_slots(&topology, &SlotWeights::equal(), &BTreeSet::new()), None, "{groups} groups");
    }
}

#[test]
fn new_groups_get_their_share_from_all_others_in_few_ranges() {
    let mut topology = fixture_topology(3, 3, 3);
    let new = [add_group(&mut topology), add_group(&mut topology)];
    let weights = SlotWeights::equal();
    carry_out(&mut topology, &weights);
    for group in topology.groups().keys() {
        let count = topology.slots_of(*group).count();
        assert!((190..=220).contains(&count), "group {group} has {count} slots");
    }
    let edges = topology.slots().windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(edges <= 64, "{edges} edges between ranges; {new:?}");
}

/// What an operator does with `move-slots`.
fn move_by_hand(topology: &mut Topology, slots: &BTreeSet<Slot>, to: GroupId) {
    let (first, slots) = (topology.next_move(), slots.clone());
    apply(topology, &MetaOp::StartMoves { first, to, slots, why: String::new(), by_hand: true });
    finish_moves(topology);
}

#[test]
fn slots_placed_by_hand_stay_where_they_are_until_they_are_let_go_and_the_others_are_evened_out() {
    let mut topology = fixture_topology(3, 3, 3);
    let weights = SlotWeights::equal();
    let slots: BTreeSet<Slot> = topology.slots_of(GroupId(1)).take(200).collect();
    move_by_hand(&mut topology, &slots, GroupId(2));
    assert_eq!(topology.held_count(), 200);
    let is_held = |topology: &Topology| slots.iter().all(|slot| topology.group_of(*slot) == GroupId(2));
    let new = add_group(&mut topology);
    carry_out(&mut topology, &weights);
    assert!(is_held(&topology) && topology.held_count() == 200);
    for group in [GroupId(1), GroupId(2), GroupId(3), new] {
        let count = topology.slots_of(group).count();
        assert!((231..=281).contains(&count), "group {group} has {count} slots");
    }
    let all: BTreeSet<Slot> = topology.slots_of(GroupId(3)).collect();
    move_by_hand(&mut topology, &all, GroupId(2));
    assert_eq!(Topology::decode(&topology.encode()).as_ref(), Ok(&topology));
    carry_out(&mut topology, &weights);
    assert!(is_held(&topology));
    assert_eq!(topology.slots_of(GroupId(3)).count(), 0, "an operator has emptied it");
    apply(&mut topology, &MetaOp::EvenSlots);
    assert_eq!(topology.held_count(), 0);
    carry_out(&mut topology, &weights);
    for group in topology.groups().keys() {
        let count = topology.slots_of(*group).count();
        assert!((231..=281).contains(&count), "group {group} has {count} slots");
    }
}

#[test]
fn a_group_that_goes_gives_up_what_was_placed_there_and_one_that_was_emptied_takes_it_if_need_be() {
    let mut topology = fixture_topology(2, 2, 2);
    let weights = SlotWeights::equal();
    let own: BTreeSet<Slot> = topology.slots_of(GroupId(1)).collect();
    move_by_hand(&mut topology, &own, GroupId(2));
    assert_eq!(next_slots(&topology, &weights, &BTreeSet::new()), None);
    let leaving: BTreeSet<GroupId> = [GroupId(2)].into();
    let mut plan = Plan::new(&topology, &weights, &leaving);
    let (to, slots) = plan.empty(GroupId(2)).expect("there is a group left");
    assert!(to == GroupId(1) && !slots.is_empty());
    let first = topology.next_move();
    apply(&mut topology, &MetaOp::StartMoves { first, to, slots: own, why: String::new(), by_hand: false });
    finish_moves(&mut topology);
    assert_eq!(topology.held_count(), 0, "the scheduler had to move them");
}

#[test]
fn a_move_by_hand_that_is_cancelled_leaves_the_slots_to_the_scheduler() {
    let mut topology = fixture_topology(3, 3, 3);
    let first = topology.next_move();
    let slots: BTreeSet<Slot> = topology.slots_of(GroupId(1)).take(1).collect();
    apply(&mut topology, &MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand: true });
    apply(&mut topology, &MetaOp::AbortMove { id: first, again: false });
    for end in [MoveEnd::Source, MoveEnd::Target] {
        apply(&mut topology, &MetaOp::FinishMove { id: first, end });
    }
    assert!(topology.placed_by_hand().is_empty());
}

#[test]
fn a_slot_that_outweighs_its_group_does_not_wander() {
    let mut bytes = vec![1_000_000; SLOT_COUNT];
    bytes[7] = 4_000_000_000;
    let mut topology = fixture_topology(3, 3, 3);
    let weights = SlotWeights::new(&bytes, &[0.0; SLOT_COUNT]);
    let hot = topology.group_of(Slot::all().nth(7).unwrap());
    carry_out(&mut topology, &weights);
    let others = topology.slots_of(hot).count();
    assert_eq!(topology.group_of(Slot::all().nth(7).unwrap()), hot, "moving it helps nobody");
    assert!(others < 200, "the other slots of its group made room: {others}");
}

#[test]
fn little_data_and_few_requests_weigh_nothing() {
    let (mut bytes, mut rates) = (vec![0; SLOT_COUNT], vec![0.0; SLOT_COUNT]);
    (bytes[3], rates[4]) = (1_000_000, 100.0);
    assert_eq!(SlotWeights::new(&bytes, &rates), SlotWeights::equal());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_load_is_evened_out_as_far_as_slots_allow(
        groups in 1u32..6,
        fresh in 0usize..3,
        held in 0usize..300,
        draws in prop::collection::vec(1u64..1_000_000, SLOT_COUNT),
    ) {
        let mut topology = fixture_topology(3, groups, 3);
        for _ in 0..fresh {
            add_group(&mut topology);
        }
        let weights = SlotWeights::new(&draws, &[0.0; SLOT_COUNT]);
        // An operator places some, and an end is come to with those where they are; then lets go of them.
        let some: BTreeSet<Slot> = Slot::all().step_by(3).take(held).collect();
        move_by_hand(&mut topology, &some, GroupId(1));
        let placed = topology.placed_by_hand().clone();
        carry_out(&mut topology, &weights);
        prop_assert_eq!(topology.placed_by_hand(), &placed);
        apply(&mut topology, &MetaOp::EvenSlots);
        carry_out(&mut topology, &weights);
        topology.validate().expect("consistent");
        let share = 1.0 / topology.groups().len() as f64;
        for group in topology.groups().keys() {
            let part = load(&topology, &weights, *group) / share;
            prop_assert!((0.9..=1.1).contains(&part), "group {group} carries {part} of its share");
        }
    }
}

#[test]
fn no_slot_moves_from_or_to_a_group_of_which_no_leader_is_known() {
    let mut topology = fixture_topology(4, 0, 3);
    let equal = SlotWeights::equal();
    let silent = |groups: &[u32]| groups.iter().map(|group| GroupId(*group)).collect::<BTreeSet<_>>();
    apply(&mut topology, &MetaOp::Drain { node: node(4), successor: None, gone: false });
    let target = |silent: &BTreeSet<GroupId>| match next_slots(&topology, &equal, silent) {
        Some(MetaOp::StartMoves { to, .. }) => Some(to),
        _ => None,
    };
    let lightest = target(&silent(&[])).expect("group 4 is to be dissolved");
    assert!(target(&silent(&[lightest.0])).is_some_and(|to| to != lightest));
    assert_eq!([target(&silent(&[1, 2, 3])), target(&silent(&[4]))], [None, None]);
    let mut uneven = fixture_topology(3, 3, 3);
    add_group(&mut uneven);
    assert!(next_slots(&uneven, &equal, &silent(&[])).is_some());
    assert_eq!(next_slots(&uneven, &equal, &silent(&[2])), None, "its share cannot be told");
}

#[test]
fn a_group_that_goes_does_not_wait_for_an_operators_moves_and_leaves_them_alone() {
    let mut topology = fixture_topology(4, 0, 3);
    let [own, other] = [4, 1].map(|group| topology.slots_of(GroupId(group)).next().expect("it has some"));
    let first = topology.next_move();
    let slots = [own, other].into();
    apply(&mut topology, &MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand: true });
    let next = |topology: &Topology| next_slots(topology, &SlotWeights::equal(), &BTreeSet::new());
    assert_eq!(next(&topology), None);
    apply(&mut topology, &MetaOp::Drain { node: node(4), successor: None, gone: false });
    assert_eq!(topology.leaving_groups(), [GroupId(4)].into());
    for _ in 0..500 {
        let Some(op) = next(&topology) else { break };
        apply(&mut topology, &op);
        assert_eq!(next(&topology), None, "the scheduler's own are waited for");
        let own: Vec<_> = topology.moves().filter(|(_, moved)| !moved.by_hand).map(|(id, _)| id).collect();
        for id in own {
            apply(&mut topology, &MetaOp::CommitMove { id });
            for end in [MoveEnd::Source, MoveEnd::Target] {
                apply(&mut topology, &MetaOp::FinishMove { id, end });
            }
        }
    }
    assert!(topology.slots_of(GroupId(4)).eq([own]), "the operator moves that one");
    assert_eq!(topology.moves().count(), 2);
    finish_moves(&mut topology);
    assert_eq!(topology.slots_of(GroupId(4)).count(), 0);
}
