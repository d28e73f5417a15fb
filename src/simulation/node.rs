//! One simulated machine: what it keeps over its lives, and the process that runs on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::{self, Boottime, Timestamp};
use crate::cluster::{Action, Address, FormingNode, NodeId, PlanSeed, Probe};
use crate::config::{Config, ConfigTable};
use crate::node::{self, Ground};
use crate::raft::{Disk, Fsync, LogOptions, NodeFile, SimulatedLog, SimulatedWriter, Wire};
use crate::random;
use crate::random::simulated::Chance;
use crate::rebalance;
use crate::server::Shared;
use crate::simulation::network::{Network, SimulatedWire, host_of};

const STEP: Duration = Duration::from_millis(1);
/// The simulation begins at this wall clock.
const WALL_START_MS: i64 = 1_700_000_000_000;
const PORT: u16 = 7000;

pub struct Machine {
    pub index: usize,
    pub directory: TempDir,
    pub log: SimulatedLog,
    pub process: Option<Process>,
    /// Its clocks gain so many milliseconds on each thousand.
    pub drift: i64,
    pub wall_offset_ms: i64,
    network: Network,
}

pub struct Process {
    runtime: Runtime,
    shared: Arc<Mutex<Option<Arc<Shared>>>>,
    /// Steps that it did not take while it was paused.
    missed: u64,
    pub paused: bool,
}

impl Machine {
    pub fn new(index: usize, network: Network, drift: i64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { index, directory, log: SimulatedLog::default(), process: None, drift, wall_offset_ms: 0, network }
    }

    pub fn config(&self) -> Config {
        let (host, port) = (host_of(self.index), PORT + self.index as u16);
        let data_dir: PathBuf = self.directory.path().into();
        Config { announce_host: Some(host), port, data_dir, threads: 1, ..Config::default() }
    }

    pub fn file(&self) -> NodeFile {
        NodeFile::open(self.directory.path()).expect("the node's file")
    }

    /// What this machine's clocks say at a moment of the simulation.
    pub fn set_clocks(&self, now_ms: u64) {
        let elapsed_ms = now_ms as i64 + now_ms as i64 * self.drift / 1000;
        clock::simulated::set(Some(clock::simulated::Clocks {
            boot: Boottime(3_600_000_000_000 + elapsed_ms as u64 * 1_000_000),
            wall: Timestamp(WALL_START_MS + elapsed_ms + self.wall_offset_ms),
        }));
    }

    pub fn start(&mut self, now_ms: u64) {
        // A node that starts by a wrong wall clock has nothing to doubt it by: what is promised begins after that.
        self.wall_offset_ms = 0;
        self.set_clocks(now_ms);
        let mut builder = Builder::new_current_thread();
        builder.max_blocking_threads(1).enable_all().start_paused(true);
        // tokio wakes those who watch a channel in an order that it draws.
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&random::draw_u64().to_le_bytes()));
        let runtime = builder.build().expect("a runtime");
        let shared = Arc::new(Mutex::new(None));
        let options = LogOptions { fsync: Fsync::Always, segment_bytes: 1 << 20, accept_loss: false };
        let (log, _, writer) = self.log.open(options).expect("the log is sound");
        let wire = Arc::new(SimulatedWire { network: self.network.clone(), node: self.index });
        self.network.start(self.index);
        let boot =
            boot(self.config(), self.file(), log, wire, self.log.disk(), runtime.handle().clone(), shared.clone());
        runtime.spawn(boot);
        runtime.spawn(write_log(writer, Chance(random::draw_u64())));
        self.process = Some(Process { runtime, shared, missed: 0, paused: false });
    }

    pub fn kill(&mut self) {
        self.network.stop(self.index, true);
        self.process = None;
        self.log.kill();
    }

    pub fn lose_power(&mut self, chance: &mut Chance) {
        self.process = None;
        self.network.stop(self.index, false);
        self.log.lose_power(chance);
    }

    pub fn step(&mut self, now_ms: u64) {
        self.set_clocks(now_ms);
        let Some(process) = &mut self.process else { return };
        if process.paused {
            process.missed += 1;
            return;
        }
        let missed = std::mem::take(&mut process.missed);
        process.runtime.block_on(async {
            if missed > 0 {
                tokio::time::advance(STEP * missed as u32).await;
            }
            tokio::time::sleep(STEP).await;
        });
    }

    pub fn shared(&self) -> Option<Arc<Shared>> {
        self.process.as_ref()?.shared.lock().clone()
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.runtime.spawn(task);
        }
    }
}

async fn boot(
    config: Config,
    file: NodeFile,
    log: crate::raft::NodeLog,
    wire: Arc<dyn Wire>,
    disk: Arc<dyn Disk>,
    runtime: tokio::runtime::Handle,
    slot: Arc<Mutex<Option<Arc<Shared>>>>,
) {
    let topology = match &file.record.membership {
        crate::raft::Membership::Member { topology, .. } => (**topology).clone(),
        other => panic!("not a member: {other:?}"),
    };
    let (failed, mut failures) = mpsc::channel(64);
    let parameters = Arc::new(ConfigTable::new(&config));
    let ground = Ground {
        file,
        parameters: parameters.clone(),
        topology,
        log,
        failed,
        started: Instant::now(),
        runtimes: vec![runtime],
        wire,
        disk,
    };
    let (coordinator, replication, _transport, mut tasks) =
        node::start_replication(&config, ground).await.expect("replication starts");
    let (_stop, stopped) = watch::channel(false);
    tasks.spawn(rebalance::drive(replication.clone()));
    *slot.lock() = Some(Arc::new(Shared::new(replication, config, None, parameters)));
    let mut running = JoinSet::new();
    running.spawn(coordinator.run(stopped));
    let reason = failures.recv().await;
    panic!("a node cannot go on: {reason:?}");
}

/// The log's thread: a batch, then the time a disk takes to sync it.
async fn write_log(mut writer: SimulatedWriter, mut chance: Chance) {
    while writer.step() {
        let slow = chance.below(200) == 0;
        let ms = if slow { 20 + chance.below(200) } else { chance.below(3) };
        tokio::time::sleep(Duration::from_micros(200) + Duration::from_millis(ms)).await;
    }
}

/// Founds a cluster as `raft/formation.rs` does, with the probes' answers carried by hand.
pub fn found(machines: &[Machine]) {
    let addresses: Vec<Address> =
        machines.iter().map(|machine| node::formation_config(&machine.config()).info.address()).collect();
    let mut forming: Vec<(FormingNode, NodeFile)> = machines
        .iter()
        .map(|machine| {
            let file = machine.file();
            let mut config = node::formation_config(&machine.config());
            config.intent.addresses = addresses.iter().cloned().collect();
            let node: NodeId = file.record.node;
            (FormingNode { node, info: config.info, intent: config.intent, plan: None }, file)
        })
        .collect();
    let seed = PlanSeed { cluster_id: crate::cluster::ClusterId::random(), hash_secret: [1, 2, 3, 4] };
    for _ in 0..20 {
        for index in 0..forming.len() {
            let probes: BTreeMap<Address, Probe> = (0..forming.len())
                .filter(|other| *other != index)
                .map(|other| (addresses[other].clone(), forming[other].0.answer()))
                .collect();
            let (node, _) = &mut forming[index];
            if let Action::Found(plan) | Action::AcceptPlan(plan) = node.step(&probes, seed) {
                node.plan = Some(plan);
            }
        }
    }
    for (node, file) in &mut forming {
        let plan = node.plan.clone().expect("a plan that all hold");
        file.update(crate::raft::Membership::Planned(plan.clone())).expect("writes");
        file.update_topology(plan.topology()).expect("writes");
    }
}
