//! The runs: Kvorum, which must pass, and a Redis Cluster, which must not.
//!
//! `KVORUM_FAULT_SECONDS` is how long faults go on (27), `KVORUM_FAULT_SEED` repeats a schedule, `KVORUM_FAULT_KINDS` names the kinds
//! to choose from, `KVORUM_FAULT_FLAGS` adds flags to every node's, `KVORUM_FAULT_CONTROL=1` runs the control. A seed fixes faults and commands, not what the scheduler makes of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::aftermath;
use super::clients::{CLIENTS, Clients, HotKeys, slot_of};
use super::history::{Call, Outcome};
use super::linearizable::Checker;
use super::members::{self, Members};
use super::moves::{Mover, Moves};
use super::nodes::{FOUNDERS, Nodes};
use super::random::Random;
use super::report::{Report, has_two_leaders};
use super::schedule::{Fault, SNAPSHOT_INSTALLED, Schedule};
use crate::host::{Host, Stopwatch};

const DEFAULT_SECONDS: u64 = 27;
/// A Redis Cluster has lost a write long before.
const CONTROL_SECONDS: u64 = 120;
/// Before a fault, and after it, for clients to work in peace.
const CALM: Duration = Duration::from_millis(400);
/// For every client to be served again, once nothing is broken any more.
const HEAL_WAIT: Duration = Duration::from_secs(40);
/// Times that leaderships are handed on in a round, until each key has had two leaders.
const LEADER_CHANGES_MAX: usize = 4;
/// A node that joins takes a quarter of all slots, before those that are moved by hand.
const MOVE_PATIENCE: Duration = Duration::from_secs(15);

/// What the nodes say of their slots and keys in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    Checked,
    /// A Redis Cluster's replicas lag.
    Unknown,
}

pub struct Run {
    pub nodes: Nodes,
    clients: Clients,
    mover: Option<Mover>,
    members: Members,
    random: Random,
    report: Report,
    /// Of every key that was ever hot, with the fault of its time.
    checkers: HashMap<Arc<str>, (Fault, Checker)>,
    rounds: u64,
    /// As the last judgement was made.
    host: Host,
}

#[test]
fn every_key_is_linearizable_through_every_fault() {
    let seed = seed();
    let seconds = from_environment("KVORUM_FAULT_SECONDS").unwrap_or(DEFAULT_SECONDS);
    println!("replay: KVORUM_FAULT_SEED={seed} KVORUM_FAULT_SECONDS={seconds}");
    let nodes = if members::wanted() { Nodes::kvorum_with_spare() } else { Nodes::kvorum() };
    let kinds = possible_kinds(&nodes);
    let mut run = Run::new(nodes, seed);
    run.start_moves(seed);
    let mut schedule = Schedule::new(kinds);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && run.report.violations.is_empty() {
        let fault = schedule.next(&mut run.random);
        run.round(fault);
        run.change_every_leader();
        run.move_every_slot();
        run.judge(fault);
        run.change_members();
    }
    let mut report = run.finish(Aftermath::Checked);
    report.seconds = seconds;
    println!("{report}");
    let objections = report.objections();
    assert!(objections.is_empty(), "KVORUM_FAULT_SEED={seed}\n{}", objections.join("\n\n"));
}

#[test]
fn the_control_finds_the_writes_that_a_redis_cluster_loses() {
    if from_environment("KVORUM_FAULT_CONTROL") != Some(1) {
        println!("skipped: KVORUM_FAULT_CONTROL=1 runs it");
        return;
    }
    let seed = seed();
    println!("replay: KVORUM_FAULT_SEED={seed}");
    let nodes = Nodes::redis();
    let kinds = Fault::CONTROL.into_iter().filter(|kind| kind.lacks(&nodes).is_none()).collect();
    let mut run = Run::new(nodes, seed);
    let mut schedule = Schedule::new(kinds);
    let until = Instant::now() + Duration::from_secs(CONTROL_SECONDS);
    while Instant::now() < until && run.report.violations.is_empty() {
        let fault = schedule.next(&mut run.random);
        run.round(fault);
        run.judge(fault);
    }
    let report = run.finish(Aftermath::Unknown);
    println!("{report}\n{}", report.violations.join("\n\n"));
    assert!(!report.violations.is_empty(), "the check found nothing in {CONTROL_SECONDS} s, so it proves nothing");
}

impl Run {
    pub fn new(nodes: Nodes, seed: u64) -> Self {
        let clients = Clients::start(nodes.all_addresses(), seed, hot_keys(0));
        let (random, report) = (Random::new(seed), Report::default());
        Self {
            nodes,
            clients,
            mover: None,
            members: Members::default(),
            random,
            report,
            checkers: HashMap::new(),
            rounds: 0,
            host: Host::look(),
        }
    }

    /// From now on the slots of the hot keys move between groups.
    fn start_moves(&mut self, seed: u64) {
        self.mover = Some(Mover::start(self.nodes.all_addresses(), seed, &hot_keys(self.rounds)));
    }

    /// One fault, until all clients are served again.
    pub fn round(&mut self, fault: Fault) {
        std::thread::sleep(CALM);
        let leader = self.nodes.leader_of(&self.victim_key());
        let started = self.clients.now();
        fault.strike(&mut self.nodes, leader, &mut self.random);
        let undone = self.clients.now();
        self.nodes.wait_ready();
        self.wait_served(fault, undone);
        std::thread::sleep(CALM);
        let (started, lasted) = (started.as_secs_f64(), (undone - started).as_secs_f64());
        let healed = (self.clients.now() - undone - CALM).as_secs_f64();
        println!("{started:8.2} s: {fault:?} of node {leader} for {lasted:.2} s, healed in {healed:.2} s");
    }

    /// A key of the group whose leader the next fault strikes.
    pub fn victim_key(&self) -> Arc<str> {
        hot_keys(self.rounds).texts[0].clone()
    }

    fn wait_served(&mut self, fault: Fault, since: Duration) {
        let waited = Stopwatch::start();
        while !self.clients.unserved_since(since).is_empty() {
            if waited.is_over(HEAL_WAIT) {
                let unserved = self.clients.unserved_since(since);
                self.report
                    .troubles
                    .push(format!("{fault:?}: clients {unserved:?} of {CLIENTS} were not served again"));
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn change_members(&mut self) {
        let changed = self.members.step(&mut self.nodes);
        self.report.violations.extend(changed.err());
    }

    /// So that each key's life has one. On a starved machine a node may be asked to take over in vain.
    fn change_every_leader(&mut self) {
        for _ in 0..LEADER_CHANGES_MAX {
            self.hand_leaderships_on();
            if self.mover.as_ref().is_none_or(|mover| mover.unchanged().is_empty()) {
                break;
            }
        }
    }

    /// Whoever led a group, one of two nodes that take over one after the other is another.
    fn hand_leaderships_on(&mut self) {
        let first = self.random.below(FOUNDERS);
        let second = (first + 1 + self.random.below(FOUNDERS - 1)) % FOUNDERS;
        let mut takers = vec![first, second];
        // One of four nodes has no replica of a group: it may be one of these.
        if self.nodes.nodes.len() > FOUNDERS {
            takers.push(FOUNDERS - first - second);
        }
        for node in takers {
            self.nodes.take_leadership(node);
            std::thread::sleep(CALM);
        }
    }

    /// So that each key's life has a move, too. On a busy machine that may take long, and long histories cannot be judged.
    fn move_every_slot(&mut self) {
        let Some(mover) = &self.mover else { return };
        let waited = Stopwatch::start();
        while mover.unmoved() > 0 && !waited.is_over(MOVE_PATIENCE) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.report.slots_unmoved += mover.unmoved();
    }

    /// Turns to other keys and checks those of this fault.
    pub fn judge(&mut self, fault: Fault) {
        self.rounds += 1;
        let keys = hot_keys(self.rounds);
        let unchanged = self.mover.as_ref().map(Mover::unchanged);
        let moves = self.mover.as_ref().map_or(Moves::default(), |mover| mover.turn_to(&keys));
        let calls = self.clients.rotate(keys);
        let has_changed_leader = |key: &str| match &unchanged {
            Some(unchanged) => !unchanged.contains(&slot_of(key)),
            None => has_two_leaders(&calls, key),
        };
        let before = std::mem::replace(&mut self.host, Host::look());
        self.report.add(fault, &calls, has_changed_leader, moves, self.host.stolen_percent(&before));
        for text in self.nodes.broken() {
            self.report.troubles.push(format!("{fault:?}: {text}"));
        }
        let mut by_key: BTreeMap<Arc<str>, Vec<Call>> = BTreeMap::new();
        calls.into_iter().for_each(|(key, call)| by_key.entry(key).or_default().push(call));
        for (key, calls) in by_key {
            let mut checker = Checker::default();
            match checker.follow(&calls) {
                Ok(()) => drop(self.checkers.insert(key, (fault, checker))),
                Err(failure) => self.report.add_failure(fault, &key, failure),
            }
        }
    }

    /// Reads and writes every key once more: what was acknowledged long ago is still there, and nothing is frozen.
    pub fn finish(mut self, aftermath: Aftermath) -> Report {
        let founders_alone = self.members.finish(&mut self.nodes);
        self.report.violations.extend(founders_alone.err());
        self.report.joined = self.members.joined;
        self.report.left = self.members.left;
        self.mover.take().into_iter().for_each(Mover::finish);
        if aftermath == Aftermath::Checked {
            self.report.violations.extend(aftermath::unfinished_move(&self.nodes));
        }
        let hot = (0..=self.rounds).map(hot_keys);
        self.report.snapshots =
            self.nodes.nodes.iter().map(|node| node.log().matches(SNAPSHOT_INSTALLED).count()).sum();
        let keys: BTreeSet<Arc<str>> = hot.flat_map(|keys| keys.all().cloned().collect::<Vec<_>>()).collect();
        for (key, call) in self.clients.finish(keys.iter().cloned()) {
            if call.client == CLIENTS && !matches!(call.outcome, Outcome::Ok(_)) {
                self.report.troubles.push(format!("{key} is not served in the end: {call}"));
            }
            // Calls on the last keys, which no fault met, have no checker, nor have those of keys that failed.
            let Some((fault, checker)) = self.checkers.get_mut(&key) else { continue };
            if let Err(failure) = checker.follow(&[call]) {
                self.report.add_failure(*fault, &format!("{key}, read at the end"), failure);
            }
        }
        if aftermath == Aftermath::Checked {
            self.report.violations.extend(aftermath::troubles(&self.nodes, &keys));
        }
        self.report
    }
}

/// Five keys: three of one group, whose leader is the victim, two of any.
fn hot_keys(round: u64) -> HotKeys {
    let name = |name: &str| Arc::from(format!("{name}{round}"));
    let victim = |name: &str| Arc::from(format!("{{victim{round}}}{name}"));
    let texts = vec![victim("text:a"), victim("text:b"), name("text:")];
    HotKeys { texts, counters: vec![victim("count"), name("count:")] }
}

pub fn seed() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    from_environment("KVORUM_FAULT_SEED").unwrap_or(since.as_micros() as u64)
}

pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Says what is left out and why. A run that somebody asked for as root is to leave out nothing.
fn possible_kinds(nodes: &Nodes) -> Vec<Fault> {
    let (kinds, left_out): (Vec<Fault>, Vec<Fault>) =
        chosen_kinds().into_iter().partition(|kind| kind.lacks(nodes).is_none());
    for kind in &left_out {
        println!("left out: {kind:?}, for want of {}", kind.lacks(nodes).expect("it lacks something"));
    }
    let is_asked_for = from_environment("KVORUM_FAULT_SECONDS").is_some();
    let may_leave_out = !is_asked_for || !rustix::process::geteuid().is_root();
    assert!(left_out.is_empty() || may_leave_out, "a long run is to try everything, and {left_out:?} cannot be tried");
    kinds
}

fn chosen_kinds() -> Vec<Fault> {
    let Ok(names) = std::env::var("KVORUM_FAULT_KINDS") else { return Fault::ALL.to_vec() };
    let kind = |name: &str| {
        let found = Fault::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
        found.unwrap_or_else(|| panic!("{name} is none of {:?}", Fault::ALL))
    };
    names.split(',').map(kind).collect()
}
