//! What meta ops do to a topology, one by one and in random sequences.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture::{info, node, plan, topology};
use super::{
    GroupId, MetaError, MetaOp, MetaOutcome, MetaRole, NodeId, NodeInfo, ReplicaId, Topology, TopologyError,
    WantedSettings, apply_meta, changes_tests,
};
use crate::clock::Timestamp;

const AT: Timestamp = Timestamp(5);

fn join(topology: &Topology, number: u8, at: u8) -> MetaOp {
    MetaOp::Join { node: node(number), info: info(at), settings: WantedSettings::from(topology.settings()) }
}

#[test]
fn the_first_entry_founds_and_only_the_same_plan_may_come_again() {
    let mut state = None;
    let found = MetaOp::Found(Box::new(plan(3, 3, 3)));
    assert_eq!(apply_meta(&mut state, &MetaOp::Forget { node: node(1) }, AT), Err(MetaError::NotFounded));
    assert_eq!(apply_meta(&mut state, &found, AT), Ok(MetaOutcome::Founded));
    let founded = state.as_ref().expect("founded");
    assert_eq!(founded.events()[0].what, "the cluster was founded");
    assert_eq!(Topology { events: Default::default(), ..founded.clone() }, topology(3, 3, 3));
    assert_eq!(apply_meta(&mut state, &found, AT), Ok(MetaOutcome::Unchanged));
    let plan = plan(3, 3, 3);
    let seed = super::fixture::seed(2);
    let other = super::FoundingPlan::new(1, node(1), plan.intent().clone(), &super::fixture::members(3), seed).unwrap();
    let refusal = MetaError::AlreadyFounded(plan.cluster_id());
    assert_eq!(apply_meta(&mut state, &MetaOp::Found(Box::new(other)), AT), Err(refusal));
}

#[test]
fn a_new_node_becomes_a_meta_member_without_data_and_joining_again_changes_nothing() {
    let mut topology = topology(5, 5, 3);
    let op = join(&topology, 6, 6);
    let fresh = topology.next_replica_id;
    assert_eq!(topology.apply(&op), Ok(MetaOutcome::Joined { meta: fresh }));
    assert_eq!(topology.meta_members()[&fresh], (node(6), MetaRole::Learner));
    assert_eq!(topology.replicas_on(node(6)).count(), 0);
    let after = topology.clone();
    assert_eq!(topology.apply(&op), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology, after, "not even the epoch moves");
}

#[test]
fn a_node_with_other_settings_is_refused_with_both_values() {
    let mut topology = topology(3, 3, 3);
    let settings = WantedSettings { groups: Some(6), replicas: None, hash_check: 7 };
    let error = topology.apply(&MetaOp::Join { node: node(4), info: info(4), settings }).unwrap_err();
    assert_eq!(error.to_string(), "settings differ from the cluster's: groups 6 here, 3 in the cluster");
}

#[test]
fn a_wiped_node_takes_its_old_places_with_fresh_ids_and_its_old_self_is_locked_out() {
    let mut topology = topology(3, 3, 3);
    let before = topology.clone();
    let op = join(&topology, 33, 3);
    let Ok(MetaOutcome::Replaced { old, meta, replicas }) = topology.apply(&op) else { panic!("must replace") };
    assert_eq!(old, node(3));
    assert_eq!(topology.meta_members()[&meta], (node(33), MetaRole::Voter));
    for (group, info) in topology.groups() {
        let fresh = replicas[group];
        assert!(fresh >= before.next_replica_id && meta >= before.next_replica_id);
        assert_eq!(info.replicas[&fresh], node(33));
        assert_eq!(info.replicas.len(), 3);
        assert!(!info.replicas.values().any(|home| *home == node(3)));
        assert_eq!(info.founding, before.group(*group).unwrap().founding, "how a group began never changes");
    }
    assert_eq!(topology.group(GroupId(3)).unwrap().preferred, replicas[&GroupId(3)], "leaders stay spread");
    assert_eq!(topology.epoch().0, before.epoch().0 + 1);
    // The late duplicate of the lost node's own Join must not evict its successor.
    let late = join(&topology, 3, 3);
    assert_eq!(topology.apply(&late), Err(MetaError::WasForgotten(node(3))));
}

#[test]
fn a_group_is_created_by_a_surviving_founding_replica_and_never_again_if_none_survives() {
    let mut replicated = topology(3, 3, 3);
    let founding = replicated.group(GroupId(1)).unwrap().founding.clone();
    replicated.apply(&join(&replicated, 11, 1)).unwrap();
    let initializer = replicated.group(GroupId(1)).unwrap().initializer;
    assert_eq!(founding[&initializer], node(2));
    assert_eq!(replicated.presumed_leader(GroupId(1)), Some(node(2)));

    let mut single = topology(3, 3, 1);
    let lost = single.group(GroupId(1)).unwrap().initializer;
    single.apply(&join(&single, 11, 1)).unwrap();
    assert_eq!(single.group(GroupId(1)).unwrap().initializer, lost);
    assert_eq!(single.presumed_leader(GroupId(1)), Some(node(11)), "a registered node all the same");
}

#[test]
fn a_group_is_created_by_another_founding_replica_while_its_initializer_is_away() {
    let mut topology = topology(3, 3, 3);
    let initializer = |topology: &Topology| {
        let info = topology.group(GroupId(1)).unwrap();
        info.founding[&info.initializer]
    };
    let away = |number, counted_ms| MetaOp::Absent { node: node(number), counted_ms, given_up: false };
    let first = initializer(&topology);
    let others: Vec<u8> = (1..=3).filter(|number| node(*number) != first).collect();
    let number = (1..=3).find(|number| node(*number) == first).unwrap();
    topology.apply(&away(number, 3_000)).unwrap();
    assert_eq!(initializer(&topology), node(others[0]));
    topology.apply(&away(others[0], 3_000)).unwrap();
    assert_eq!(initializer(&topology), node(others[1]));
    topology.apply(&away(others[1], 3_000)).unwrap();
    assert_eq!(initializer(&topology), node(others[1]), "nobody else is there");
    topology.validate().unwrap();
}

#[test]
fn addresses_change_for_members_only_and_whoever_was_there_has_none_until_it_tells() {
    let mut topology = topology(3, 3, 3);
    let update = |number, at| MetaOp::UpdateAddress { node: node(number), info: info(at) };
    assert_eq!(topology.apply(&update(1, 9)), Ok(MetaOutcome::AddressUpdated));
    assert_eq!(topology.node_at(&info(9).address()), Some(node(1)));
    assert_eq!(topology.apply(&update(1, 9)), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology.apply(&update(8, 8)), Err(MetaError::UnknownNode(node(8))));
    let moved_peer_port = NodeInfo { peer_port: 1, ..info(9) };
    let op = MetaOp::UpdateAddress { node: node(1), info: moved_peer_port };
    assert_eq!(topology.apply(&op), Ok(MetaOutcome::AddressUpdated));
    // A late duplicate of its first Join must not bring the old address back.
    let late = join(&topology, 1, 1);
    assert_eq!(topology.apply(&late), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology.node_at(&info(1).address()), None);
    // Two that exchange theirs, in either order.
    assert_eq!(topology.apply(&update(2, 3)), Ok(MetaOutcome::AddressUpdated));
    assert_eq!(topology.node_at(&info(3).address()), Some(node(2)));
    let unknown = topology.node(node(3)).unwrap().clone();
    assert!(!unknown.is_known() && super::Address::parse(&unknown.address().to_string()) == Some(unknown.address()));
    assert_eq!(topology.apply(&update(2, 3)), Ok(MetaOutcome::Unchanged));
    assert_eq!(topology.apply(&update(3, 2)), Ok(MetaOutcome::AddressUpdated));
    assert_eq!((topology.node(node(2)), topology.node(node(3))), (Some(&info(3)), Some(&info(2))));
}

#[test]
fn the_place_of_a_node_that_is_nowhere_is_nobody_elses() {
    let mut topology = topology(3, 3, 3);
    let update = |number, info: NodeInfo| MetaOp::UpdateAddress { node: node(number), info };
    let squatted = NodeInfo { peer_port: 1, ..NodeInfo::unknown(node(3), &info(3)) };
    assert_eq!(topology.apply(&update(1, squatted)), Ok(MetaOutcome::AddressUpdated));
    // Node 3 would have to go where node 1 is.
    let refused = topology.apply(&update(2, info(3)));
    assert_eq!(refused, Err(MetaError::AddressTaken { address: info(3).address(), holder: node(3) }));
    assert_eq!(topology.validate(), Ok(()));
}

#[test]
fn only_a_node_without_data_can_be_forgotten() {
    let mut topology = topology(3, 3, 3);
    let forget = |number| MetaOp::Forget { node: node(number) };
    assert_eq!(topology.apply(&forget(1)), Err(MetaError::HoldsReplica { node: node(1), group: GroupId(1) }));
    assert_eq!(topology.apply(&forget(9)), Err(MetaError::UnknownNode(node(9))));
    topology.apply(&join(&topology.clone(), 4, 4)).unwrap();
    assert_eq!(topology.apply(&forget(4)), Err(MetaError::Stays(node(4))), "nobody has asked for it");
    topology.apply(&MetaOp::Drain { node: node(4), successor: None, gone: false }).unwrap();
    assert_eq!(topology.apply(&forget(4)), Ok(MetaOutcome::Forgotten));
    assert_eq!(topology.apply(&forget(4)), Ok(MetaOutcome::Unchanged));
    assert!(topology.was_forgotten(node(4)) && topology.node(node(4)).is_none());
}

#[test]
fn a_topology_survives_encoding_and_inconsistent_ones_are_refused() {
    let topology = topology(3, 3, 3);
    assert_eq!(Topology::decode(&topology.encode()), Ok(topology.clone()));
    let refuse = |spoil: fn(&mut Topology)| {
        let mut spoilt = topology.clone();
        spoil(&mut spoilt);
        Topology::decode(&spoilt.encode()).unwrap_err()
    };
    assert_eq!(refuse(|it| it.slots.truncate(1023)), TopologyError::SlotCount(1023));
    assert_eq!(refuse(|it| it.slots[5] = GroupId(9)), TopologyError::SlotWithoutGroup(5, GroupId(9)));
    assert_eq!(refuse(|it| it.next_replica_id = ReplicaId(4)), TopologyError::ReplicaId(ReplicaId(4)));
    assert_eq!(refuse(|it| drop(it.nodes.remove(&node(1)))), TopologyError::NodesDiffer(2, 2, 3));
    assert_eq!(refuse(|it| it.nodes.clear()), TopologyError::NodeCount(0));
    let preferred = |it: &mut Topology| it.groups.get_mut(&GroupId(2)).unwrap().preferred = ReplicaId(77);
    assert_eq!(refuse(preferred), TopologyError::Group(GroupId(2)));
    let stray = |it: &mut Topology| {
        it.groups.get_mut(&GroupId(2)).unwrap().replicas.insert(ReplicaId(1), node(9));
    };
    assert_eq!(refuse(stray), TopologyError::ReplicaWithoutNode(GroupId(2), ReplicaId(1), node(9)));
}

fn any_op() -> impl Strategy<Value = (u8, u8, u8)> {
    (0_u8..9, 1_u8..24, 1_u8..8)
}

/// Every (group, replica, node) that the topology knows; group 0 is meta.
fn placements(topology: &Topology) -> BTreeSet<(GroupId, ReplicaId, NodeId)> {
    let of_groups = topology.groups().iter().flat_map(|(group, info)| {
        info.replicas.iter().chain(&info.founding).map(|(replica, home)| (*group, *replica, *home))
    });
    of_groups.chain(topology.meta.iter().map(|(replica, home)| (GroupId::META, *replica, *home))).collect()
}

proptest! {
    #[test]
    fn replica_ids_are_never_reused_epochs_rise_with_every_change_and_entries_repeat_safely(
        nodes in 1_usize..6, groups in 1_u32..7, replicas in 1_u32..4, ops in prop::collection::vec(any_op(), 0..40)
    ) {
        let mut topology = topology(nodes, groups, replicas);
        let mut twin = topology.clone();
        let mut ever = placements(&topology);
        for (kind, number, at) in ops {
            let op = match kind {
                0 => join(&topology, number, at),
                1 => MetaOp::UpdateAddress { node: node(number), info: info(at) },
                2 => MetaOp::Forget { node: node(number) },
                kind => changes_tests::op(&topology, kind, number, at),
            };
            prop_assert_eq!(MetaOp::decode(&op.encode()), Ok(op.clone()));
            let before = topology.clone();
            let outcome = topology.apply(&op);
            prop_assert_eq!(&outcome, &twin.apply(&op));
            prop_assert_eq!(topology.encode(), twin.encode());
            match outcome {
                Ok(MetaOutcome::Unchanged) | Err(_) => prop_assert_eq!(&topology, &before),
                Ok(_) => {
                    prop_assert_eq!(topology.epoch().0, before.epoch().0 + 1);
                    let after = topology.clone();
                    let again = topology.apply(&op);
                    let is_planned = matches!(op, MetaOp::Place { .. } | MetaOp::Prefer { .. });
                    let did_nothing = again == Ok(MetaOutcome::Unchanged) || is_planned && again.is_err();
                    prop_assert!(did_nothing, "{:?}", again);
                    prop_assert_eq!(&topology, &after);
                }
            }
            for placement in placements(&topology) {
                let is_old = ever.contains(&placement);
                prop_assert!(is_old || placement.1 >= before.next_replica_id, "{:?} was used before", placement.1);
                ever.insert(placement);
            }
            let ids: BTreeSet<ReplicaId> = ever.iter().map(|(_, replica, _)| *replica).collect();
            prop_assert_eq!(ids.len(), ever.len(), "one id, one replica, for ever");
            prop_assert_eq!(topology.meta_members().len(), topology.nodes().len());
        }
    }
}
