//! What can be seen of the cluster: who leads, what is owned and held, whether all is at rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{GroupId, MetaRole, MoveId, MoveState, ReplicaId};
use crate::raft::{Group, Held, Route};
use crate::simulation::invariants::Seen;
use crate::simulation::world::{SETTLING_MS, World};
use crate::slot::{KeySlot, SLOT_COUNT, Slot};
impl World {
    /// Members, also those that are down.
    pub fn members(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|node| !self.machines[*node].outside).collect()
    }

    pub fn meta_leader(&self) -> Option<usize> {
        self.seen().iter().find(|seen| seen.replication.leads_meta()).map(|seen| seen.node)
    }

    /// All nodes are up and every group has the voters that the topology wants, so that what one of them has is elsewhere as well.
    pub fn can_spare_one(&self) -> bool {
        let seen = self.seen();
        let Some(newest) = seen.iter().map(|seen| seen.replication.topology()).max_by_key(|topology| topology.epoch())
        else {
            return false;
        };
        let whole = |group: &GroupId, wanted: Vec<ReplicaId>| {
            seen.iter().any(|seen| {
                let status = match seen.replication.group(*group) {
                    Some(led) if led.leads() => seen.replication.membership(&led),
                    None if *group == GroupId::META && seen.replication.leads_meta() => {
                        seen.replication.meta_membership()
                    }
                    Some(_) | None => return false,
                };
                !status.joint && status.voters.iter().eq(&wanted)
            })
        };
        let groups = newest.groups().iter().map(|(id, info)| (*id, info.replicas.keys().copied().collect()));
        let voters = newest.meta_members().into_iter().filter(|(_, (_, role))| *role == MetaRole::Voter);
        let meta = (GroupId::META, voters.map(|(replica, _)| replica).collect());
        let settled = self.now_ms > self.joined_ms + SETTLING_MS;
        settled && seen.len() == self.members().len() && groups.chain([meta]).all(|(id, wanted)| whole(&id, wanted))
    }

    /// Nobody is on the way in or out, every group has exactly the replicas that the topology wants, and there are as many groups as there should
    /// be, all with slots.
    pub fn is_at_rest(&self) -> bool {
        let on_the_way = |seen: &Seen| {
            let topology = seen.replication.topology();
            let left = topology.staying().count() < topology.nodes().len();
            left || topology.nodes().len() != self.members().len()
                || topology.groups().values().any(|info| !info.departing.is_empty())
                || topology.moves().next().is_some()
                || topology.missing_groups() > 0
                || !topology.leaving_groups().is_empty()
                || topology
                    .groups()
                    .keys()
                    .any(|group| topology.slots_of(*group).count() < SLOT_COUNT / topology.groups().len() / 2)
        };
        self.can_spare_one() && !self.seen().iter().any(on_the_way)
    }

    /// The group that a slot is in, as some node knows it.
    pub fn owner(&self, slot: Slot) -> Option<GroupId> {
        Some(self.seen().first()?.replication.newest_topology().group_of(slot))
    }

    /// Of which some node knows.
    pub fn moves(&self) -> usize {
        let moves = |seen: &Seen| seen.replication.newest_topology().moves().count();
        self.seen().iter().map(moves).max().unwrap_or(1)
    }

    /// Both of its groups have cleaned up.
    pub fn is_forgotten(&self, id: MoveId) -> bool {
        let newest = self.seen().into_iter().map(|seen| seen.replication.newest_topology());
        newest.max_by_key(|topology| topology.epoch()).is_some_and(|topology| topology.slot_move(id).is_none())
    }

    pub fn is_committed(&self, slot: Slot) -> bool {
        let committed = |seen: &Seen| {
            let topology = seen.replication.newest_topology();
            topology.moves().any(|(_, moved)| moved.slot == slot && moved.state == MoveState::Committed)
        };
        self.seen().iter().any(committed)
    }

    /// What all replicas have of a slot.
    pub fn held(&self, slot: Slot) -> Vec<Held> {
        let seen = self.seen();
        seen.iter().flat_map(|seen| &seen.groups).filter_map(|group| group.held(slot)).collect()
    }

    /// The leader of some group serves the slot.
    pub fn is_served(&self, slot: Slot) -> bool {
        let serves = |group: &Arc<Group>| group.leads() && group.keyspace().owns(slot);
        self.seen().iter().flat_map(|seen| &seen.groups).any(serves)
    }

    /// Slots that some group has frozen.
    pub fn frozen(&self) -> usize {
        let held = self.seen().into_iter().flat_map(|seen| seen.groups).flat_map(|group| group.slots());
        let frozen = held.filter(|(_, held)| matches!(held, Held::Frozen { .. }));
        frozen.map(|(slot, _)| slot).collect::<BTreeSet<_>>().len()
    }

    /// The node that leads the group and takes writes.
    pub fn leader(&self, group: GroupId) -> Option<usize> {
        if group == GroupId::META {
            return self.seen().iter().find(|seen| seen.replication.leads_meta()).map(|seen| seen.node);
        }
        let leads = |seen: &Seen| seen.groups.iter().any(|here| here.id() == group && here.leads());
        self.seen().iter().find(|seen| leads(seen)).map(|seen| seen.node)
    }

    /// It takes calls, whether its replicas have started or not.
    pub fn is_open(&self, node: usize) -> bool {
        self.machines[node].shared().is_some()
    }

    pub fn leads_any(&self, node: usize) -> bool {
        self.machines[node].shared().is_some_and(|shared| !shared.replication.led_groups().is_empty())
    }

    /// Whether the node sends requests for the group's keys to `leader`.
    pub fn names(&self, node: usize, group: GroupId, leader: usize) -> bool {
        let Some(shared) = self.machines[node].shared() else { return false };
        let topology = shared.replication.topology();
        let is_of_group = |key_slot: &KeySlot| topology.group_of(key_slot.slot()) == group;
        let key_slot = KeySlot::all().find(is_of_group).expect("every group owns a slot");
        let address = self.machines[leader].address().to_string();
        matches!(shared.replication.route(key_slot), Route::Moved(known) if *known == *address)
    }

    /// The leadership's term, if the node was elected in the term it is in.
    pub fn elected(&self, node: usize, group: GroupId) -> Option<u64> {
        let group = self.machines[node].shared()?.replication.group(group)?;
        group.elected().filter(|(_, replica)| *replica == group.replica().0).map(|(term, _)| term)
    }

    /// Of the leadership that the node follows, its own included.
    pub fn term(&self, node: usize, group: GroupId) -> Option<u64> {
        let group = self.machines[node].shared()?.replication.group(group)?;
        group.elected().map(|(term, _)| term)
    }
}
