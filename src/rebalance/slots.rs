//! Which slots should be in another group, and why. Pure.
//!
//! A slot weighs what it costs: its place among 1024, its share of the cluster's bytes, its share of the cluster's requests, in equal parts. Every group
//! should carry the same weight, within a tenth; slots move from the heaviest groups to the lightest, a batch at a time, as long as that makes the heavier
//! of the two lighter. A group that is to be dissolved should carry nothing. Slots that an operator has placed stay where they are, and count; the others are
//! evened out around them.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{GroupId, MetaOp, Topology};
use crate::slot::{SLOT_COUNT, Slot};

/// Slots move when a group's weight is further from its share than this part of it.
const UNEVEN: f64 = 0.1;
/// Slots of one op: between two of them everything is looked at again, and a pause takes effect.
const BATCH: usize = 32;
/// A cluster that holds less is evened out by the number of slots.
const BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Requests per second; the same.
const RATE_MIN: f64 = 500.0;

/// What each slot weighs; together 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotWeights(Vec<f64>);

impl SlotWeights {
    /// `bytes` and requests per second of each of the 1024 slots.
    pub fn new(bytes: &[u64], rates: &[f64]) -> Self {
        let (all_bytes, all_rates) = (bytes.iter().sum::<u64>(), rates.iter().sum::<f64>());
        let mut parts: Vec<Vec<f64>> = vec![vec![1.0 / SLOT_COUNT as f64; SLOT_COUNT]];
        if all_bytes >= BYTES_MIN {
            parts.push(bytes.iter().map(|own| *own as f64 / all_bytes as f64).collect());
        }
        if all_rates >= RATE_MIN {
            parts.push(rates.iter().map(|own| own / all_rates).collect());
        }
        let weigh = |slot: usize| parts.iter().map(|part| part[slot]).sum::<f64>() / parts.len() as f64;
        Self((0..SLOT_COUNT).map(weigh).collect())
    }

    /// By their number alone.
    pub fn equal() -> Self {
        Self(vec![1.0 / SLOT_COUNT as f64; SLOT_COUNT])
    }

    fn of(&self, slot: Slot) -> f64 {
        self.0[slot.index()]
    }
}

/// Moves are under way that come first: any, but a node that leaves does not wait for an operator who never stops.
pub fn waits_for_moves(topology: &Topology) -> bool {
    let is_emptied = !topology.leaving_groups().is_empty();
    topology.moves().any(|(_, moved)| !(is_emptied && moved.by_hand))
}

/// What is to happen to slots next: `None` if all is as it should be, or moves are under way. `silent`: groups of which no leader is known; a slot on its way
/// from one or to one would hold up all others.
pub fn next_slots(topology: &Topology, weights: &SlotWeights, silent: &BTreeSet<GroupId>) -> Option<MetaOp> {
    if waits_for_moves(topology) {
        return None;
    }
    let leaving = topology.leaving_groups();
    let mut plan = Plan::new(topology, weights, &leaving);
    plan.loads.retain(|group, _| !silent.contains(group));
    let has_slots = |group: &&GroupId| plan.still_slots(**group).next().is_some();
    let emptied = leaving.iter().find(|group| has_slots(group) && !silent.contains(*group));
    let (why, to, slots) = if let Some(group) = emptied {
        let why = format!("there are fewer nodes than groups, and group {group} is to be dissolved");
        let (to, slots) = plan.empty(*group)?;
        (why, to, slots)
    } else if silent.is_empty() && topology.moves().next().is_none() {
        plan.even_out()?
    } else {
        return None;
    };
    Some(MetaOp::StartMoves { first: topology.next_move(), to, slots, why, by_hand: false })
}

/// Slots as they would be.
struct Plan<'a> {
    weights: &'a SlotWeights,
    slots: BTreeMap<GroupId, BTreeSet<Slot>>,
    /// Of the groups that are to have slots.
    loads: BTreeMap<GroupId, f64>,
    share: f64,
    topology: &'a Topology,
}

impl<'a> Plan<'a> {
    fn new(topology: &'a Topology, weights: &'a SlotWeights, leaving: &BTreeSet<GroupId>) -> Self {
        let mut slots: BTreeMap<GroupId, BTreeSet<Slot>> =
            topology.groups().keys().map(|group| (*group, BTreeSet::new())).collect();
        for slot in Slot::all() {
            slots.entry(topology.group_of(slot)).or_default().insert(slot);
        }
        let load = |slots: &BTreeSet<Slot>| slots.iter().map(|slot| weights.of(*slot)).sum();
        let stays = |group: &GroupId| !leaving.contains(group);
        // One that an operator has emptied stays so, unless there is no other place for the slots of a group that goes.
        let fills = |group: &GroupId| stays(group) && !topology.is_emptied_by_hand(*group);
        let no_other = !slots.keys().any(fills);
        let staying = slots.iter().filter(|(group, _)| fills(group) || no_other && stays(group));
        let loads: BTreeMap<GroupId, f64> = staying.map(|(group, slots)| (*group, load(slots))).collect();
        let share = 1.0 / loads.len() as f64;
        Self { weights, slots, loads, share, topology }
    }

    fn lightest(&self) -> Option<GroupId> {
        self.loads.iter().min_by(|one, other| one.1.total_cmp(other.1)).map(|(group, _)| *group)
    }

    /// Those that do not move.
    fn still_slots(&self, group: GroupId) -> impl DoubleEndedIterator<Item = Slot> + '_ {
        let slots = self.slots.get(&group).into_iter().flatten().copied();
        slots.filter(|slot| !self.topology.moves().any(|(_, moved)| moved.slot == *slot))
    }

    /// What the lightest group takes of one that is to have nothing: as much as makes it as heavy as its share, one slot at least.
    fn empty(&mut self, leaving: GroupId) -> Option<(GroupId, BTreeSet<Slot>)> {
        let to = self.lightest()?;
        let mut taken = BTreeSet::new();
        let still: Vec<Slot> = self.still_slots(leaving).rev().take(BATCH).collect();
        for slot in still {
            if !taken.is_empty() && self.loads[&to] + self.weights.of(slot) > self.share {
                break;
            }
            *self.loads.get_mut(&to)? += self.weights.of(slot);
            taken.insert(slot);
        }
        Some((to, taken))
    }

    fn even_out(&mut self) -> Option<(String, GroupId, BTreeSet<Slot>)> {
        let of_share = |load: f64| (load / self.share * 100.0).round().abs();
        let to = self.lightest()?;
        let lightest = self.loads[&to];
        let heaviest = self.loads.values().copied().fold(0.0, f64::max);
        if heaviest <= self.share * (1.0 + UNEVEN) && lightest >= self.share * (1.0 - UNEVEN) {
            return None;
        }
        let why = format!(
            "group {to} carries {} % of its share of slots, bytes and requests, the heaviest group {} %",
            of_share(lightest),
            of_share(heaviest)
        );
        let mut taken = BTreeSet::new();
        while taken.len() < BATCH && self.loads[&to] < self.share {
            let Some((from, slot)) = self.best_for(to) else { break };
            self.shift(slot, from, to);
            taken.insert(slot);
        }
        (!taken.is_empty()).then_some((why, to, taken))
    }

    /// A slot of the heaviest group that has one whose move helps.
    fn best_for(&self, to: GroupId) -> Option<(GroupId, Slot)> {
        let mut givers: Vec<(GroupId, f64)> = self.loads.iter().map(|(group, load)| (*group, *load)).collect();
        givers.sort_by(|one, other| other.1.total_cmp(&one.1));
        // Ranges stay whole as far as they can: slots go from their ends.
        givers.into_iter().filter(|(group, load)| *group != to && *load > self.share).find_map(|(group, load)| {
            let helps =
                |slot: &&Slot| !self.topology.is_held(**slot) && self.loads[&to] + self.weights.of(**slot) < load;
            self.slots[&group].iter().rev().find(helps).map(|slot| (group, *slot))
        })
    }

    fn shift(&mut self, slot: Slot, from: GroupId, to: GroupId) {
        for (group, sign) in [(from, -1.0), (to, 1.0)] {
            if let Some(load) = self.loads.get_mut(&group) {
                *load += sign * self.weights.of(slot);
            }
        }
        self.slots.entry(from).or_default().remove(&slot);
        self.slots.entry(to).or_default().insert(slot);
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
