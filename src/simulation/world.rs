//! The whole cluster, its clients and its faults, stepped a millisecond at a time: what is done to it is in `deeds.rs`, what can be seen of it in
//! `sight.rs`, what must hold in `ends.rs` and `invariants`.

mod deeds;
mod ends;
mod sight;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Once;

use crate::keyspace::draw_anew;
use crate::raft::Fsync;
use crate::random::simulated::{Chance, seed};
use crate::simulation::client::Clients;
use crate::simulation::forming::ROUND_MS;
use crate::simulation::history::Outcome;
use crate::simulation::invariants::{Invariants, Seen};
use crate::simulation::late::OldMoves;
use crate::simulation::network::Network;
use crate::simulation::node::{Machine, REMOVED};
use crate::simulation::scenario::Scenario;

pub use deeds::Answer;

const CLIENTS: usize = 8;
/// Within this a cluster without faults serves.
const HEAL_MS_MAX: u64 = 60_000;
/// After a node has joined, for its last membership change to be committed.
const SETTLING_MS: u64 = 3000;
/// Written in the end: some of every group.
const GROUP_KEYS: usize = 8;

pub struct World {
    pub now_ms: u64,
    pub chance: Chance,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub clients: Clients,
    pub scenario: Scenario,
    pub old_moves: OldMoves,
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

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    pub faults: BTreeMap<String, u64>,
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
            old_moves: OldMoves::default(),
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
        self.network.repeat_no_more();
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
        let repeated = self.network.repeated().into_iter().map(|(copied, count)| (copied.name(), count));
        self.faults.extend(repeated);
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
            faults: self.faults.iter().map(|(fault, count)| ((*fault).to_owned(), *count)).collect(),
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
                Fsync::EverySec | Fsync::No => {
                    // It joins anew if the others have everything. Else its operator lets it go on, which loses nothing: only the process has ended.
                    self.machines[node].accept_loss = !self.can_spare_one();
                    self.kill(node);
                }
            }
            self.later(50, 1000, Later::Start(node));
        }
        Ok(())
    }

    /// Nodes that run, as they are looked at.
    pub fn seen(&self) -> Vec<Seen> {
        let see = |machine: &Machine| {
            let replication = machine.shared()?.replication.clone();
            let groups = replication.groups();
            Some(Seen { node: machine.index, replication, groups })
        };
        self.machines.iter().filter_map(see).collect()
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
        self.old_moves = OldMoves::default();
    }

    /// Made so far on all nodes.
    pub fn snapshots(&self) -> u64 {
        self.invariants.snapshots()
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
}

impl Later {
    fn run(self, world: &mut World) {
        match self {
            Self::Kill(node) => world.kill(node),
            Self::Start(node) => world.start(node),
            Self::Resume(node) => world.resume(node),
            Self::EmptyDisk(node) => world.machines[node].empty_disk(),
            Self::Cut(node, other) => world.cut_both_ways(node, other),
            Self::Mend => world.network.mend(),
        }
    }
}
