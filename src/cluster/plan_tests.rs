//! Layouts of founding plans.

use std::collections::BTreeMap;

use super::fixture::{info, intent, members, node, plan, seed};
use super::{Founder, FoundingPlan, GroupId, MetaRole, NodeId, PlanError, PlanWarning, TopologyError};
use crate::slot::SLOT_COUNT;

#[test]
fn every_layout_is_valid_contiguous_and_balanced() {
    for nodes in 1..=9 {
        for groups in [1, 2, 3, 5, 9, 16, 1024] {
            for replicas in [1, 3, 5] {
                let plan = plan(nodes, groups, replicas);
                let topology = plan.topology();
                assert_eq!(topology.validate(), Ok(()));
                assert!(topology.slots().is_sorted(), "groups own contiguous ranges");
                let (mut leads, mut holds) = (BTreeMap::new(), BTreeMap::new());
                for (group, info) in topology.groups() {
                    let slot_count = topology.slots_of(*group).count();
                    assert!(slot_count.abs_diff(SLOT_COUNT / groups as usize) <= 1);
                    assert_eq!(info.replicas.len(), nodes.min(replicas as usize));
                    assert_eq!((info.initializer, &info.founding), (info.preferred, &info.replicas));
                    *leads.entry(info.replicas[&info.preferred]).or_insert(0_usize) += 1;
                    info.replicas.values().for_each(|home| *holds.entry(*home).or_insert(0_usize) += 1);
                }
                let spread = |counts: &BTreeMap<NodeId, usize>| {
                    let least = if counts.len() < nodes { 0 } else { *counts.values().min().unwrap() };
                    counts.values().max().unwrap() - least
                };
                assert!(spread(&leads) <= 1, "{nodes} nodes, {groups} groups, {replicas} replicas: {leads:?}");
                assert!(spread(&holds) <= nodes.min(replicas as usize), "{holds:?}");
            }
        }
    }
}

#[test]
fn the_first_five_nodes_are_meta_voters_and_the_others_learners() {
    let plan = plan(7, 7, 3);
    let members = plan.topology().meta_members();
    let voters: Vec<NodeId> =
        members.values().filter(|(_, role)| *role == MetaRole::Voter).map(|(home, _)| *home).collect();
    assert_eq!(voters, (1..=5).map(node).collect::<Vec<_>>());
    assert_eq!(members.len(), 7);
}

#[test]
fn settings_left_open_are_one_group_per_node_and_three_replicas() {
    let mut open = intent(4, 1, 1);
    (open.settings.groups, open.settings.replicas) = (None, None);
    let settings = open.settings().unwrap();
    assert_eq!((settings.groups, settings.replicas), (None, 3));
}

#[test]
fn fewer_nodes_than_replicas_is_said_and_the_wish_is_kept() {
    let plan = plan(2, 1, 3);
    assert_eq!(plan.topology().settings().replicas, 3);
    assert_eq!(plan.topology().group(GroupId(1)).unwrap().replicas.len(), 2);
    assert_eq!(
        plan.warnings(),
        [
            PlanWarning::FewerNodesThanReplicas { nodes: 2, replicas: 3 },
            PlanWarning::FewerGroupsThanNodes { groups: 1, nodes: 2 }
        ]
    );
    let texts: Vec<String> = plan.warnings().iter().map(PlanWarning::to_string).collect();
    assert_eq!(
        texts,
        [
            "3 replicas were asked for but there are 2 nodes: each group has 2",
            "2 nodes share 1 groups: 1 of them lead none"
        ]
    );
}

#[test]
fn impossible_intents_are_refused() {
    let new = |nodes, groups, replicas| {
        FoundingPlan::new(1, node(1), intent(nodes, groups, replicas), &members(nodes), seed(1))
    };
    let mut none = intent(3, 1, 3);
    none.settings.groups = Some(0);
    assert_eq!(FoundingPlan::new(1, node(1), none, &members(3), seed(1)), Err(PlanError::GroupCount(0)));
    assert_eq!(new(3, 1025, 3), Err(PlanError::GroupCount(1025)));
    assert_eq!(new(3, 3, 0), Err(PlanError::ReplicaCount(0)));
    assert_eq!(new(3, 3, 8), Err(PlanError::ReplicaCount(8)));
    let mut twice = members(2);
    twice.insert(info(2).address(), Founder { node: node(1), info: info(2) });
    assert_eq!(FoundingPlan::new(1, node(1), intent(2, 1, 1), &twice, seed(1)), Err(PlanError::SameNodeTwice));
    assert_eq!(FoundingPlan::new(1, node(1), intent(3, 1, 1), &members(2), seed(1)), Err(PlanError::Members));
}

#[test]
fn a_plan_survives_encoding_and_damage_is_refused_without_a_panic() {
    let plan = plan(3, 3, 3);
    let bytes = plan.encode();
    assert_eq!(FoundingPlan::decode(&bytes), Ok(plan));
    for length in (0..bytes.len()).step_by(7) {
        assert!(matches!(FoundingPlan::decode(&bytes[..length]), Err(PlanError::Topology(TopologyError::Codec(_)))));
    }
    for position in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[position] ^= flip;
            // Any answer will do: a checksum is the file's and the frame's business.
            let _ = FoundingPlan::decode(&damaged);
        }
    }
}
