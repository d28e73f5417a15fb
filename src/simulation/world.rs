//! The world: machines, network and clients, a millisecond at a time, with faults on the way.

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Once;

use parking_lot::Mutex;

use crate::random::simulated::{Chance, seed};
use crate::server::SimulatedConnection;
use crate::simulation::client::{Clients, put, take};
use crate::simulation::faults::Faults;
use crate::simulation::history::Outcome;
use crate::simulation::invariants::{Invariants, Seen};
use crate::simulation::network::Network;
use crate::simulation::node::{Machine, found};

const NODES: usize = 3;
const CLIENTS: usize = 8;
/// Within this a cluster without faults serves.
const HEAL_MS_MAX: u64 = 60_000;

pub struct World {
    pub now_ms: u64,
    pub chance: Chance,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub clients: Clients,
    invariants: Invariants,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub steps: u64,
    pub done: usize,
    pub refused: usize,
    pub unknown: usize,
    pub applied: u64,
    pub leaderships: usize,
    pub faults: std::collections::BTreeMap<&'static str, u64>,
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

/// One run of `ms` with faults, then without until all is well. Err is what did not hold.
pub fn run(number: u64, ms: u64) -> Result<Report, String> {
    note_panics();
    PANICKED.set(None);
    seed(Some(number));
    // A node that cannot start panics here, and not in a task.
    let lived = catch_unwind(|| World::new(number).live(ms));
    let outcome = lived.unwrap_or_else(|_| Err(PANICKED.take().unwrap_or_default()));
    seed(None);
    crate::clock::simulated::set(None);
    outcome.map_err(|error| format!("seed {number}: {error}"))
}

impl World {
    fn new(number: u64) -> Self {
        let network = Network::new(number ^ 0x5eed);
        let machines: Vec<Machine> =
            (0..NODES).map(|index| Machine::new(index, network.clone(), index as i64 * 4 - 4)).collect();
        let (clients, invariants) = (Clients::new(CLIENTS), Invariants::default());
        Self { now_ms: 0, chance: Chance(number), network, machines, clients, invariants }
    }

    fn live(mut self, ms: u64) -> Result<Report, String> {
        self.machines[0].set_clocks(0);
        found(&self.machines);
        for index in 0..NODES {
            self.machines[index].start(0);
        }
        self.until_well()?;
        let mut faults = Faults::default();
        while self.now_ms < ms {
            faults.step(&mut self);
            self.step(true)?;
        }
        faults.end(&mut self);
        self.until_well()?;
        while !self.clients.are_idle() {
            self.step(false)?;
        }
        for key in self.clients.history.keys() {
            let last = self.read(&key)?;
            self.clients.history.check(&key, &last)?;
        }
        let history = &self.clients.history;
        Ok(Report {
            steps: self.now_ms,
            done: history.count(Outcome::Done),
            refused: history.count(Outcome::Refused),
            unknown: history.count(Outcome::Unknown),
            applied: self.invariants.applied(),
            leaderships: self.invariants.leaderships(),
            faults: faults.counts,
        })
    }

    fn step(&mut self, begin: bool) -> Result<(), String> {
        self.now_ms += 1;
        self.network.advance(self.now_ms);
        for machine in &mut self.machines {
            machine.step(self.now_ms);
        }
        self.clients.step(&self.machines, self.now_ms, &mut self.chance, begin);
        if let Some(expired) = self.clients.expired.take() {
            return Err(expired);
        }
        if let Some(panic) = PANICKED.take() {
            return Err(format!("at {} ms: {panic}", self.now_ms));
        }
        self.look().map_err(|error| format!("at {} ms: {error}", self.now_ms))
    }

    fn look(&mut self) -> Result<(), String> {
        self.invariants.begin_step();
        for machine in &self.machines {
            let Some(shared) = machine.shared() else { continue };
            machine.set_clocks(self.now_ms);
            let replication = shared.replication.clone();
            let groups = replication.groups();
            self.invariants.look(&Seen { node: machine.index, replication, groups })?;
        }
        Ok(())
    }

    /// Until every node knows a leader for every group.
    fn until_well(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        while self.now_ms < until {
            self.step(false)?;
            let well = |machine: &Machine| {
                machine
                    .shared()
                    .is_some_and(|shared| shared.replication.is_formed() && shared.replication.readiness().is_ok())
            };
            if self.machines.iter().all(well) {
                return Ok(());
            }
        }
        Err(format!("at {} ms: the cluster does not serve, {HEAL_MS_MAX} ms after the last fault", self.now_ms))
    }

    pub fn kill(&mut self, node: usize) {
        self.machines[node].kill();
        self.clients.disconnect(node, self.now_ms);
    }

    pub fn lose_power(&mut self, node: usize) {
        self.machines[node].lose_power(&mut self.chance);
        self.clients.disconnect(node, self.now_ms);
    }

    pub fn cut_both_ways(&self, node: usize, other: usize) {
        self.network.cut(node, other);
        self.network.cut(other, node);
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

    pub fn start(&mut self, node: usize) {
        if self.machines[node].process.is_none() {
            self.machines[node].start(self.now_ms);
        }
    }

    /// What the key holds, from whichever node leads.
    fn read(&mut self, key: &str) -> Result<String, String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let mut node = 0;
        while self.now_ms < until {
            let answer = Arc::new(Mutex::new(None));
            if let Some(shared) = self.machines[node].shared() {
                let (slot, mut bytes) = (answer.clone(), Vec::new());
                put(&mut bytes, &[b"GET", key.as_bytes()]);
                self.machines[node].spawn(async move {
                    let replies = SimulatedConnection::open(shared).turn(&bytes).await;
                    *slot.lock() = Some(replies);
                });
            }
            for _ in 0..200 {
                self.step(false)?;
                let replies = answer.lock().take();
                if let Some(Some(replies)) = replies
                    && let Ok(value) = take(&mut &replies[..])
                {
                    return Ok(value);
                }
            }
            node = (node + 1) % NODES;
        }
        Err(format!("{key} cannot be read any more"))
    }
}
