//! Replicas that move, nodes that are away, nodes that leave; and the story that the events tell of it.

use super::fixture::{info, node, topology};
use super::{
    Epoch, GroupId, MetaError, MetaOp, MetaOutcome, MetaRole, NodeId, ReplicaId, Topology, WantedSettings, apply_meta,
};
use crate::clock::Timestamp;

const FIRST: GroupId = GroupId(1);

fn join(topology: &mut Topology, number: u8) {
    let settings = WantedSettings::from(topology.settings());
    topology.apply(&MetaOp::Join { node: node(number), info: info(number), settings }).unwrap();
}

fn absent(number: u8, counted_ms: u64, given_up: bool) -> MetaOp {
    MetaOp::Absent { node: node(number), counted_ms, given_up }
}

fn drain(number: u8, successor: Option<u8>, gone: bool) -> MetaOp {
    MetaOp::Drain { node: node(number), successor: successor.map(node), gone }
}

fn place(topology: &Topology, remove: Option<ReplicaId>, add: Option<u8>) -> MetaOp {
    MetaOp::Place { epoch: topology.epoch(), group: FIRST, remove, add: add.map(node), why: "a test".to_owned() }
}

fn replica_on(topology: &Topology, number: u8) -> ReplicaId {
    topology.replicas_on(node(number)).find(|(group, _)| *group == FIRST).expect("it has one").1
}

/// One of the ops of `changes.rs`, for sequences that are drawn; also ones that make no sense.
pub(super) fn op(topology: &Topology, kind: u8, number: u8, at: u8) -> MetaOp {
    let group = GroupId(u32::from(at) % 4);
    let replicas =
        topology.group(group).map(|info| info.replicas.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
    let replica = replicas.get(usize::from(number) % 3).copied().unwrap_or(ReplicaId(number.into()));
    let epoch = Epoch(topology.epoch().0 - u64::from(number.is_multiple_of(7)));
    let why = String::new();
    match kind {
        3 => {
            let (remove, add) = (
                Some(replica).filter(|_| !number.is_multiple_of(3)),
                Some(node(number)).filter(|_| !at.is_multiple_of(3)),
            );
            MetaOp::Place { epoch, group, remove, add, why }
        }
        4 => MetaOp::Prefer { epoch, group, replica, why },
        5 => {
            let departing = topology.group(group).and_then(|info| info.departing.keys().next().copied());
            MetaOp::Departed { group, replica: departing.unwrap_or(replica) }
        }
        6 => MetaOp::Absent { node: node(number), counted_ms: at.into(), given_up: at.is_multiple_of(2) },
        7 => MetaOp::Drain {
            node: node(number),
            successor: Some(node(at)).filter(|_| at.is_multiple_of(2)),
            gone: at.is_multiple_of(3),
        },
        _ => MetaOp::Stay { node: node(number) },
    }
}

#[test]
fn a_removal_is_taken_back_until_the_node_is_forgotten() {
    let mut topology = topology(4, 4, 3);
    let stay = MetaOp::Stay { node: node(4) };
    assert_eq!(topology.apply(&stay), Ok(MetaOutcome::Unchanged));
    topology.apply(&drain(4, Some(1), false)).unwrap();
    assert_eq!(topology.apply(&stay), Ok(MetaOutcome::Changed));
    assert!(topology.draining(node(4)).is_none() && topology.staying().any(|stays| stays == node(4)));
    topology.apply(&drain(4, None, true)).unwrap();
    assert!(topology.is_given_up(node(4)));
    topology.apply(&stay).unwrap();
    assert_eq!(topology.absence_of(node(4)), None, "it may come back after all");
    join(&mut topology, 5);
    topology.apply(&drain(5, None, false)).unwrap();
    topology.apply(&MetaOp::Forget { node: node(5) }).unwrap();
    assert_eq!(topology.apply(&MetaOp::Stay { node: node(5) }), Err(MetaError::WasForgotten(node(5))));
    assert_eq!(topology.apply(&MetaOp::Stay { node: node(9) }), Err(MetaError::UnknownNode(node(9))));
}

#[test]
fn a_replica_that_moves_stays_until_its_group_has_let_go_of_it() {
    let mut topology = topology(3, 3, 3);
    join(&mut topology, 4);
    let old = topology.group(FIRST).unwrap().preferred;
    assert_eq!(topology.group(FIRST).unwrap().replicas[&old], node(1));
    let op = place(&topology, Some(old), Some(4));
    assert_eq!(topology.apply(&op), Ok(MetaOutcome::Changed));
    let group = topology.group(FIRST).unwrap();
    let new = replica_on(&topology, 4);
    assert_eq!((group.replicas[&new], group.preferred), (node(4), new), "leaders stay spread");
    assert_eq!(group.departing, [(old, node(1))].into());
    assert_eq!(replica_on(&topology, 1), old, "it is still hosted");
    assert!(matches!(topology.apply(&op), Err(MetaError::Outdated { .. })), "a late duplicate does nothing");
    let back = place(&topology, None, Some(1));
    assert_eq!(topology.apply(&back), Err(MetaError::HoldsReplica { node: node(1), group: FIRST }), "two on one node");
    let departed = MetaOp::Departed { group: FIRST, replica: old };
    assert_eq!(topology.apply(&departed), Ok(MetaOutcome::Changed));
    assert_eq!(topology.apply(&departed), Ok(MetaOutcome::Unchanged));
    assert!(topology.replicas_on(node(1)).all(|(group, _)| group != FIRST));
}

#[test]
fn a_node_that_joins_in_the_place_of_one_that_was_to_give_a_replica_up_does_not_get_it_again() {
    let mut topology = topology(3, 3, 3);
    join(&mut topology, 4);
    let op = place(&topology, Some(replica_on(&topology, 1)), Some(4));
    topology.apply(&op).unwrap();
    let settings = WantedSettings::from(topology.settings());
    topology.apply(&MetaOp::Join { node: node(11), info: info(1), settings }).unwrap();
    assert!(topology.group(FIRST).unwrap().departing.is_empty());
    assert!(topology.replicas_on(node(11)).all(|(group, _)| group != FIRST));
}

#[test]
fn the_last_replica_of_a_group_and_what_is_not_there_are_not_taken_away() {
    let mut topology = topology(1, 1, 1);
    let only = replica_on(&topology, 1);
    let refuse = |topology: &mut Topology, remove, add| {
        let op = place(topology, remove, add);
        topology.apply(&op).unwrap_err()
    };
    assert_eq!(refuse(&mut topology, Some(only), None), MetaError::LastReplica(FIRST));
    let stranger = ReplicaId(77);
    let unknown = MetaError::UnknownReplica { group: FIRST, replica: stranger };
    assert_eq!(refuse(&mut topology, Some(stranger), None), unknown);
    assert_eq!(refuse(&mut topology, None, Some(9)), MetaError::UnknownNode(node(9)));
}

#[test]
fn meta_voters_are_an_odd_number_of_nodes_that_stay_rather_of_those_that_are_there() {
    let voters = |topology: &Topology| {
        let members = topology.meta_members();
        members.values().filter(|(_, role)| *role == MetaRole::Voter).map(|(home, _)| *home).collect::<Vec<NodeId>>()
    };
    for (nodes, expected) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5)] {
        assert_eq!(voters(&topology(nodes, 1, 1)).len(), expected, "{nodes} nodes");
    }
    let mut four = topology(4, 4, 3);
    four.apply(&absent(1, 1, true)).unwrap();
    assert_eq!(voters(&four), [2, 3, 4].map(node));
    four.apply(&absent(1, 0, false)).unwrap();
    assert_eq!(voters(&four), [1, 2, 3].map(node), "it is back");
    four.apply(&drain(2, None, false)).unwrap();
    assert_eq!(voters(&four), [1, 3, 4].map(node));
    let mut three = topology(3, 3, 3);
    three.apply(&absent(1, 1, true)).unwrap();
    assert_eq!(voters(&three).len(), 3, "one that may come back is better than none");
}

#[test]
fn a_removal_is_refused_if_too_few_nodes_would_be_left() {
    let mut three = topology(3, 3, 3);
    assert_eq!(three.apply(&drain(1, None, false)), Err(MetaError::TooFewNodes { left: 2, replicas: 3 }));
    assert_eq!(three.apply(&drain(9, None, false)), Err(MetaError::UnknownNode(node(9))));
    join(&mut three, 4);
    let without = |able: &[u8]| three.check_places_without(node(1), |other| able.iter().any(|one| node(*one) == other));
    assert_eq!(without(&[1, 2, 3, 4]), Ok(()));
    assert_eq!(without(&[1, 2, 3]), Err(MetaError::TooFewNodes { left: 2, replicas: 3 }));
    // It holds nothing yet, and nobody counts on it.
    assert_eq!(three.clone().apply(&drain(4, None, false)), Ok(MetaOutcome::Changed));
    assert_eq!(three.apply(&drain(1, Some(1), false)), Err(MetaError::Leaves(node(1))));
    assert_eq!(three.apply(&drain(1, Some(4), true)), Ok(MetaOutcome::Changed));
    assert!(three.is_given_up(node(1)), "nobody waits for it");
    assert_eq!(three.apply(&drain(1, Some(4), true)), Ok(MetaOutcome::Unchanged));
    assert_eq!(three.apply(&drain(2, None, false)), Err(MetaError::TooFewNodes { left: 2, replicas: 3 }));
    assert_eq!(topology(1, 1, 3).apply(&drain(1, None, true)), Err(MetaError::LastNode));
}

#[test]
fn events_tell_what_happened_and_why_and_leave_out_what_nobody_needs_to_know() {
    let mut state = Some(topology(3, 3, 3));
    let settings = WantedSettings::from(state.as_ref().unwrap().settings());
    let moving = place(&topology(3, 3, 3), Some(replica_on(&topology(3, 3, 3), 2)), Some(4));
    let MetaOp::Place { group, remove, add, why, .. } = moving else { unreachable!("made above") };
    let place = MetaOp::Place { epoch: Epoch(2), group, remove, add, why };
    let ops = [
        MetaOp::Join { node: node(4), info: info(4), settings },
        place.clone(),
        place,
        absent(3, 3000, false),
        absent(3, 40_000, false),
        absent(3, 300_000, true),
        absent(3, 0, false),
        absent(3, 1000, false),
        absent(3, 0, false),
        MetaOp::PauseRebalance,
        MetaOp::PauseRebalance,
    ];
    for op in &ops {
        let _ = apply_meta(&mut state, op, Timestamp(7));
    }
    let events = state.as_ref().unwrap().events();
    let told: Vec<String> = events.iter().map(|event| format!("{} ({})", event.what, event.why)).collect();
    assert_eq!(
        told,
        [
            "127.0.0.1:7004 joined, node 4 of the cluster ()",
            "a replica of group 1 moves from 127.0.0.1:7002 to 127.0.0.1:7004 (a test)",
            "127.0.0.1:7003 is away: it has had no connection for 3 s ()",
            "127.0.0.1:7003 has been away for 300 s: its replicas are rebuilt elsewhere, if there is an elsewhere ()",
            "127.0.0.1:7003 is back ()",
            "127.0.0.1:7003 is away: it has had no connection for 1 s ()",
            "127.0.0.1:7003 is back ()",
            "rebalancing is paused (an operator asked for it)",
        ]
    );
    assert!(events.iter().all(|event| event.at == Timestamp(7)));
}

#[test]
fn a_feature_level_is_only_ever_raised() {
    let mut topology = topology(3, 3, 3);
    let mut raise = |level| {
        let outcome = topology.apply(&MetaOp::RaiseLevel { level }).unwrap();
        (outcome, topology.level())
    };
    assert_eq!(raise(1), (MetaOutcome::Unchanged, 1));
    assert_eq!(raise(3), (MetaOutcome::Changed, 3));
    assert_eq!(raise(2), (MetaOutcome::Unchanged, 3));
}
