//! What the ops of the scheduler and of operators do to a topology: replicas that move, leaders that are preferred elsewhere, nodes that are
//! away, nodes that leave.
//!
//! § A replica that is to go stays where it is, as `departing`, until the group's leader has committed a membership without it: its node
//! would otherwise stop a voter, or the leader, that the group still counts on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Epoch, GroupId, GroupInfo, MetaError, MetaOutcome, NodeId, ReplicaId, Topology, TopologyError};
use crate::slot::{SLOT_COUNT, Slot};

/// How long a node has been seen to be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Milliseconds that meta leaders have watched it being away. Less than it really was: time that nobody watched does not count.
    pub counted_ms: u64,
    /// Its replicas are rebuilt elsewhere.
    pub given_up: bool,
}

/// A node that is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Who gets its replicas, where that is possible. `None`: whoever has the fewest.
    pub successor: Option<NodeId>,
}

impl Topology {
    pub fn absence_of(&self, node: NodeId) -> Option<Absence> {
        self.absent.get(&node).copied()
    }

    /// Away for so long that its replicas are rebuilt elsewhere.
    pub fn is_given_up(&self, node: NodeId) -> bool {
        self.absence_of(node).is_some_and(|absence| absence.given_up)
    }

    pub fn draining(&self, node: NodeId) -> Option<Draining> {
        self.draining.get(&node).copied()
    }

    /// Members that do not leave.
    pub fn staying(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied().filter(|node| !self.draining.contains_key(node))
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// § The step was planned for one topology. A late duplicate, or a plan that another overtook, does nothing.
    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), MetaError> {
        if self.epoch == epoch { Ok(()) } else { Err(MetaError::Outdated { planned: epoch, now: self.epoch }) }
    }

    pub(super) fn place(
        &mut self,
        group: GroupId,
        remove: Option<ReplicaId>,
        add: Option<NodeId>,
    ) -> Result<MetaOutcome, MetaError> {
        let info = self.group(group).ok_or(MetaError::UnknownGroup(group))?;
        if let Some(replica) = remove.filter(|replica| !info.replicas.contains_key(replica)) {
            return Err(MetaError::UnknownReplica { group, replica });
        }
        if remove.is_some() && add.is_none() && info.replicas.len() == 1 {
            return Err(MetaError::LastReplica(group));
        }
        if let Some(node) = add {
            if !self.nodes.contains_key(&node) {
                return Err(MetaError::UnknownNode(node));
            }
            if info.homes().any(|home| home == node) {
                return Err(MetaError::HoldsReplica { node, group });
            }
        }
        let fresh = add.map(|node| (self.draw_replica_id(), node));
        let info = self.groups.get_mut(&group).expect("looked up above");
        info.replicas.extend(fresh);
        if let Some(stale) = remove {
            info.depart(stale, fresh.map(|(replica, _)| replica));
        }
        Ok(MetaOutcome::Changed)
    }

    /// § A replica that is to go has its id, its votes and its log until `Departed` is logged; after that, never again.
    pub(super) fn keep(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        instead: ReplicaId,
    ) -> Result<MetaOutcome, MetaError> {
        let info = self.groups.get_mut(&group).ok_or(MetaError::UnknownGroup(group))?;
        if !info.replicas.contains_key(&instead) {
            return Err(MetaError::UnknownReplica { group, replica: instead });
        }
        let home = info.departing.remove(&replica).ok_or(MetaError::UnknownReplica { group, replica })?;
        info.replicas.insert(replica, home);
        info.depart(instead, Some(replica));
        Ok(MetaOutcome::Changed)
    }

    pub(super) fn prefer(&mut self, group: GroupId, replica: ReplicaId) -> Result<MetaOutcome, MetaError> {
        let info = self.groups.get_mut(&group).ok_or(MetaError::UnknownGroup(group))?;
        if !info.replicas.contains_key(&replica) {
            return Err(MetaError::UnknownReplica { group, replica });
        }
        info.preferred = replica;
        Ok(MetaOutcome::Changed)
    }

    pub(super) fn departed(&mut self, group: GroupId, replica: ReplicaId) -> Result<MetaOutcome, MetaError> {
        let info = self.groups.get_mut(&group).ok_or(MetaError::UnknownGroup(group))?;
        Ok(if info.departing.remove(&replica).is_some() { MetaOutcome::Changed } else { MetaOutcome::Unchanged })
    }

    pub(super) fn note_absence(&mut self, node: NodeId, absence: Absence) -> Result<MetaOutcome, MetaError> {
        if !self.nodes.contains_key(&node) {
            return Err(MetaError::UnknownNode(node));
        }
        let wanted = Some(absence).filter(|absence| absence.given_up || absence.counted_ms > 0);
        if self.absence_of(node) == wanted {
            return Ok(MetaOutcome::Unchanged);
        }
        match wanted {
            Some(absence) => {
                self.absent.insert(node, absence);
                self.initialize_without(node);
            }
            None => drop(self.absent.remove(&node)),
        }
        Ok(MetaOutcome::Changed)
    }

    /// § A founding node may be lost for good before it has created its groups, and nobody may take its place while they commit nothing: others
    /// create them then. Where it had done so they have its entry by it, or write the same one.
    fn initialize_without(&mut self, node: NodeId) {
        let absent = &self.absent;
        for info in self.groups.values_mut().filter(|info| info.founding.get(&info.initializer) == Some(&node)) {
            let is_there =
                |replica: &ReplicaId, home: &NodeId| info.replicas.contains_key(replica) && !absent.contains_key(home);
            let other = info.founding.iter().find(|(replica, home)| is_there(replica, home));
            info.initializer = other.map_or(info.initializer, |(replica, _)| *replica);
        }
    }

    /// `gone`: the operator says that the node will not come back, so nobody waits for it.
    pub(super) fn drain(
        &mut self,
        node: NodeId,
        successor: Option<NodeId>,
        gone: bool,
    ) -> Result<MetaOutcome, MetaError> {
        if self.forgotten.contains(&node) {
            return Ok(MetaOutcome::Unchanged);
        }
        for known in [Some(node), successor].into_iter().flatten() {
            if !self.nodes.contains_key(&known) {
                return Err(MetaError::UnknownNode(known));
            }
        }
        if let Some(new) = successor.filter(|new| *new == node || self.draining.contains_key(new)) {
            return Err(MetaError::Leaves(new));
        }
        // Who is up the meta group does not know. The node that was asked has counted those; see `Replication::drain`.
        self.check_places_without(node, |other| !self.is_given_up(other))?;
        let draining = Draining { successor };
        let known = self.draining.insert(node, draining) == Some(draining);
        let absence = self.absence_of(node).unwrap_or(Absence { counted_ms: 0, given_up: false });
        if known && (!gone || absence.given_up) {
            return Ok(MetaOutcome::Unchanged);
        }
        if gone {
            self.absent.insert(node, Absence { given_up: true, ..absence });
        }
        Ok(MetaOutcome::Changed)
    }

    /// What it has given up already comes back as replicas do: where they are wanting, or for evenness.
    pub(super) fn stay(&mut self, node: NodeId) -> Result<MetaOutcome, MetaError> {
        if self.forgotten.contains(&node) {
            return Err(MetaError::WasForgotten(node));
        }
        if !self.nodes.contains_key(&node) {
            return Err(MetaError::UnknownNode(node));
        }
        if self.draining.remove(&node).is_none() {
            return Ok(MetaOutcome::Unchanged);
        }
        // Whoever said that it would not come back takes that back as well; what was counted stays.
        if let Some(absence) = self.absence_of(node) {
            self.note_absence(node, Absence { given_up: false, ..absence })?;
        }
        Ok(MetaOutcome::Changed)
    }

    /// § A removal is no reason to hold fewer copies than were asked for. Where the cluster is too small to hold them anyway there is nothing to keep.
    pub fn check_places_without(&self, node: NodeId, is_able: impl Fn(NodeId) -> bool) -> Result<(), MetaError> {
        let others: Vec<NodeId> = self.staying().filter(|other| *other != node).collect();
        if others.is_empty() {
            return Err(MetaError::LastNode);
        }
        let left = others.iter().filter(|other| is_able(**other)).count();
        let replicas = self.settings.replicas as usize;
        let is_kept_now = others.len() + 1 >= replicas;
        let holds = self.replicas_on(node).next().is_some();
        if left == 0 || (left < replicas && is_kept_now && holds) {
            return Err(MetaError::TooFewNodes { left, replicas });
        }
        Ok(())
    }

    pub(super) fn add_group(&mut self, homes: &[NodeId]) -> Result<MetaOutcome, MetaError> {
        if let Some(stranger) = homes.iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(MetaError::UnknownNode(*stranger));
        }
        if homes.is_empty() || homes.iter().collect::<BTreeSet<_>>().len() != homes.len() {
            return Err(MetaError::Homes);
        }
        if self.groups.len() >= SLOT_COUNT {
            return Err(MetaError::GroupCount);
        }
        self.make_group(homes.iter().copied());
        Ok(MetaOutcome::Changed)
    }

    /// § Only a group that nothing belongs to any more: its replicas are deleted as their nodes hear of it.
    pub(super) fn dissolve(&mut self, group: GroupId) -> Result<MetaOutcome, MetaError> {
        if !self.groups.contains_key(&group) {
            return Err(MetaError::UnknownGroup(group));
        }
        if self.is_in_use(group) {
            return Err(MetaError::GroupInUse(group));
        }
        self.groups.remove(&group);
        self.placed_by_hand.remove(&group);
        Ok(MetaOutcome::Changed)
    }

    /// It has slots, or one is on its way to it or from it.
    pub fn is_in_use(&self, group: GroupId) -> bool {
        self.slots.contains(&group) || self.moves().any(|(_, moved)| moved.from == group || moved.to == group)
    }

    pub fn groups_in_use(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied().filter(|group| self.is_in_use(*group))
    }

    /// There has never been a group with this id, or a later one. Ids rise: one below it that is not there was dissolved.
    pub fn next_group(&self) -> GroupId {
        self.next_group
    }

    /// Groups that there should be. `None`: as many as were asked for when the cluster was founded, and those exist.
    fn wished_groups(&self) -> Option<usize> {
        if self.settings.groups.is_some() { None } else { Some(self.staying().count().clamp(1, SLOT_COUNT)) }
    }

    /// How many groups there are too few. A node that is given up may never lead one; if it comes back, it gets one then.
    pub fn missing_groups(&self) -> usize {
        let lost = self.staying().filter(|node| self.is_given_up(*node)).count();
        self.wished_groups().map_or(0, |wished| wished.saturating_sub(lost + self.groups.len()))
    }

    /// Groups that there are too many: those that have no slots, then the newest, whose slots go to the others.
    ///
    /// § One that is being emptied stays the one that leaves: without its last slot it comes before those that have some.
    pub fn leaving_groups(&self) -> BTreeSet<GroupId> {
        let many = self.wished_groups().map_or(0, |wished| self.groups.len().saturating_sub(wished));
        if many == 0 {
            return BTreeSet::new();
        }
        // What is still on its way to a group would have to leave it again; what is on its way from one, it has.
        let to = self.moves().filter(|(_, moved)| moved.is_open()).map(|(_, moved)| moved.to);
        let filled: BTreeSet<GroupId> = self.slots.iter().copied().chain(to).collect();
        let mut groups: Vec<GroupId> = self.groups.keys().rev().copied().collect();
        groups.sort_by_key(|group| filled.contains(group));
        groups.into_iter().take(many).collect()
    }

    /// Groups that an operator has moved slots to or from, with the slots that he has put there; until he has them evened out.
    pub fn placed_by_hand(&self) -> &BTreeMap<GroupId, BTreeSet<Slot>> {
        &self.placed_by_hand
    }

    /// How many slots the scheduler is not to even out.
    pub fn held_count(&self) -> usize {
        self.placed_by_hand.values().map(BTreeSet::len).sum()
    }

    pub fn is_held(&self, slot: Slot) -> bool {
        self.placed_by_hand.get(&self.group_of(slot)).is_some_and(|held| held.contains(&slot))
    }

    /// An operator has moved the last of its slots away, as before the node that leads it is removed.
    pub fn is_emptied_by_hand(&self, group: GroupId) -> bool {
        self.placed_by_hand.contains_key(&group) && !self.slots.contains(&group)
    }

    /// Those of them that get no slots by themselves; one that is to be dissolved needs none.
    pub fn groups_held_empty(&self) -> impl Iterator<Item = GroupId> + '_ {
        let leaving = self.leaving_groups();
        let is_empty = move |group: &GroupId| self.is_emptied_by_hand(*group) && !leaving.contains(group);
        self.groups.keys().copied().filter(is_empty)
    }

    /// The slot has changed hands.
    pub(super) fn note_placed(&mut self, slot: Slot, from: GroupId, to: GroupId, by_hand: bool) {
        if let Some(held) = self.placed_by_hand.get_mut(&from) {
            held.remove(&slot);
        }
        if by_hand {
            self.placed_by_hand.entry(from).or_default();
            self.placed_by_hand.entry(to).or_default().insert(slot);
        }
    }

    pub(super) fn validate_held(&self) -> Result<(), TopologyError> {
        let fits = |group: &GroupId, held: &BTreeSet<Slot>| {
            self.groups.contains_key(group) && held.iter().all(|slot| self.slots.get(slot.index()) == Some(group))
        };
        match self.placed_by_hand.iter().find(|(group, held)| !fits(group, held)) {
            Some((group, _)) => Err(TopologyError::Held(*group)),
            None => Ok(()),
        }
    }

    /// The feature level that entries are written with. § What an op means is selected by the level of its entry, so a node of another version
    /// that applies it does the same, and a level is used only when every node knows it.
    pub fn level(&self) -> u16 {
        self.level
    }

    pub(super) fn raise_level(&mut self, level: u16) -> MetaOutcome {
        if level <= self.level {
            return MetaOutcome::Unchanged;
        }
        self.level = level;
        MetaOutcome::Changed
    }

    /// How often an operator has told the scheduler to even out slots.
    pub fn evening_asked(&self) -> u64 {
        self.evening_asked
    }

    pub(super) fn ask_for_evening(&mut self) -> MetaOutcome {
        self.placed_by_hand.clear();
        self.evening_asked += 1;
        MetaOutcome::Changed
    }

    /// Nothing changes but that there is an event.
    pub(super) fn check_known(&self, node: NodeId, groups: &BTreeSet<GroupId>) -> Result<MetaOutcome, MetaError> {
        if !self.nodes.contains_key(&node) {
            return Err(MetaError::UnknownNode(node));
        }
        match groups.iter().find(|group| !self.groups.contains_key(group)) {
            Some(group) => Err(MetaError::UnknownGroup(*group)),
            None => Ok(MetaOutcome::Changed),
        }
    }

    /// The node that should lead the group.
    pub fn preferred_node(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(&group).map(|info| info.replicas[&info.preferred])
    }

    pub(super) fn set_paused(&mut self, paused: bool) -> MetaOutcome {
        let before = std::mem::replace(&mut self.paused, paused);
        if before == paused { MetaOutcome::Unchanged } else { MetaOutcome::Changed }
    }
}

impl GroupInfo {
    /// Nodes that have a replica, those that are to give it up included.
    pub fn homes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas.values().chain(self.departing.values()).copied()
    }

    /// The node that has the replica, or is to get it.
    pub fn home_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.replicas.get(&replica).or_else(|| self.departing.get(&replica)).copied()
    }

    /// `heir` is preferred if the replica was; without one any other is.
    fn depart(&mut self, stale: ReplicaId, heir: Option<ReplicaId>) {
        let home = self.replicas.remove(&stale).expect("the caller has looked");
        self.departing.insert(stale, home);
        if self.preferred == stale {
            let other = heir.or_else(|| self.replicas.keys().next().copied());
            self.preferred = other.expect("a group keeps a replica");
        }
    }
}
