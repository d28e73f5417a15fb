//! Hot path. Where a request for a key slot goes, as one table that is rebuilt when the topology, a hint or this node's own
//! leaderships change, and swapped whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{GroupId, Hints, NodeId, Topology};
use crate::slot::{KeySlot, SLOT_COUNT};

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// This node leads the group: run it here.
    Local(GroupId),
    /// Another node leads the group: answer MOVED with this `host:port`. Never this node's own.
    Moved(&'a Arc<str>),
    /// Nobody is known to lead the group now: an election is under way, no leader was heard of yet, or the one heard of is
    /// this node, which does not lead any more or not yet. Keep the request until the table changes.
    Park(GroupId),
    /// There is no topology: the node is not in a cluster yet. Answer CLUSTERDOWN.
    Down,
}

#[derive(Debug, Clone)]
enum GroupRoute {
    Local,
    Moved(Arc<str>),
    Park,
}

#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// For each slot, an index into `groups`; empty when there is no topology.
    slots: Box<[u16]>,
    groups: Vec<(GroupId, GroupRoute)>,
}

impl RouteTable {
    /// `led`: the groups that this node leads now, with their first own entry applied. Only this decides `Local`; a hint
    /// that names this node does not.
    pub fn new(topology: &Topology, hints: &Hints, own: NodeId, led: &BTreeSet<GroupId>) -> Self {
        let route = |group: GroupId| {
            if led.contains(&group) {
                return GroupRoute::Local;
            }
            let leader = hints.leader(group).filter(|leader| leader.node != own && hints.is_current(group));
            // One that is nowhere says where it is within a second.
            match leader.and_then(|leader| topology.node(leader.node)).filter(|info| info.is_known()) {
                Some(info) => GroupRoute::Moved(info.address().to_string().into()),
                None => GroupRoute::Park,
            }
        };
        let groups: Vec<(GroupId, GroupRoute)> =
            topology.groups().keys().map(|group| (*group, route(*group))).collect();
        let index_of = |group| groups.binary_search_by_key(&group, |(group, _)| *group);
        let slots = topology.slots().iter().map(|group| {
            // Both hold for every valid topology: at most one group per slot is in use, and groups are numbered in u16 here.
            let index = index_of(*group).expect("every slot's group exists");
            u16::try_from(index).expect("there are fewer groups than u16 can count")
        });
        let slots: Box<[u16]> = slots.collect();
        assert_eq!(slots.len(), SLOT_COUNT);
        Self { slots, groups }
    }

    /// Two array look-ups.
    pub fn route(&self, key_slot: KeySlot) -> Route<'_> {
        let Some(index) = self.slots.get(key_slot.slot().index()) else { return Route::Down };
        self.route_at(usize::from(*index))
    }

    /// `Down` for a group that does not exist.
    pub fn route_group(&self, group: GroupId) -> Route<'_> {
        match self.groups.binary_search_by_key(&group, |(group, _)| *group) {
            Ok(index) => self.route_at(index),
            Err(_) => Route::Down,
        }
    }

    fn route_at(&self, index: usize) -> Route<'_> {
        let (group, route) = &self.groups[index];
        match route {
            GroupRoute::Local => Route::Local(*group),
            GroupRoute::Moved(address) => Route::Moved(address),
            GroupRoute::Park => Route::Park(*group),
        }
    }

    /// `None` when there is no topology.
    pub fn group_of(&self, key_slot: KeySlot) -> Option<GroupId> {
        let index = self.slots.get(key_slot.slot().index())?;
        Some(self.groups[usize::from(*index)].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::LeaderHint;
    use crate::cluster::fixture::{node, topology};

    fn led_by(topology: &Topology, group: GroupId, term: u64, leader: NodeId) -> LeaderHint {
        let replicas = &topology.group(group).unwrap().replicas;
        let (replica, node) = replicas.iter().find(|(_, home)| **home == leader).unwrap();
        LeaderHint { term, replica: *replica, node: *node }
    }

    fn key_slot_of(topology: &Topology, group: GroupId) -> KeySlot {
        topology.slots_of(group).next().unwrap().key_slots().next().unwrap()
    }

    #[test]
    fn only_a_group_that_this_node_leads_now_is_local() {
        let topology = topology(3, 3, 3);
        let group = GroupId(1);
        let key_slot = key_slot_of(&topology, group);
        let mut hints = Hints::default();
        let table = |hints: &Hints, led: &[GroupId]| {
            RouteTable::new(&topology, hints, node(1), &led.iter().copied().collect::<BTreeSet<_>>())
        };
        assert_eq!(table(&hints, &[]).route(key_slot), Route::Park(group), "no leader was heard of");
        hints.learn(group, led_by(&topology, group, 1, node(1)));
        assert_eq!(table(&hints, &[]).route(key_slot), Route::Park(group), "never MOVED to itself");
        assert_eq!(table(&hints, &[group]).route(key_slot), Route::Local(group));
        hints.learn(group, led_by(&topology, group, 2, node(2)));
        assert_eq!(table(&hints, &[]).route(key_slot), Route::Moved(&"127.0.0.1:7002".into()));
    }

    #[test]
    fn requests_are_parked_during_an_election_and_while_the_leader_is_no_member() {
        let topology = topology(3, 3, 3);
        let group = GroupId(2);
        let key_slot = key_slot_of(&topology, group);
        let mut hints = Hints::default();
        let leader = led_by(&topology, group, 3, node(2));
        hints.learn(group, leader);
        hints.learn_election(group, crate::cluster::Ballot { term: 4, replica: leader.replica });
        let table = RouteTable::new(&topology, &hints, node(1), &BTreeSet::new());
        assert_eq!(table.route(key_slot), Route::Park(group));
        hints.learn(group, LeaderHint { term: 5, node: node(99), ..leader });
        let table = RouteTable::new(&topology, &hints, node(1), &BTreeSet::new());
        assert_eq!(table.route(key_slot), Route::Park(group));
    }

    #[test]
    fn without_a_topology_every_key_slot_is_down() {
        let table = RouteTable::default();
        assert!(KeySlot::all().all(|key_slot| table.route(key_slot) == Route::Down));
    }

    #[test]
    fn every_key_slot_goes_to_the_group_of_its_slot() {
        let topology = topology(3, 7, 2);
        let led: BTreeSet<GroupId> = topology.groups().keys().copied().collect();
        let table = RouteTable::new(&topology, &Hints::default(), node(1), &led);
        for key_slot in KeySlot::all() {
            let group = topology.group_of(key_slot.slot());
            assert_eq!(table.route(key_slot), Route::Local(group));
            assert_eq!(table.group_of(key_slot), Some(group));
        }
    }
}
