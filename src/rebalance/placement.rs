//! Which replica or leader should be elsewhere, and why. Pure: what is known of the cluster in, the next op of the meta group out.
//!
//! One step at a time, the most urgent first: away from nodes that are lost, away from nodes that leave, up to the number of replicas asked
//! for, a group for each node, then evenness: replicas, and leaders, within one of each other; and slots (`slots.rs`). § A replica is never taken away before its successor holds the
//! group's data: the op only says what is wished, and the one that is to go serves until the group's leader has seen to it (`plan.rs`).
//! Steps for evenness wait until every node is there, so that a restart moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::cluster::{Draining, GroupId, GroupInfo, MetaOp, MoveEnd, NodeId, ReplicaId, Topology, apply_meta};
use crate::rebalance::slots::{SlotWeights, next_slots};

/// More steps than any plan that is read needs; a request must not take long.
const PLAN_STEPS_MAX: usize = 1000;

/// What the next step is planned from.
pub struct Situation<'a> {
    pub topology: &'a Topology,
    /// Without a connection to the meta leader.
    pub absent: BTreeSet<NodeId>,
    /// Short of disk space.
    pub full: BTreeSet<NodeId>,
    /// Those of them that have refused a copy for want of space, or can write nothing.
    pub tight: BTreeSet<NodeId>,
    /// Groups whose leader says that it has exactly the members that are wished.
    pub settled: BTreeSet<GroupId>,
    /// Groups whose leader says that it has others. (A group without a leader is in neither.)
    pub moving: BTreeSet<GroupId>,
    /// Who votes in them, as their leaders say; nobody while that changes.
    pub voters: BTreeMap<GroupId, BTreeSet<ReplicaId>>,
    /// What a move of the group costs, in any unit.
    pub weights: BTreeMap<GroupId, u64>,
    /// Nobody has joined or begun to leave for a while: a node that comes to replace another needs no group of its own.
    pub quiet: bool,
}

/// What `CLUSTER KVORUM PLAN` answers, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub paused: bool,
    /// Slots that stay where an operator has placed them until he has them evened out, as the steps do.
    #[serde(default)]
    pub held_slots: usize,
    /// Groups that get no slots until then, since he has moved theirs away.
    #[serde(default)]
    pub held_empty: Vec<u32>,
    /// Slots, and groups with replicas, that are on their way already.
    #[serde(default)]
    pub moving_slots: usize,
    #[serde(default)]
    pub moving_groups: usize,
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    pub fn is_under_way(&self) -> bool {
        self.moving_slots + self.moving_groups > 0
    }
}

/// A step of a plan that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub what: String,
    pub why: String,
}

/// `None`: all is as it should be, or has to wait.
pub fn next_placement(now: &Situation<'_>) -> Option<MetaOp> {
    if now.topology.is_paused() { None } else { next_step(now) }
}

fn next_step(now: &Situation<'_>) -> Option<MetaOp> {
    let urgent = now.abandon().or_else(|| now.lead_away()).or_else(|| now.take_back());
    let urgent = urgent.or_else(|| now.replace_removed()).or_else(|| now.rebuild());
    if urgent.is_some() || now.is_busy() {
        return urgent;
    }
    let step = now.dissolve().or_else(|| now.evacuate()).or_else(|| now.grow()).or_else(|| now.shrink());
    // One that is given up may never be seen again.
    if step.is_some() || now.absent.iter().any(|node| !now.is_lost(*node)) {
        return step;
    }
    now.make_group().or_else(|| now.even_replicas()).or_else(|| now.even_leaders())
}

/// All steps from here on when slots are to be evened out, as if each came to its end at once, and were not paused.
pub fn whole_plan(now: &Situation<'_>, slots: &SlotWeights) -> Vec<PlannedStep> {
    let mut state = Some(now.topology.clone());
    let _ = apply_meta(&mut state, &MetaOp::EvenSlots, Timestamp(0));
    settle(&mut state);
    let mut steps = Vec::new();
    while let Some(topology) = state.clone().filter(|_| steps.len() < PLAN_STEPS_MAX) {
        let at_rest = Situation {
            topology: &topology,
            absent: now.absent.clone(),
            full: now.full.clone(),
            tight: now.tight.clone(),
            settled: topology.groups().keys().copied().collect(),
            moving: BTreeSet::new(),
            voters: BTreeMap::new(),
            weights: now.weights.clone(),
            quiet: true,
        };
        let Some(op) = next_step(&at_rest).or_else(|| next_slots(&topology, slots, &BTreeSet::new())) else { break };
        state.iter_mut().for_each(Topology::forget_events);
        if apply_meta(&mut state, &op, Timestamp(0)).is_err() {
            break;
        }
        let newest = state.as_ref().and_then(|topology| topology.events().back());
        steps.extend(newest.map(|event| PlannedStep { what: event.what.clone(), why: event.why.clone() }));
        settle(&mut state);
    }
    steps
}

/// Every replica that is to go has gone, every slot has moved.
fn settle(state: &mut Option<Topology>) {
    let moves: Vec<_> = state.iter().flat_map(|topology| topology.moves().map(|(id, _)| id)).collect();
    for id in moves {
        let ends = [MoveEnd::Source, MoveEnd::Target].map(|end| MetaOp::FinishMove { id, end });
        for op in std::iter::once(MetaOp::CommitMove { id }).chain(ends) {
            let _ = apply_meta(state, &op, Timestamp(0));
        }
    }

    let groups: Vec<_> = state.iter().flat_map(|topology| topology.groups().clone()).collect();
    for (group, info) in groups {
        for replica in info.departing.into_keys() {
            let _ = apply_meta(state, &MetaOp::Departed { group, replica }, Timestamp(0));
        }
    }
}

impl Situation<'_> {
    /// Stays, is up, and has space.
    fn is_fit(&self, node: NodeId) -> bool {
        let topology = self.topology;
        let stays = topology.node(node).is_some() && topology.draining(node).is_none();
        stays && !topology.is_given_up(node) && !self.absent.contains(&node) && !self.full.contains(&node)
    }

    fn is_lost(&self, node: NodeId) -> bool {
        self.topology.is_given_up(node)
    }

    /// A copy that has not arrived there will not for long. Not any node that is short: the copy itself may make it so, and given up it would be sent
    /// again as soon as its space is back.
    fn is_barred(&self, node: NodeId) -> bool {
        self.is_lost(node) || self.tight.contains(&node)
    }

    fn fit_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.topology.nodes().keys().copied().filter(|node| self.is_fit(*node))
    }

    /// Replicas that each node is wished to have, and what they weigh.
    fn load(&self) -> BTreeMap<NodeId, (usize, u64)> {
        let mut load: BTreeMap<NodeId, (usize, u64)> = BTreeMap::new();
        for (group, info) in self.topology.groups() {
            for home in info.replicas.values() {
                let (count, weight) = load.entry(*home).or_default();
                *count += 1;
                *weight = weight.saturating_add(self.weight(*group));
            }
        }
        load
    }

    fn weight(&self, group: GroupId) -> u64 {
        self.weights.get(&group).copied().unwrap_or(0)
    }

    /// Groups that each node is preferred to lead.
    fn leads(&self) -> BTreeMap<NodeId, usize> {
        let mut leads: BTreeMap<NodeId, usize> = self.fit_nodes().map(|node| (node, 0)).collect();
        for info in self.topology.groups().values() {
            if let Some(count) = leads.get_mut(&info.replicas[&info.preferred]) {
                *count += 1;
            }
        }
        leads
    }

    /// Replicas that a group should have now.
    fn wished(&self) -> usize {
        self.topology.staying().count().min(self.topology.settings().replicas as usize)
    }

    /// The fit node with the fewest replicas that has none of this group.
    fn new_home(&self, info: &GroupInfo, from: Option<NodeId>) -> Option<NodeId> {
        let homes: BTreeSet<NodeId> = info.homes().collect();
        let free = || self.fit_nodes().filter(|node| !homes.contains(node));
        let successor = from.and_then(|from| self.topology.draining(from)).and_then(|draining| draining.successor);
        let load = self.load();
        let emptiest = || free().min_by_key(|node| (load.get(node).copied().unwrap_or_default(), *node));
        free().find(|node| successor == Some(*node)).or_else(emptiest)
    }

    fn place(&self, group: GroupId, remove: Option<ReplicaId>, add: Option<NodeId>, why: String) -> MetaOp {
        MetaOp::Place { epoch: self.topology.epoch(), group, remove, add, why }
    }

    fn prefer(&self, group: GroupId, replica: ReplicaId, why: String) -> MetaOp {
        MetaOp::Prefer { epoch: self.topology.epoch(), group, replica, why }
    }

    fn name(&self, node: NodeId) -> String {
        self.topology.name_of(node)
    }

    /// Leaders go first, and at once: that costs nothing.
    fn lead_away(&self) -> Option<MetaOp> {
        let leads = self.leads();
        self.topology.groups().iter().find_map(|(group, info)| {
            let home = info.replicas[&info.preferred];
            let why = match (self.topology.draining(home), self.is_lost(home)) {
                (Some(_), _) => format!("{} leaves the cluster", self.name(home)),
                (None, true) => format!("{} is away", self.name(home)),
                (None, false) => return None,
            };
            let others = info.replicas.iter().filter(|(_, node)| self.is_fit(**node));
            let (heir, _) = others.min_by_key(|(replica, node)| (leads.get(*node).copied(), **replica))?;
            Some(self.prefer(*group, *heir, why))
        })
    }

    /// A replica moves to a node that will not have it: lost, without space, or to leave. If the one that was to go still votes, on a node that is there, it
    /// stays: nothing has to be copied, and there may be no other node.
    fn take_back(&self) -> Option<MetaOp> {
        let moving = self.topology.groups().iter().filter(|(group, _)| self.moving.contains(group));
        moving.filter_map(|(group, info)| Some((*group, info, self.voters.get(group)?))).find_map(
            |(group, info, voters)| {
                let (replica, instead, why) = overtaken(info, voters).or_else(|| self.no_move_for(info, voters))?;
                Some(MetaOp::Keep { epoch: self.topology.epoch(), group, replica, instead, why })
            },
        )
    }

    /// Which replica stays, instead of which, and why.
    fn no_move_for(&self, info: &GroupInfo, voters: &BTreeSet<ReplicaId>) -> Option<(ReplicaId, ReplicaId, String)> {
        let leaves = |home: NodeId| self.topology.draining(home).is_some();
        let waited_for = info.replicas.iter().filter(|(replica, _)| !voters.contains(replica));
        let (instead, to) =
            waited_for.map(|(replica, to)| (*replica, *to)).find(|(_, to)| self.is_barred(*to) || leaves(*to))?;
        let voting = info.departing.iter().filter(|(replica, _)| voters.contains(replica));
        let there = voting.filter(|(_, home)| !self.absent.contains(home));
        let (replica, home) = there.map(|(replica, home)| (*replica, *home)).min_by_key(|(_, home)| leaves(*home))?;
        // One that leaves stays only where the group would wait for one that is lost or full otherwise.
        if leaves(home) && (!self.is_barred(to) || self.new_home(info, Some(to)).is_some()) {
            return None;
        }
        let what = match (self.is_lost(to), self.is_barred(to)) {
            (true, _) => "has been away for too long",
            (false, true) => "has no space for it",
            (false, false) => "is to leave",
        };
        Some((replica, instead, format!("{} {what}, and {} has the data", self.name(to), self.name(home))))
    }

    /// § A replica that has left its group's membership is not taken in again under its id (`plan.rs`): another on its node is.
    fn replace_removed(&self) -> Option<MetaOp> {
        let moving = self.topology.groups().iter().filter(|(group, _)| self.moving.contains(group));
        moving.filter(|(_, info)| info.replicas.len() > 1).find_map(|(group, info)| {
            let newest = self.voters.get(group)?.last()?;
            let is_removed = |replica: &&ReplicaId| *replica < newest && !self.voters[group].contains(replica);
            let removed = info.replicas.keys().find(is_removed)?;
            let why = "it has left its group's membership, and comes back as another".to_owned();
            Some(self.place(*group, Some(*removed), None, why))
        })
    }

    /// Groups of which members are being changed, but for those that only wait for nodes that are lost or full: they may do so for long, and hold
    /// nobody up.
    pub fn busy_groups(&self) -> usize {
        let waits = |group: &GroupId| {
            let Some((info, voters)) = self.topology.group(*group).zip(self.voters.get(group)) else { return false };
            let mut awaited = info.replicas.iter().filter(|(replica, _)| !voters.contains(replica)).peekable();
            !voters.is_empty()
                && awaited.peek().is_some()
                && awaited.all(|(_, home)| self.is_lost(*home) || self.full.contains(home))
        };
        self.moving.iter().filter(|group| !waits(group)).count()
    }

    pub fn is_busy(&self) -> bool {
        self.busy_groups() > 0
    }

    /// Replicas on nodes that have been away for too long, also those that were only just to move there, or to a node without space for them.
    fn rebuild(&self) -> Option<MetaOp> {
        let groups = self.topology.groups();
        // One group at a time, but the one that is moving must not wait for a node that will not have it.
        let of_moving = groups.iter().filter(|(group, _)| self.moving.contains(group));
        let of_settled = groups.iter().filter(|(group, _)| !self.is_busy() && self.settled.contains(group));
        of_moving.chain(of_settled).find_map(|(group, info)| {
            let voters = self.voters.get(group).filter(|voters| !voters.is_empty() && self.moving.contains(group));
            let awaited = |replica: &ReplicaId| voters.is_some_and(|voters| !voters.contains(replica));
            let is_stuck = |(replica, home): &(&ReplicaId, &NodeId)| {
                self.is_lost(**home) || awaited(replica) && self.is_barred(**home)
            };
            let (replica, home) = info.replicas.iter().find(is_stuck)?;
            let new = self.new_home(info, Some(*home))?;
            let why = match (self.is_lost(*home), self.topology.draining(*home)) {
                (false, _) => format!("{} has no space for it", self.name(*home)),
                (true, Some(Draining { successor: Some(new) })) => {
                    format!("{} is to be replaced by {}", self.name(*home), self.name(new))
                }
                (true, Some(Draining { successor: None })) => format!("{} leaves the cluster", self.name(*home)),
                (true, None) => format!("{} has been away for too long", self.name(*home)),
            };
            Some(self.place(*group, Some(*replica), Some(new), why))
        })
    }

    fn settled_groups(&self) -> impl Iterator<Item = (&GroupId, &GroupInfo)> {
        self.topology.groups().iter().filter(|(group, _)| self.settled.contains(group))
    }

    /// A group that there is one too many of and that has no slots any more.
    fn dissolve(&self) -> Option<MetaOp> {
        let topology = self.topology;
        let group = topology.leaving_groups().into_iter().find(|group| !topology.is_in_use(*group))?;
        let why = format!("there are {} nodes, and a group for each", topology.staying().count());
        Some(MetaOp::Dissolve { epoch: topology.epoch(), group, why })
    }

    /// A group that was made and has no leader: a home that is lost may be the one that was to initialize it, and then it never gets one. Another is made.
    fn abandon(&self) -> Option<MetaOp> {
        let topology = self.topology;
        let leads = |group: &GroupId| self.settled.contains(group) || self.moving.contains(group);
        topology.groups().iter().filter(|(group, _)| !leads(group) && !topology.is_in_use(**group)).find_map(
            |(group, info)| {
                let home = info.homes().find(|home| self.is_lost(*home) || topology.draining(*home).is_some())?;
                let why = format!("it has no slots and no leader yet, and {} is away or leaves", self.name(home));
                Some(MetaOp::Dissolve { epoch: topology.epoch(), group: *group, why })
            },
        )
    }

    /// A group for a node that has none to lead.
    fn make_group(&self) -> Option<MetaOp> {
        if !self.quiet || self.topology.missing_groups() == 0 {
            return None;
        }
        let (leads, load) = (self.leads(), self.load());
        let leader = self
            .fit_nodes()
            .min_by_key(|node| (leads.get(node).copied(), load.get(node).copied().unwrap_or_default(), *node))
            .filter(|node| leads.get(node) == Some(&0))?;
        let mut others: Vec<NodeId> = self.fit_nodes().filter(|node| *node != leader).collect();
        others.sort_by_key(|node| (load.get(node).copied().unwrap_or_default(), *node));
        let homes: Vec<NodeId> = std::iter::once(leader).chain(others).take(self.wished()).collect();
        // § Not with fewer copies than are asked for.
        if homes.len() < self.wished() {
            return None;
        }
        let why = format!("{} is to lead no group yet", self.name(leader));
        Some(MetaOp::MakeGroup { epoch: self.topology.epoch(), homes, why })
    }

    fn evacuate(&self) -> Option<MetaOp> {
        // Those that are to be dissolved need no new home.
        let dissolving = self.topology.leaving_groups();
        self.settled_groups().filter(|(group, _)| !dissolving.contains(group)).find_map(|(group, info)| {
            let leaves = |(_, home): &(&ReplicaId, &NodeId)| self.topology.draining(**home).is_some();
            let (replica, home) = info.replicas.iter().find(leaves)?;
            let new = self.new_home(info, Some(*home))?;
            let why = format!("{} leaves the cluster", self.name(*home));
            Some(self.place(*group, Some(*replica), Some(new), why))
        })
    }

    fn grow(&self) -> Option<MetaOp> {
        let wished = self.wished();
        self.settled_groups().find_map(|(group, info)| {
            let has = info.replicas.len();
            let new = self.new_home(info, None).filter(|_| has < wished)?;
            let why = format!("it has {has} of {} replicas", self.topology.settings().replicas);
            Some(self.place(*group, None, Some(new), why))
        })
    }

    /// Only what has nowhere to go, since too few nodes are left.
    fn shrink(&self) -> Option<MetaOp> {
        let wished = self.wished();
        self.settled_groups().filter(|(_, info)| info.replicas.len() > wished).find_map(|(group, info)| {
            let leaves = |(_, home): &(&ReplicaId, &NodeId)| self.topology.draining(**home).is_some();
            let (replica, home) = info.replicas.iter().find(leaves)?;
            let why = format!("{} leaves the cluster, and no other node is without a replica", self.name(*home));
            Some(self.place(*group, Some(*replica), None, why))
        })
    }

    fn even_replicas(&self) -> Option<MetaOp> {
        let load = self.load();
        let of = |node: &NodeId| load.get(node).copied().unwrap_or_default();
        let fullest = self.topology.staying().max_by_key(|node| (of(node), *node))?;
        let emptiest = self.fit_nodes().min_by_key(|node| (of(node), *node))?;
        let (most, least) = (of(&fullest).0, of(&emptiest).0);
        if most < least + 2 {
            return None;
        }
        let movable = self.settled_groups().filter_map(|(group, info)| {
            let replica = info.replicas.iter().find(|(_, home)| **home == fullest).map(|(replica, _)| *replica)?;
            let is_free = info.homes().all(|home| home != emptiest);
            is_free.then_some((info.preferred == replica, self.weight(*group), *group, replica))
        });
        // Rather one that leads nothing, rather a light one.
        let (_, _, group, replica) = movable.min()?;
        let (from, to) = (self.name(fullest), self.name(emptiest));
        let why = format!("{from} has {most} replicas and {to} has {least}");
        Some(self.place(group, Some(replica), Some(emptiest), why))
    }

    /// One step of the shortest chain of groups by which the node that leads the most could give one up to a node that leads at least two
    /// fewer: its last, so that nobody ever leads more than before.
    fn even_leaders(&self) -> Option<MetaOp> {
        let leads = self.leads();
        let most = leads.values().copied().max()?;
        leads.iter().filter(|(_, count)| **count == most).find_map(|(start, _)| {
            let (giver, group, replica, taker) = self.last_of_chain(&leads, *start)?;
            let (from, to) = (self.name(giver), self.name(taker));
            let why = format!("{from} is to lead {} groups and {to} {}", leads[&giver], leads[&taker]);
            Some(self.prefer(group, replica, why))
        })
    }

    fn last_of_chain(
        &self,
        leads: &BTreeMap<NodeId, usize>,
        start: NodeId,
    ) -> Option<(NodeId, GroupId, ReplicaId, NodeId)> {
        let (mut reached, mut frontier) = (BTreeSet::from([start]), vec![start]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for giver in frontier {
                for (group, info) in self.settled_groups() {
                    if info.replicas[&info.preferred] != giver {
                        continue;
                    }
                    for (replica, taker) in info.replicas.iter().filter(|(_, node)| leads.contains_key(*node)) {
                        if !reached.insert(*taker) {
                            continue;
                        }
                        if leads[taker] + 2 <= leads[&start] {
                            return Some((giver, *group, *replica, *taker));
                        }
                        next.push(*taker);
                    }
                }
            }
            frontier = next;
        }
        None
    }
}

/// § The group went on with a move as that was taken back. What has left its membership does not come back under its id: the move stands.
fn overtaken(info: &GroupInfo, voters: &BTreeSet<ReplicaId>) -> Option<(ReplicaId, ReplicaId, String)> {
    let newest = info.departing.keys().rfind(|replica| voters.contains(replica))?;
    let instead = info.replicas.keys().find(|replica| !voters.contains(replica) && *replica < newest)?;
    Some((*newest, *instead, "its group went on with the move".to_owned()))
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
