//! Drawn clusters: every plan ends, never lowers the number of replicas, and leaves the cluster even.

use proptest::prelude::*;

use super::*;
use crate::cluster::{MoveEnd, WantedSettings, fixture_info as info, fixture_node as node, fixture_topology};

fn apply(topology: &mut Topology, op: MetaOp) {
    topology.apply(&op).unwrap_or_else(|error| panic!("{op:?}: {error}"));
}

fn join(topology: &mut Topology, number: u8) {
    let settings = WantedSettings::from(topology.settings());
    apply(topology, MetaOp::Join { node: node(number), info: info(number), settings });
}

fn give_up(topology: &mut Topology, number: u8) {
    apply(topology, MetaOp::Absent { node: node(number), counted_ms: 1, given_up: true });
}

fn drain(topology: &mut Topology, number: u8, successor: Option<u8>) {
    apply(topology, MetaOp::Drain { node: node(number), successor: successor.map(node), gone: false });
}

fn at_rest(topology: &Topology) -> Situation<'_> {
    Situation {
        topology,
        absent: topology.nodes().keys().copied().filter(|node| topology.is_given_up(*node)).collect(),
        full: BTreeSet::new(),
        tight: BTreeSet::new(),
        settled: topology.groups().keys().copied().collect(),
        moving: BTreeSet::new(),
        voters: BTreeMap::new(),
        weights: topology.groups().keys().map(|group| (*group, u64::from(group.0))).collect(),
        quiet: true,
    }
}

/// Carries the plan out; what must hold of every step, and its number of steps.
fn carry_out(topology: &mut Topology) -> usize {
    for steps in 0..2000 {
        let slots = || next_slots(topology, &SlotWeights::equal(), &BTreeSet::new());
        let Some(op) = next_placement(&at_rest(topology)).or_else(slots) else { return steps };
        let before = topology.clone();
        apply(topology, op.clone());
        topology.validate().expect("consistent");
        for (group, info) in topology.groups() {
            let had = before.group(*group).map_or(0, |info| info.replicas.len());
            let wished = topology.staying().count().min(topology.settings().replicas as usize);
            assert!(info.replicas.len() >= had.min(wished), "{op:?}");
        }
        let again = topology.apply(&op).unwrap_err().to_string();
        let duplicate = again.starts_with("planned for epoch") || again.starts_with("other moves were started");
        assert!(duplicate, "a late duplicate: {again}");
        finish(topology);
    }
    panic!("no end: {:?}", next_placement(&at_rest(topology)));
}

/// All that has begun comes to its end.
fn finish(topology: &mut Topology) {
    let departing: Vec<_> = topology.groups().iter().map(|(group, info)| (*group, info.departing.clone())).collect();
    for (group, replicas) in departing {
        replicas.into_keys().for_each(|replica| apply(topology, MetaOp::Departed { group, replica }));
    }
    let moves: Vec<_> = topology.moves().map(|(id, _)| id).collect();
    for id in moves {
        apply(topology, MetaOp::CommitMove { id });
        for end in [MoveEnd::Source, MoveEnd::Target] {
            apply(topology, MetaOp::FinishMove { id, end });
        }
    }
}

fn counts(topology: &Topology, count: impl Fn(NodeId) -> usize) -> Vec<usize> {
    topology.staying().filter(|node| !topology.is_given_up(*node)).map(count).collect()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

fn replicas(topology: &Topology) -> Vec<usize> {
    counts(topology, |node| topology.replicas_on(node).count())
}

fn leaders(topology: &Topology) -> Vec<usize> {
    let leads = |node| topology.groups().values().filter(|info| info.replicas[&info.preferred] == node).count();
    counts(topology, leads)
}

#[test]
fn a_balanced_cluster_is_left_alone() {
    for (nodes, groups, replicas) in [(1, 1, 3), (3, 3, 3), (5, 5, 3), (3, 1, 3), (4, 8, 2)] {
        assert_eq!(next_placement(&at_rest(&fixture_topology(nodes, groups, replicas))), None);
    }
}

#[test]
fn a_node_that_joins_gets_its_share_of_replicas_and_leaders_with_reasons() {
    let mut topology = fixture_topology(3, 6, 3);
    join(&mut topology, 4);
    let plan = whole_plan(&at_rest(&topology), &SlotWeights::equal());
    let first = &plan[0];
    assert!(first.what.starts_with("a replica of group ") && first.what.ends_with("to 127.0.0.1:7004"), "{first:?}");
    assert_eq!(first.why, "127.0.0.1:7003 has 6 replicas and 127.0.0.1:7004 has 0");
    let steps = carry_out(&mut topology);
    assert_eq!(steps, plan.len(), "the plan that is shown is the one that is carried out");
    assert_eq!(replicas(&topology), [5, 5, 4, 4]);
    assert_eq!(spread(&leaders(&topology)), 1);
}

#[test]
fn steps_for_evenness_wait_for_absent_nodes_for_moves_under_way_and_for_the_operator() {
    let mut topology = fixture_topology(3, 6, 3);
    join(&mut topology, 4);
    assert!(next_placement(&at_rest(&topology)).is_some());
    let away = Situation { absent: [node(2)].into(), ..at_rest(&topology) };
    assert_eq!(next_placement(&away), None);
    let busy = Situation { moving: [GroupId(1)].into(), ..at_rest(&topology) };
    assert_eq!(next_placement(&busy), None);
    let full = Situation { full: [node(4)].into(), ..at_rest(&topology) };
    assert_eq!(next_placement(&full), None);
    apply(&mut topology, MetaOp::PauseRebalance);
    assert_eq!(next_placement(&at_rest(&topology)), None);
}

#[test]
fn a_replica_that_was_on_its_way_to_a_node_that_is_lost_goes_elsewhere() {
    let mut topology = fixture_topology(3, 1, 3);
    join(&mut topology, 4);
    join(&mut topology, 5);
    drain(&mut topology, 3, Some(4));
    while let Some(op) = next_placement(&at_rest(&topology)) {
        apply(&mut topology, op);
        if topology.replicas_on(node(4)).next().is_some() {
            break;
        }
    }
    give_up(&mut topology, 4);
    let mut now = at_rest(&topology);
    (now.settled, now.moving) = (BTreeSet::new(), [GroupId(1)].into());
    let Some(MetaOp::Place { add, .. }) = next_placement(&now) else { panic!("it waits for a lost node") };
    assert_eq!(add, Some(node(5)));
}

/// A group whose replica was to move from node 3 to node 4, as its leader tells of it.
fn on_its_way(topology: &Topology, voters: impl IntoIterator<Item = ReplicaId>) -> Situation<'_> {
    let mut now = at_rest(topology);
    (now.settled, now.moving) = (BTreeSet::new(), [GroupId(1)].into());
    now.voters = [(GroupId(1), voters.into_iter().collect())].into();
    now
}

fn replica_on(topology: &Topology, number: u8) -> ReplicaId {
    topology.replicas_on(node(number)).next().expect("it has one").1
}

fn begin_move(topology: &mut Topology, from: u8, to: u8) {
    let (remove, add) = (Some(replica_on(topology, from)), Some(node(to)));
    let (epoch, group, why) = (topology.epoch(), GroupId(1), String::new());
    apply(topology, MetaOp::Place { epoch, group, remove, add, why });
}

#[test]
fn a_replica_whose_new_home_is_lost_or_leaves_stays_if_there_is_no_other() {
    for lost in [true, false] {
        let mut topology = fixture_topology(3, 1, 3);
        join(&mut topology, 4);
        let voters: BTreeSet<ReplicaId> = topology.group(GroupId(1)).unwrap().replicas.keys().copied().collect();
        begin_move(&mut topology, 3, 4);
        let (stays, instead) = (replica_on(&topology, 3), replica_on(&topology, 4));
        assert_eq!(next_placement(&on_its_way(&topology, voters.clone())), None, "it is on its way");
        if lost {
            give_up(&mut topology, 4)
        } else {
            drain(&mut topology, 4, None)
        }
        let Some(op @ MetaOp::Keep { .. }) = next_placement(&on_its_way(&topology, voters.clone())) else {
            panic!("it waits for a node that does not come")
        };
        apply(&mut topology, op.clone());
        topology.validate().expect("consistent");
        assert!(topology.apply(&op).is_err(), "a late duplicate");
        let info = topology.group(GroupId(1)).unwrap();
        assert!(info.replicas.keys().eq(&voters) && info.departing.keys().eq([&instead]), "{info:?}");
        assert_eq!(next_placement(&on_its_way(&topology, voters.clone())), None);
        // The group had gone on: the one that was to go votes no more, and must not come back under its id.
        let went_on = voters.iter().copied().filter(|replica| *replica != stays).chain([instead]);
        let went_on: BTreeSet<ReplicaId> = went_on.collect();
        let next = |topology: &Topology| next_placement(&on_its_way(topology, went_on.clone()));
        let Some(MetaOp::Keep { replica, instead: older, .. }) = next(&topology) else {
            panic!("it waits for what was taken away")
        };
        assert_eq!((replica, older), (instead, stays));
        // The same, and the new one has departed: the other comes back under a new id.
        apply(&mut topology, MetaOp::Departed { group: GroupId(1), replica: instead });
        let Some(MetaOp::Place { remove, add, .. }) = next(&topology) else {
            panic!("it waits for what was taken away")
        };
        assert_eq!((remove, add), (Some(stays), None));
    }
}

#[test]
fn a_group_that_waits_for_a_lost_node_holds_nobody_up() {
    let mut topology = fixture_topology(4, 4, 3);
    let homes = |topology: &Topology, group| topology.group(GroupId(group)).unwrap().homes().collect::<BTreeSet<_>>();
    let lacks =
        |topology: &Topology, number: u8| (1..=4).find(|group| !homes(topology, *group).contains(&node(number)));
    let waiting = GroupId(lacks(&topology, 1).expect("three of four have it"));
    let remove =
        topology.group(waiting).unwrap().replicas.iter().find(|(_, home)| **home == node(4)).map(|(id, _)| *id);
    let (epoch, why) = (topology.epoch(), String::new());
    apply(&mut topology, MetaOp::Place { epoch, group: waiting, remove, add: Some(node(1)), why });
    give_up(&mut topology, 4);
    give_up(&mut topology, 1);
    let info = topology.group(waiting).unwrap();
    let voting = info.replicas.iter().filter(|(_, home)| **home != node(1)).chain(&info.departing);
    let voters = BTreeMap::from([(waiting, voting.map(|(replica, _)| *replica).collect())]);
    fn situation<'a>(topology: &'a Topology, voters: &BTreeMap<GroupId, BTreeSet<ReplicaId>>) -> Situation<'a> {
        let mut now = at_rest(topology);
        now.moving = voters.keys().copied().collect();
        now.settled.retain(|group| !voters.contains_key(group));
        Situation { voters: voters.clone(), ..now }
    }
    loop {
        let op = next_placement(&situation(&topology, &voters));
        let Some(op @ MetaOp::Prefer { .. }) = op else { break };
        apply(&mut topology, op);
    }
    let now = situation(&topology, &voters);
    let Some(MetaOp::Place { group, .. }) = next_placement(&now) else { panic!("others wait as well") };
    assert_ne!(group, waiting);
}

/// A group of four whose replica was to move from node 4 to node 1, and the voters it has.
fn waiting_group(topology: &mut Topology) -> (GroupId, BTreeMap<GroupId, BTreeSet<ReplicaId>>) {
    let (waiting, info) = (topology.groups().iter())
        .find(|(_, info)| !info.homes().any(|home| home == node(1)))
        .map(|(group, info)| (*group, info.clone()))
        .expect("three of four have a group");
    let remove = info.replicas.iter().find(|(_, home)| **home == node(4)).map(|(id, _)| *id);
    let (epoch, why) = (topology.epoch(), String::new());
    apply(topology, MetaOp::Place { epoch, group: waiting, remove, add: Some(node(1)), why });
    (waiting, [(waiting, info.replicas.into_keys().collect())].into())
}

fn while_waiting<'a>(
    topology: &'a Topology,
    voters: &BTreeMap<GroupId, BTreeSet<ReplicaId>>,
    full: &[u8],
) -> Situation<'a> {
    let mut now = at_rest(topology);
    now.moving = voters.keys().copied().collect();
    now.settled.retain(|group| !voters.contains_key(group));
    let full: BTreeSet<NodeId> = full.iter().copied().map(node).collect();
    Situation { voters: voters.clone(), tight: full.clone(), full, ..now }
}

#[test]
fn a_group_that_waits_for_a_full_node_holds_nobody_up() {
    let mut topology = fixture_topology(4, 4, 3);
    let (waiting, voters) = waiting_group(&mut topology);
    give_up(&mut topology, 4);
    while let Some(op @ MetaOp::Prefer { .. }) = next_placement(&while_waiting(&topology, &voters, &[1])) {
        apply(&mut topology, op);
    }
    assert!(while_waiting(&topology, &voters, &[]).is_busy(), "it is on its way");
    assert_eq!(next_placement(&while_waiting(&topology, &voters, &[])), None);
    let op = next_placement(&while_waiting(&topology, &voters, &[1]));
    let Some(MetaOp::Place { group, .. }) = op else { panic!("others wait as well: {op:?}") };
    assert_ne!(group, waiting);
}

#[test]
fn a_replica_whose_new_home_is_full_stays_where_it_was_or_goes_elsewhere() {
    let mut topology = fixture_topology(4, 4, 3);
    let (waiting, voters) = waiting_group(&mut topology);
    let op = next_placement(&while_waiting(&topology, &voters, &[1]));
    let Some(op @ MetaOp::Keep { group, .. }) = op else { panic!("it waits for space: {op:?}") };
    assert_eq!(group, waiting);
    apply(&mut topology, op);
    let info = topology.group(waiting).unwrap();
    assert!(info.replicas.keys().eq(&voters[&waiting]), "{info:?}");
    // The copy that is on its way makes the node short of space.
    let mut topology = fixture_topology(4, 4, 3);
    let (waiting, voters) = waiting_group(&mut topology);
    let short = Situation { tight: BTreeSet::new(), ..while_waiting(&topology, &voters, &[1]) };
    let op = next_placement(&short);
    let is_of_waiting =
        matches!(&op, Some(MetaOp::Keep { group, .. } | MetaOp::Place { group, .. }) if *group == waiting);
    assert!(!is_of_waiting, "it would be sent again and again: {op:?}");
    // The one that was to go leaves the cluster, and another node has space.
    let mut topology = fixture_topology(4, 4, 3);
    let (waiting, voters) = waiting_group(&mut topology);
    join(&mut topology, 5);
    drain(&mut topology, 4, None);
    let leads_away = |topology: &Topology| next_placement(&while_waiting(topology, &voters, &[1]));
    while let Some(op @ MetaOp::Prefer { .. }) = leads_away(&topology) {
        apply(&mut topology, op);
    }
    let op = leads_away(&topology);
    let Some(MetaOp::Place { group, remove: Some(_), add, ref why, .. }) = op else { panic!("it waits: {op:?}") };
    assert_eq!((group, add, why.as_str()), (waiting, Some(node(5)), "127.0.0.1:7001 has no space for it"));
}

#[test]
fn no_group_is_made_for_a_node_that_is_given_up_nor_with_too_few_replicas() {
    let mut topology = fixture_topology(3, 0, 3);
    give_up(&mut topology, 3);
    join(&mut topology, 4);
    carry_out(&mut topology);
    assert_eq!(topology.groups().len(), 3, "as many as there are nodes to lead them");
    apply(&mut topology, MetaOp::Absent { node: node(3), counted_ms: 0, given_up: false });
    carry_out(&mut topology);
    assert_eq!(topology.groups().len(), 4, "it is back");
    let mut scarce = fixture_topology(3, 0, 3);
    join(&mut scarce, 4);
    let full = Situation { full: [node(2), node(3)].into(), ..at_rest(&scarce) };
    assert!(!matches!(next_placement(&full), Some(MetaOp::MakeGroup { .. })), "two nodes have space");
}

#[test]
fn a_node_that_joins_gets_a_group_with_its_share_of_slots_and_gives_them_back_when_it_leaves() {
    let mut topology = fixture_topology(3, 0, 3);
    join(&mut topology, 4);
    let soon = Situation { quiet: false, ..at_rest(&topology) };
    assert!(!matches!(next_placement(&soon), Some(MetaOp::MakeGroup { .. })), "it may be there to replace another");
    carry_out(&mut topology);
    let led: Vec<GroupId> = (topology.groups().iter())
        .filter(|(_, info)| info.replicas[&info.preferred] == node(4))
        .map(|(group, _)| *group)
        .collect();
    assert_eq!(led, [GroupId(4)]);
    assert_eq!(topology.slots_of(GroupId(4)).count(), 256);
    drain(&mut topology, 4, None);
    let plan = whole_plan(&at_rest(&topology), &SlotWeights::equal());
    let told: Vec<&str> = plan.iter().map(|step| step.what.as_str()).collect();
    assert!(told.contains(&"group 4 is dissolved"), "{told:?}");
    carry_out(&mut topology);
    assert_eq!(topology.groups().len(), 3);
    assert_eq!(topology.replicas_on(node(4)).count(), 0);
}

/// As Redis's tools retire a node: its slots away, then the node.
#[test]
fn a_node_that_was_emptied_by_hand_takes_its_group_along_and_what_it_gave_away_stays() {
    let mut topology = fixture_topology(4, 0, 3);
    let (first, to) = (topology.next_move(), GroupId(4));
    let slots: BTreeSet<_> = topology.slots_of(GroupId(1)).collect();
    assert_eq!(topology.preferred_node(GroupId(1)), Some(node(1)));
    let op = MetaOp::StartMoves { first, to, slots: slots.clone(), why: String::new(), by_hand: true };
    apply(&mut topology, op);
    finish(&mut topology);
    assert!(topology.groups_held_empty().eq([GroupId(1)]));
    drain(&mut topology, 1, None);
    assert_eq!(topology.leaving_groups(), [GroupId(1)].into());
    assert_eq!(topology.groups_held_empty().next(), None, "it is to be dissolved");
    carry_out(&mut topology);
    assert!(topology.groups().keys().copied().eq([2, 3, 4].map(GroupId)));
    assert_eq!(topology.placed_by_hand(), &[(to, slots)].into());
    assert_eq!(leaders(&topology), [1, 1, 1]);
    assert_eq!(topology.replicas_on(node(1)).count(), 0);
}

#[test]
fn the_group_that_is_to_be_dissolved_is_the_same_until_it_is() {
    let mut topology = fixture_topology(4, 0, 3);
    // On its way to group 1, so that group is not empty.
    let mine: BTreeSet<_> = topology.slots_of(GroupId(1)).collect();
    for (to, slots) in [(2, mine.clone()), (1, mine.into_iter().take(1).collect())] {
        let (first, to) = (topology.next_move(), GroupId(to));
        apply(&mut topology, MetaOp::StartMoves { first, to, slots, why: String::new(), by_hand: true });
        if to == GroupId(2) {
            finish(&mut topology);
        }
    }
    drain(&mut topology, 2, None);
    assert_eq!(topology.leaving_groups(), [GroupId(4)].into());
    finish(&mut topology);
    while let Some(op) = next_slots(&topology, &SlotWeights::equal(), &BTreeSet::new()) {
        apply(&mut topology, op);
        let ids: Vec<_> = topology.moves().map(|(id, _)| id).collect();
        for op in ids.iter().map(|id| MetaOp::CommitMove { id: *id }) {
            apply(&mut topology, op);
            assert_eq!(topology.leaving_groups(), [GroupId(4)].into());
        }
        finish(&mut topology);
    }
    assert_eq!(topology.leaving_groups(), [GroupId(4)].into());
    assert!(!topology.is_in_use(GroupId(4)));
}

#[test]
fn a_group_that_lost_its_initializer_before_it_had_a_leader_is_made_anew() {
    let mut topology = fixture_topology(3, 0, 3);
    join(&mut topology, 4);
    let op = next_placement(&at_rest(&topology));
    let Some(MetaOp::Place { .. } | MetaOp::MakeGroup { .. }) = op else { panic!("{op:?}") };
    let made = MetaOp::MakeGroup { epoch: topology.epoch(), homes: vec![node(4), node(1)], why: String::new() };
    apply(&mut topology, made);
    let fresh = GroupId(4);
    let leaderless = |topology: &Topology| {
        let mut now = at_rest(topology);
        now.settled.remove(&fresh);
        next_placement(&now)
    };
    assert!(!matches!(leaderless(&topology), Some(MetaOp::Dissolve { .. })), "its initializer may come to it yet");
    give_up(&mut topology, 4);
    let Some(op @ MetaOp::Dissolve { group, .. }) = leaderless(&topology) else { panic!("it waits for a lost node") };
    assert_eq!(group, fresh);
    apply(&mut topology, op);
    carry_out(&mut topology);
    assert!(topology.group(fresh).is_none() && topology.groups().len() == 3);
    apply(&mut topology, MetaOp::Absent { node: node(4), counted_ms: 0, given_up: false });
    carry_out(&mut topology);
    assert_eq!(topology.groups().len(), 4, "another is made when it is back");
}

#[test]
fn a_successor_gets_all_that_the_replaced_node_had() {
    let mut topology = fixture_topology(3, 3, 3);
    join(&mut topology, 4);
    join(&mut topology, 5);
    drain(&mut topology, 2, Some(5));
    let had: BTreeSet<GroupId> = topology.replicas_on(node(2)).map(|(group, _)| group).collect();
    let plan = whole_plan(&at_rest(&topology), &SlotWeights::equal());
    let to_successor = plan.iter().filter(|step| step.why.contains("7002 leaves") && step.what.ends_with("7005"));
    assert_eq!(to_successor.count(), had.len());
}

#[test]
fn a_cluster_too_small_for_its_replicas_may_shrink_and_one_that_is_not_may_not() {
    let mut small = fixture_topology(2, 2, 3);
    drain(&mut small, 1, None);
    carry_out(&mut small);
    assert_eq!(small.replicas_on(node(1)).count(), 0);
    apply(&mut small, MetaOp::Forget { node: node(1) });
    let mut exact = fixture_topology(3, 3, 3);
    let op = MetaOp::Drain { node: node(1), successor: None, gone: true };
    let refusal = exact.apply(&op).unwrap_err().to_string();
    assert!(refusal.starts_with("2 node(s) that are up would be left for 3 replicas"), "{refusal}");
}

#[test]
fn a_dead_node_that_is_replaced_is_not_said_to_have_been_away_for_too_long() {
    for (successor, why) in
        [(Some(4), "127.0.0.1:7003 is to be replaced by 127.0.0.1:7004"), (None, "127.0.0.1:7003 leaves the cluster")]
    {
        let mut topology = fixture_topology(3, 3, 3);
        join(&mut topology, 4);
        apply(&mut topology, MetaOp::Drain { node: node(3), successor: successor.map(node), gone: true });
        let plan = whole_plan(&at_rest(&topology), &SlotWeights::equal());
        let moved: Vec<&str> =
            plan.iter().filter(|step| step.what.contains("replica of")).map(|step| step.why.as_str()).collect();
        assert_eq!(moved, [why; 3]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_plan_ends_in_an_even_cluster(
        nodes in 1_u8..8, joins in 0_u8..5, groups in 0_u32..12, factor in 1_u32..5,
        leaves in prop::collection::btree_set(1_u8..13, 0..4), lost in prop::collection::btree_set(1_u8..13, 0..2)
    ) {
        let mut topology = fixture_topology(nodes.into(), groups, factor);
        (nodes + 1..=nodes + joins).for_each(|number| join(&mut topology, number));
        for number in leaves.iter().copied().filter(|number| *number <= nodes + joins) {
            let _ = topology.apply(&MetaOp::Drain { node: node(number), successor: None, gone: false });
        }
        for number in lost.iter().copied().filter(|number| *number <= nodes + joins) {
            // Somebody must be there to lead.
            if topology.draining(node(number)).is_none() && topology.staying().count() > 1 {
                give_up(&mut topology, number);
            }
        }
        carry_out(&mut topology);
        let (staying, there) = (topology.staying().count(), counts(&topology, |_| 0).len());
        let wished = if groups == 0 { topology.groups().len() } else { groups as usize };
        prop_assert_eq!(topology.groups().len(), wished);
        // None is made with fewer copies than are asked for.
        let least = if there < staying.min(factor as usize) { 1 } else { there };
        prop_assert!(groups > 0 || (least..=staying).contains(&wished), "{wished} groups for {there} of {staying} nodes");
        let share = 1024 / wished;
        for group in topology.groups().keys() {
            let slots = topology.slots_of(*group).count();
            prop_assert!((share * 9 / 10..=share * 11 / 10 + 1).contains(&slots), "group {group}: {slots}");
        }
        let fit = counts(&topology, |_| 0).len();
        for info in topology.groups().values() {
            let homes: BTreeSet<NodeId> = info.replicas.values().copied().collect();
            prop_assert_eq!(homes.len(), info.replicas.len());
            let fit_homes = homes.iter().filter(|home| topology.draining(**home).is_none() && !topology.is_given_up(**home));
            prop_assert_eq!(fit_homes.count(), fit.min(factor as usize), "all that can be had");
        }
        if topology.staying().all(|node| !topology.is_given_up(node)) {
            prop_assert!(spread(&replicas(&topology)) <= 1, "{:?}", replicas(&topology));
            prop_assert!(spread(&leaders(&topology)) <= 1, "{:?}", leaders(&topology));
            let left: Vec<NodeId> = topology.nodes().keys().copied().filter(|node| topology.draining(*node).is_some()).collect();
            for node in left {
                apply(&mut topology, MetaOp::Forget { node });
            }
        }
        prop_assert_eq!(next_placement(&at_rest(&topology)), None);
    }
}

#[test]
fn a_plan_that_is_shown_lets_go_of_what_an_operator_has_placed_as_carrying_it_out_does() {
    let mut topology = fixture_topology(2, 2, 2);
    let (first, to) = (topology.next_move(), GroupId(2));
    let slots = topology.slots_of(GroupId(1)).collect();
    apply(&mut topology, MetaOp::StartMoves { first, to, slots, why: String::new(), by_hand: true });
    finish(&mut topology);
    assert_eq!(next_slots(&topology, &SlotWeights::equal(), &BTreeSet::new()), None);
    let shown = whole_plan(&at_rest(&topology), &SlotWeights::equal());
    assert!(!shown.is_empty());
    apply(&mut topology, MetaOp::EvenSlots);
    assert_eq!(whole_plan(&at_rest(&topology), &SlotWeights::equal()), shown);
    assert_eq!(carry_out(&mut topology), shown.len());
}
