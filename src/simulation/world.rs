//! The whole cluster, its clients and its faults, stepped a millisecond at a time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{Address, GroupId, MetaRole, MoveState, Probe, ReplicaId};
use crate::keyspace::draw_anew;
use crate::raft::{Fsync, Group, Held, Route};
use crate::random::simulated::{Chance, seed};
use crate::server::SimulatedConnection;
use crate::simulation::client::{Clients, put, take};
use crate::simulation::forming::{ROUND_MS, Round};
use crate::simulation::history::Outcome;
use crate::simulation::invariants::{Invariants, Owners, Seen, compare, copies, owned_as_named};
use crate::simulation::network::Network;
use crate::simulation::node::{Machine, REMOVED};
use crate::simulation::scenario::Scenario;
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

const CLIENTS: usize = 8;
/// Within this a cluster without faults serves.
const HEAL_MS_MAX: u64 = 60_000;
/// Between two looks at what takes longer to look at.
const SLOW_LOOK_MS: u64 = 5;
/// After a node has joined, for its last membership change to be committed.
const SETTLING_MS: u64 = 3000;
/// Written in the end: some of every group.
const GROUP_KEYS: usize = 8;
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

pub struct World {
    pub now_ms: u64,
    pub chance: Chance,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub clients: Clients,
    pub scenario: Scenario,
    invariants: Invariants,
    later: Vec<(u64, Later)>,
    joined_ms: u64,
    faults: BTreeMap<&'static str, u64>,
}

/// What a fault leaves to be done.
pub enum Later {
    Kill(usize),
    Start(usize),
    Resume(usize),
    /// The disk has space again.
    EmptyDisk(usize),
    Cut(usize, usize),
    Mend,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub steps: u64,
    pub done: usize,
    pub refused: usize,
    pub unknown: usize,
    pub applied: u64,
    pub leaderships: usize,
    pub snapshots: u64,
    pub installs: u64,
    pub compared: u64,
    /// Of all that nodes told each other.
    pub sent_crc32: u32,
    pub faults: BTreeMap<&'static str, u64>,
}

thread_local! {
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// tokio keeps a task's panic to itself; the world wants to know.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.set(Some(panic.to_string()));
            report(panic);
        }));
    });
}

/// One run: what the scenario does to the cluster, then nothing until all is well. Err is what did not hold.
pub fn run(number: u64, scenario: Scenario) -> Result<Report, String> {
    note_panics();
    PANICKED.set(None);
    seed(Some(number));
    draw_anew();
    // A node that cannot start panics here, and not in a task.
    let lived = catch_unwind(|| World::new(number, scenario).live());
    let outcome = lived.unwrap_or_else(|_| Err(PANICKED.take().unwrap_or_default()));
    seed(None);
    crate::clock::simulated::set(None);
    outcome.map_err(|error| format!("seed {number}: {error}"))
}

impl World {
    fn new(number: u64, scenario: Scenario) -> Self {
        let network = Network::new(number ^ 0x5eed);
        let drift = |index: usize| index as i64 % 3 * 4 - 4;
        let machine = |index| Machine::new(index, scenario, network.clone(), drift(index));
        let machines: Vec<Machine> = (0..scenario.nodes + scenario.spares).map(machine).collect();
        Self {
            now_ms: 0,
            chance: Chance(number),
            network,
            machines,
            clients: Clients::new(CLIENTS, scenario.nodes),
            scenario,
            invariants: Invariants::default(),
            later: Vec::new(),
            joined_ms: 0,
            faults: BTreeMap::new(),
        }
    }

    fn live(mut self) -> Result<Report, String> {
        (0..self.scenario.nodes).for_each(|node| self.start(node));
        self.until_well()?;
        (self.scenario.disturb)(&mut self)?;
        self.network.mend();
        let later = std::mem::take(&mut self.later);
        later.into_iter().for_each(|(_, event)| event.run(&mut self));
        self.until_well()?;
        while !self.clients.are_idle() {
            self.step(false)?;
        }
        self.until_moves_are_over()?;
        for key in self.clients.history.keys() {
            let last = self.read(&key)?;
            self.clients.history.check(&key, &last)?;
        }
        self.replicas_agree()?;
        (0..GROUP_KEYS).try_for_each(|key| self.ask(&[b"SET", format!("end{key}").as_bytes(), b""]).map(drop))?;
        let history = &self.clients.history;
        Ok(Report {
            steps: self.now_ms,
            done: history.count(Outcome::Done),
            refused: history.count(Outcome::Refused),
            unknown: history.count(Outcome::Unknown),
            applied: self.invariants.applied(),
            leaderships: self.invariants.leaderships(),
            snapshots: self.invariants.snapshots(),
            installs: self.invariants.installs(),
            compared: self.invariants.compared(),
            sent_crc32: self.network.sent_crc32(),
            faults: self.faults,
        })
    }

    /// `begin`: whether clients make new calls.
    pub fn step(&mut self, begin: bool) -> Result<(), String> {
        self.now_ms += 1;
        let due: Vec<usize> = (0..self.later.len()).rev().filter(|at| self.later[*at].0 <= self.now_ms).collect();
        for at in due {
            let (_, event) = self.later.remove(at);
            event.run(self);
        }
        self.network.advance(self.now_ms);
        for machine in &mut self.machines {
            machine.step(self.now_ms);
        }
        if self.now_ms.is_multiple_of(ROUND_MS) {
            (0..self.machines.len()).for_each(|node| self.form(node));
            (0..self.machines.len()).for_each(|node| self.ask_standing(node));
        }
        self.clients.step(&self.machines, self.now_ms, &mut self.chance, begin);
        if let Some(expired) = self.clients.expired.take() {
            return Err(expired);
        }
        if let Some(panic) = PANICKED.take() {
            return Err(format!("at {} ms: {panic}", self.now_ms));
        }
        self.end_failed().and_then(|()| self.look()).map_err(|error| format!("at {} ms: {error}", self.now_ms))
    }

    pub fn pass(&mut self, ms: u64) -> Result<(), String> {
        (0..ms).try_for_each(|_| self.step(true))
    }

    /// Clients go on until `condition` holds; false if it does not within `ms_max`.
    pub fn pass_until(&mut self, ms_max: u64, condition: impl Fn(&Self) -> bool) -> Result<bool, String> {
        for _ in 0..ms_max {
            if condition(self) {
                return Ok(true);
            }
            self.step(true)?;
        }
        Ok(condition(self))
    }

    /// A node that stops by itself had a reason: its disk. What of the last writes is on it, nobody knows then.
    fn end_failed(&mut self) -> Result<(), String> {
        for node in 0..self.machines.len() {
            let Some(reason) = self.machines[node].failure() else { continue };
            if reason == REMOVED || reason.contains("no longer a member") {
                self.leave(node);
                continue;
            }
            if !self.machines[node].disk_fails {
                return Err(format!("node {node} cannot go on: {reason}"));
            }
            match self.scenario.fsync {
                Fsync::Always => self.lose_power(node),
                Fsync::EverySec | Fsync::No => self.kill(node),
            }
            self.later(50, 1000, Later::Start(node));
        }
        Ok(())
    }

    fn seen(&self) -> Vec<Seen> {
        let see = |machine: &Machine| {
            let replication = machine.shared()?.replication.clone();
            let groups = replication.groups();
            Some(Seen { node: machine.index, replication, groups })
        };
        self.machines.iter().filter_map(see).collect()
    }

    /// The node has replicas of all its groups, and each has seen a stamp in this life of the process.
    pub fn clocks_are_known(&self, node: usize) -> bool {
        let Some(shared) = self.machines[node].shared() else { return false };
        let (groups, topology) = (shared.replication.groups(), shared.replication.topology());
        let wanted = topology.replicas_on(shared.replication.node()).count();
        groups.len() == wanted && groups.iter().all(|group| group.clock_is_known())
    }

    /// Members, also those that are down.
    pub fn members(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|node| !self.machines[*node].outside).collect()
    }

    pub fn meta_leader(&self) -> Option<usize> {
        self.seen().iter().find(|seen| seen.replication.leads_meta()).map(|seen| seen.node)
    }

    /// An empty machine is told to join.
    pub fn join(&mut self, node: usize) {
        self.machines[node].wipe();
        self.machines[node].outside = false;
        self.start(node);
    }

    /// An operator tells any member that the node is to leave.
    pub fn remove(&mut self, node: usize) {
        let Some(id) = self.machines[node].shared().map(|shared| shared.replication.node()) else { return };
        let others = self.seen().into_iter().filter(|seen| seen.node != node);
        for Seen { node, replication, .. } in others {
            self.machines[node].spawn(async move {
                // Refused, or to a leader that is away: as an operator would see it.
                let _ = replication.drain(id, None, false).await;
            });
        }
    }

    /// Its process has ended with 0.
    fn leave(&mut self, node: usize) {
        self.kill(node);
        self.machines[node].outside = true;
        self.count("node left");
    }

    /// What a node does by the others' client ports (`raft/members.rs`): one that missed its removal hears of it.
    fn ask_standing(&mut self, node: usize) {
        let Some(id) = self.machines[node].shared().map(|shared| shared.replication.node()) else { return };
        let knows = |seen: &Seen| seen.replication.newest_topology().was_forgotten(id);
        let reached = |seen: &Seen| seen.node != node && !self.network.is_cut(seen.node, node);
        if !self.machines[node].is_paused() && self.seen().iter().any(|seen| reached(seen) && knows(seen)) {
            self.leave(node);
        }
    }

    fn look(&mut self) -> Result<(), String> {
        self.invariants.begin_step();
        let all = self.seen();
        for seen in &all {
            self.machines[seen.node].set_clocks(self.now_ms);
            self.invariants.look(seen)?;
            if self.now_ms.is_multiple_of(SLOW_LOOK_MS) {
                copies::look(seen, self.scenario.nodes.min(self.scenario.replicas as usize))?;
            }
        }
        if self.now_ms.is_multiple_of(SLOW_LOOK_MS) {
            self.look_at_owners(&all)?;
        }
        self.invariants.end_step(&all)
    }

    fn look_at_owners(&self, all: &[Seen]) -> Result<(), String> {
        let mut owners = Owners::default();
        for seen in all {
            self.machines[seen.node].set_clocks(self.now_ms);
            owners.look(seen)?;
        }
        Ok(())
    }

    /// § Every move is over, and both groups have cleaned up: nothing stays frozen.
    fn until_moves_are_over(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let mut left = None;
        while self.now_ms < until {
            let topologies = self.seen().into_iter().map(|seen| seen.replication.newest_topology());
            let topologies: Vec<_> = topologies.collect();
            // A node whose replica of the meta group is behind may not know of a move that others have forgotten.
            let level = topologies.windows(2).all(|pair| pair[0].epoch() == pair[1].epoch());
            left = topologies.into_iter().max_by_key(|topology| topology.epoch());
            if level && left.as_ref().is_some_and(|topology| topology.moves().next().is_none()) {
                return Ok(());
            }
            self.step(false)?;
        }
        let left: Vec<_> = left.iter().flat_map(|topology| topology.moves()).map(|(_, left)| left.clone()).collect();
        Err(format!("moves are not over, {HEAL_MS_MAX} ms after the last fault: {left:?}"))
    }

    /// Until every node knows a leader for every group.
    fn until_well(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        while self.now_ms < until {
            self.step(false)?;
            if self.members().into_iter().all(|node| self.machines[node].readiness().is_ok()) {
                return Ok(());
            }
        }
        let missing: Vec<_> = self.members().into_iter().map(|node| self.machines[node].readiness()).collect();
        let now_ms = self.now_ms;
        Err(format!("at {now_ms} ms: the cluster does not serve, {HEAL_MS_MAX} ms after the last fault: {missing:?}"))
    }

    fn replicas_agree(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let replicas = self.scenario.nodes.min(self.scenario.replicas as usize);
        while self.now_ms < until {
            let seen = self.seen();
            if let Some(agree) = compare(&seen, replicas) {
                agree?;
                // One that was asked for may have begun late.
                if self.moves() == 0 {
                    return seen.iter().try_for_each(owned_as_named);
                }
            }
            self.step(false)?;
        }
        Err(format!("the replicas of a group are not at one entry, {HEAL_MS_MAX} ms after the last fault"))
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

    /// No call is under way, and all logs are level.
    pub fn rest(&mut self) -> Result<(), String> {
        while !self.clients.are_idle() {
            self.step(false)?;
        }
        self.idle(500)
    }

    /// Without calls.
    pub fn idle(&mut self, ms: u64) -> Result<(), String> {
        (0..ms).try_for_each(|_| self.step(false))
    }

    /// See `pass_until`, without calls.
    pub fn idle_until(&mut self, ms_max: u64, condition: impl Fn(&Self) -> bool) -> Result<bool, String> {
        for _ in 0..ms_max {
            if condition(self) {
                return Ok(true);
            }
            self.step(false)?;
        }
        Ok(condition(self))
    }

    /// What was acknowledged may be gone: from here on nothing of it is asked for.
    pub fn forget(&mut self) {
        self.clients.forget();
        self.invariants.forget();
    }

    /// Made so far on all nodes.
    pub fn snapshots(&self) -> u64 {
        self.invariants.snapshots()
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

    pub fn at(&mut self, ms: u64, event: Later) {
        self.later.push((ms, event));
    }

    /// In `ms_min` ms, or so many more at most.
    pub fn later(&mut self, ms_min: u64, more_max: u64, event: Later) {
        let at = self.now_ms + ms_min + self.chance.below(more_max);
        self.at(at, event);
    }

    pub fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn kill(&mut self, node: usize) {
        self.machines[node].kill();
        self.clients.disconnect(node, self.now_ms);
    }

    pub fn lose_power(&mut self, node: usize) {
        self.machines[node].lose_power(&mut self.chance);
        self.clients.disconnect(node, self.now_ms);
    }

    pub fn wipe(&mut self, node: usize) {
        self.machines[node].wipe();
        self.clients.disconnect(node, self.now_ms);
        self.joined_ms = u64::MAX - SETTLING_MS;
    }

    pub fn fail_disk(&mut self, node: usize) {
        self.machines[node].fail_disk(&mut self.chance);
    }

    /// Its disk has hardly any space left.
    pub fn fill_disk(&mut self, node: usize, ms_min: u64, more_max: u64) {
        self.machines[node].fill_disk(&mut self.chance);
        self.later(ms_min, more_max, Later::EmptyDisk(node));
    }

    pub fn start(&mut self, node: usize) {
        if self.machines[node].process.is_none()
            && self.machines[node].forming.is_none()
            && self.machines[node].start(self.now_ms).is_err()
        {
            self.machines[node].kill();
            self.later(50, 1000, Later::Start(node));
        }
        if self.machines[node].forming.is_some() {
            self.joined_ms = u64::MAX - SETTLING_MS;
        }
    }

    fn form(&mut self, node: usize) {
        let Some(mut forming) = self.machines[node].forming.take() else { return };
        self.machines[node].set_clocks(self.now_ms);
        let reached = |machine: &&Machine| {
            machine.index != node && !self.network.is_cut(machine.index, node) && !machine.is_paused()
        };
        let probe = |machine: &Machine| {
            let probe = match (&machine.forming, machine.shared()) {
                (Some(forming), _) => forming.answer(),
                (None, Some(shared)) => Probe::Member { cluster: shared.replication.topology().cluster_id() },
                (None, None) => Probe::Unreachable,
            };
            (machine.address(), probe)
        };
        let probes: BTreeMap<Address, Probe> = self.machines.iter().filter(reached).map(probe).collect();
        let leads = |machine: &&Machine| machine.shared().is_some_and(|shared| shared.replication.leads_meta());
        let leader = self.machines.iter().filter(reached).find(leads);
        match forming.step(self.now_ms, &probes, leader) {
            Round::Goes => {
                self.machines[node].forming = Some(forming);
                return;
            }
            Round::Formed => (),
            Round::JoinedAnew => self.machines[node].join_anew(),
        }
        self.start(node);
        self.joined_ms = self.now_ms;
    }

    pub fn cut_both_ways(&self, node: usize, other: usize) {
        self.network.cut(node, other);
        self.network.cut(other, node);
    }

    pub fn heal_both_ways(&self, node: usize, other: usize) {
        self.network.heal(node, other);
        self.network.heal(other, node);
    }

    pub fn isolate(&self, node: usize) {
        (0..self.machines.len()).filter(|other| *other != node).for_each(|other| self.cut_both_ways(node, other));
    }

    /// Begins to move a slot, mostly one that clients write to, to a group that may own it already.
    pub fn move_slot(&mut self) {
        let node = self.chance.below(self.machines.len() as u64) as usize;
        let Some(shared) = self.machines[node].shared() else { return };
        let groups: Vec<GroupId> = shared.replication.topology().groups().keys().copied().collect();
        let to = groups[self.chance.below(groups.len() as u64) as usize];
        let key = self.clients.recent_key(&mut self.chance);
        let slot = match self.chance.below(5) {
            0 => Slot::new(self.chance.below(SLOT_COUNT as u64) as u16).expect("below the count"),
            _ => KeySlot::of_key(key.as_bytes()).slot(),
        };
        self.begin_move(node, slot, to);
        self.count("move");
    }

    /// As an operator at this node would.
    pub fn begin_move(&mut self, node: usize, slot: Slot, to: GroupId) {
        self.begin_moves(node, [slot].into(), to);
    }

    pub fn begin_moves(&mut self, node: usize, slots: BTreeSet<Slot>, to: GroupId) {
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            // Refused while the slot is moving, or with no meta leader.
            let _ = shared.replication.start_moves(to, slots, "").await;
        });
    }

    pub fn cancel_moves(&mut self) {
        let node = self.chance.below(self.machines.len() as u64) as usize;
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            let _ = shared.replication.cancel_moves(&Slot::all().collect()).await;
        });
        self.count("cancelled moves");
    }

    /// Hands what the node leads to others.
    pub fn transfer(&mut self, node: usize) {
        let Some(shared) = self.machines[node].shared() else { return };
        for group in shared.replication.led_groups() {
            let topology = shared.replication.topology();
            let Some(info) = topology.group(group.id()) else { continue };
            let others: Vec<_> = info.replicas.keys().copied().filter(|replica| *replica != group.replica()).collect();
            let target = others[self.chance.below(others.len() as u64) as usize];
            self.machines[node].spawn(async move {
                // Refused, or to a node that is away: as an operator would see it.
                let _ = group.transfer(target).await;
            });
        }
    }

    /// What a node does first that is told to stop.
    pub fn depart(&self, node: usize) {
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            shared.replication.announce_departure();
            shared.replication.hand_over_leadership(Instant::now() + HAND_OVER_MAX).await;
        });
    }

    /// What the key holds, from whichever node leads.
    pub fn read(&mut self, key: &str) -> Result<String, String> {
        self.ask(&[b"GET", key.as_bytes()])
    }

    /// What one command comes to in the end.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<String, String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let mut node = 0;
        while self.now_ms < until {
            let answer = Arc::new(Mutex::new(None));
            if let Some(shared) = self.machines[node].shared() {
                let (slot, mut bytes) = (answer.clone(), Vec::new());
                put(&mut bytes, words);
                self.machines[node].spawn(async move {
                    let replies = SimulatedConnection::open(shared).turn(&bytes).await;
                    *slot.lock() = Some(replies);
                });
            }
            for _ in 0..200 {
                self.step(false)?;
                match answer.lock().take().map(|replies| replies.map(|replies| take(&mut &replies[..]))) {
                    Some(Some(Ok(value))) => return Ok(value),
                    Some(Some(Err(_)) | None) => break,
                    None => (),
                }
            }
            node = (node + 1) % self.machines.len();
        }
        Err(format!("{} is not done any more", String::from_utf8_lossy(&words.join(&b' '))))
    }

    /// The reply, if the node is up and gives one within `ms_max`; clients make no new calls meanwhile.
    pub fn call(&mut self, node: usize, words: &[&[u8]], ms_max: u64) -> Result<Option<BytesMut>, String> {
        let answer = Arc::new(Mutex::new(None));
        if let Some(shared) = self.machines[node].shared() {
            let (slot, mut bytes) = (answer.clone(), Vec::new());
            put(&mut bytes, words);
            self.machines[node].spawn(async move {
                let replies = SimulatedConnection::open(shared).turn(&bytes).await;
                *slot.lock() = Some(replies);
            });
        }
        for _ in 0..ms_max {
            self.step(false)?;
            if let Some(replies) = answer.lock().take() {
                return Ok(replies);
            }
        }
        Ok(None)
    }
}

impl Later {
    fn run(self, world: &mut World) {
        match self {
            Self::Kill(node) => world.kill(node),
            Self::Start(node) => world.start(node),
            Self::Resume(node) => {
                if let Some(process) = &mut world.machines[node].process {
                    process.paused = false;
                }
            }
            Self::EmptyDisk(node) => world.machines[node].empty_disk(),
            Self::Cut(node, other) => world.cut_both_ways(node, other),
            Self::Mend => world.network.mend(),
        }
    }
}
