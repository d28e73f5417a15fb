//! Which group takes slots that a node is to serve: clients and their tools name nodes, slots belong to groups.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupId, Hints, NodeId, Topology};
use crate::slot::Slot;

impl Topology {
    /// Where each of `slots` goes so that `node` serves it: always to a group that the node leads. `None` if it leads none.
    ///
    /// A slot that one of them has, or is to have, belongs there. The others all go to one group. A node that leads several leads some of them only
    /// until the node that they prefer is back, so it is one that prefers this node, if there is one; and of those the one with the fewest slots.
    pub fn receivers(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        node: NodeId,
        hints: &Hints,
    ) -> Option<BTreeMap<GroupId, BTreeSet<Slot>>> {
        let led: BTreeSet<GroupId> = self.groups_led_by(node, hints).collect();
        let leaving = self.leaving_groups();
        let rank = |group: GroupId| (leaving.contains(&group), !self.prefers(group, node), self.expected_slots(group));
        let smallest = led.iter().copied().min_by_key(|group| rank(*group));
        let smallest = smallest?;
        let mut receivers = BTreeMap::<GroupId, BTreeSet<Slot>>::new();
        for slot in slots {
            let own = Some(self.destination_of(slot)).filter(|group| led.contains(group));
            receivers.entry(own.unwrap_or(smallest)).or_default().insert(slot);
        }
        Some(receivers)
    }

    /// As far as was heard.
    pub fn groups_led_by<'a>(&'a self, node: NodeId, hints: &'a Hints) -> impl Iterator<Item = GroupId> + 'a {
        self.groups.keys().copied().filter(move |group| hints.leader(*group).is_some_and(|leader| leader.node == node))
    }

    /// The group that has a slot or, while a move of it is not given up, the one that is to have it.
    pub fn destination_of(&self, slot: Slot) -> GroupId {
        let open = self.moves().find(|(_, moved)| moved.slot == slot && moved.is_open());
        open.map_or_else(|| self.group_of(slot), |(_, moved)| moved.to)
    }

    fn prefers(&self, group: GroupId, node: NodeId) -> bool {
        self.group(group).is_some_and(|info| info.replicas.get(&info.preferred) == Some(&node))
    }

    fn expected_slots(&self, group: GroupId) -> usize {
        self.slots_of(group).count() + self.moves().filter(|(_, moved)| moved.to == group && moved.is_open()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::{node, topology};
    use crate::cluster::{LeaderHint, MetaOp};

    /// Group g is led by the given node of three, if by any.
    fn hints(topology: &Topology, leaders: &[(u32, u8)]) -> Hints {
        let mut hints = Hints::default();
        for (group, number) in leaders {
            let info = topology.group(GroupId(*group)).unwrap();
            let (replica, node) = info.replicas.iter().find(|(_, home)| **home == node(*number)).unwrap();
            hints.learn(GroupId(*group), LeaderHint { term: 1, replica: *replica, node: *node });
        }
        hints
    }

    fn first_slots(topology: &Topology, group: u32, count: usize) -> BTreeSet<Slot> {
        topology.slots_of(GroupId(group)).take(count).collect()
    }

    fn receivers(topology: &Topology, group: u32, number: u8, hints: &Hints) -> Option<Vec<GroupId>> {
        let found = topology.receivers(first_slots(topology, group, 2), node(number), hints)?;
        Some(found.into_keys().collect())
    }

    #[test]
    fn slots_go_to_the_group_that_the_node_leads_and_to_none_if_it_leads_none() {
        let topology = topology(3, 3, 3);
        let hints = hints(&topology, &[(1, 1), (2, 2)]);
        assert_eq!(receivers(&topology, 1, 2, &hints), Some(vec![GroupId(2)]));
        assert_eq!(receivers(&topology, 1, 1, &hints), Some(vec![GroupId(1)]), "they are there");
        assert_eq!(receivers(&topology, 1, 3, &hints), None);
    }

    #[test]
    fn of_several_groups_it_is_one_that_prefers_the_node_and_the_smallest() {
        let mut topology = topology(3, 3, 3);
        let preferred = |group: u32| {
            let info = topology.group(GroupId(group)).unwrap();
            info.replicas[&info.preferred]
        };
        assert_eq!([preferred(1), preferred(2), preferred(3)], [node(1), node(2), node(3)]);
        // Node 3 leads group 2 for a while.
        let hints = hints(&topology, &[(1, 1), (2, 3), (3, 3)]);
        assert_eq!(receivers(&topology, 1, 3, &hints), Some(vec![GroupId(3)]));
        assert_eq!(receivers(&topology, 2, 3, &hints), Some(vec![GroupId(2)]), "the node serves them already");
        // On the way to group 2, for which the node leads: there they stay.
        let (first, slots) = (topology.next_move(), first_slots(&topology, 1, 2));
        topology
            .apply(&MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand: true })
            .unwrap();
        assert_eq!(receivers(&topology, 1, 3, &hints), Some(vec![GroupId(2)]));
    }
}
