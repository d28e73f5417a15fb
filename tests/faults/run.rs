//! The runs: Kvorum, which must pass, and a Redis Cluster, which must not.
//!
//! `KVORUM_FAULT_SECONDS` is how long faults go on (30), `KVORUM_FAULT_SEED` repeats a schedule, `KVORUM_FAULT_KINDS` names the kinds
//! to choose from, `KVORUM_FAULT_CONTROL=1` runs the control. A seed fixes faults and commands, not what the scheduler makes of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::clients::{CLIENTS, Clients, HotKeys};
use super::history::Call;
use super::linearizable::Checker;
use super::nodes::Nodes;
use super::random::Random;
use super::report::Report;
use super::schedule::{Fault, Schedule};
use crate::cluster::harness::Reply;

const DEFAULT_SECONDS: u64 = 30;
/// A Redis Cluster has lost a write long before.
const CONTROL_SECONDS: u64 = 120;
/// Before a fault, and after it, for clients to work in peace.
const CALM: Duration = Duration::from_millis(400);
/// For every client to be served again, once nothing is broken any more.
const HEAL_WAIT: Duration = Duration::from_secs(40);

/// What the nodes say of their data in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    Compared,
    /// A Redis Cluster's replicas lag.
    Unknown,
}

pub struct Run {
    pub nodes: Nodes,
    clients: Clients,
    random: Random,
    report: Report,
    /// Of every key that was ever hot, with the fault of its time.
    checkers: HashMap<Arc<str>, (Fault, Checker)>,
    rounds: u64,
}

#[test]
fn every_key_is_linearizable_through_every_fault() {
    let seed = seed();
    let seconds = from_environment("KVORUM_FAULT_SECONDS").unwrap_or(DEFAULT_SECONDS);
    println!("replay: KVORUM_FAULT_SEED={seed} KVORUM_FAULT_SECONDS={seconds}");
    let nodes = Nodes::kvorum();
    let (kinds, left_out): (Vec<Fault>, Vec<Fault>) =
        chosen_kinds().into_iter().partition(|kind| kind.is_possible(&nodes));
    if !left_out.is_empty() {
        println!("left out, for want of root, `ip`, `tc`, `mount` or `cc`: {left_out:?}");
    }
    let mut run = Run::new(nodes, seed);
    let mut schedule = Schedule::new(kinds);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && run.report.violations.is_empty() {
        let fault = schedule.next(&mut run.random);
        run.round(fault);
        run.change_every_leader();
        run.judge(fault);
    }
    let report = run.finish(Digests::Compared);
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
    let kinds = Fault::CONTROL.into_iter().filter(|kind| kind.is_possible(&nodes)).collect();
    let mut run = Run::new(nodes, seed);
    let mut schedule = Schedule::new(kinds);
    let until = Instant::now() + Duration::from_secs(CONTROL_SECONDS);
    while Instant::now() < until && run.report.violations.is_empty() {
        let fault = schedule.next(&mut run.random);
        run.round(fault);
        run.judge(fault);
    }
    let report = run.finish(Digests::Unknown);
    println!("{report}\n{}", report.violations.join("\n\n"));
    assert!(!report.violations.is_empty(), "the check found nothing in {CONTROL_SECONDS} s, so it proves nothing");
}

impl Run {
    pub fn new(nodes: Nodes, seed: u64) -> Self {
        let clients = Clients::start(nodes.addresses(), seed, hot_keys(0));
        let (random, report) = (Random::new(seed), Report::default());
        Self { nodes, clients, random, report, checkers: HashMap::new(), rounds: 0 }
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
        let deadline = Instant::now() + HEAL_WAIT;
        while !self.clients.unserved_since(since).is_empty() {
            if Instant::now() > deadline {
                let unserved = self.clients.unserved_since(since);
                self.report
                    .troubles
                    .push(format!("{fault:?}: clients {unserved:?} of {CLIENTS} were not served again"));
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// So that each key's life has one: whoever led a group, one of two nodes that take over one after the other is another.
    fn change_every_leader(&mut self) {
        let count = self.nodes.nodes.len();
        let first = self.random.below(count);
        let second = (first + 1 + self.random.below(count - 1)) % count;
        for node in [first, second] {
            self.nodes.take_leadership(node);
            std::thread::sleep(CALM);
        }
    }

    /// Turns to other keys and checks those of this fault.
    pub fn judge(&mut self, fault: Fault) {
        self.rounds += 1;
        let calls = self.clients.rotate(hot_keys(self.rounds));
        self.report.add(fault, &calls);
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

    /// Reads every key once more: what was acknowledged long ago is still there.
    pub fn finish(mut self, digests: Digests) -> Report {
        let keys: Vec<Arc<str>> = self.checkers.keys().cloned().collect();
        for (key, call) in self.clients.finish(keys.into_iter()) {
            // Calls on the last keys, which no fault met, have no checker.
            let Some((fault, checker)) = self.checkers.get_mut(&key) else { continue };
            if let Err(failure) = checker.follow(&[call]) {
                self.report.add_failure(*fault, &format!("{key}, read at the end"), failure);
            }
        }
        if digests == Digests::Compared {
            self.report.violations.extend(difference(&self.nodes));
        }
        self.report
    }
}

/// Each node has a replica of every group: once nothing is written any more, and all of it applied, all say the same.
fn difference(nodes: &Nodes) -> Option<String> {
    let deadline = Instant::now() + HEAL_WAIT;
    loop {
        let said: Vec<Reply> = nodes.nodes.iter().map(|node| node.ask(&["DEBUG", "DIGEST"])).collect();
        if said.iter().all(|reply| *reply == said[0] && matches!(reply, Reply::Simple(_))) {
            println!("every replica has the same data: {}", said[0].text());
            return None;
        }
        if Instant::now() > deadline {
            return Some(format!("the replicas' data differ: {said:?}"));
        }
        std::thread::sleep(CALM);
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

fn chosen_kinds() -> Vec<Fault> {
    let Ok(names) = std::env::var("KVORUM_FAULT_KINDS") else { return Fault::ALL.to_vec() };
    let kind = |name: &str| {
        let found = Fault::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
        found.unwrap_or_else(|| panic!("{name} is none of {:?}", Fault::ALL))
    };
    names.split(',').map(kind).collect()
}
