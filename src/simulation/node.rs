//! One simulated machine: what it keeps over its lives, and the process that runs on it.

use std::collections::BTreeSet;
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
use crate::cluster::Address;
use crate::config::{ByteSize, Config, ConfigTable, HostPort};
use crate::node::{self, Ground};
use crate::raft::power_loss;
use crate::raft::{Disk, LogOptions, Membership, NodeFile, NodeLog, SimulatedLog, SimulatedWriter, Wire};
use crate::random;
use crate::random::simulated::Chance;
use crate::rebalance;
use crate::server::Shared;
use crate::simulation::forming::Forming;
use crate::simulation::network::{Network, SimulatedWire, host_of};
use crate::simulation::scenario::Scenario;

/// Why a node ends that the others have let go of.
pub const REMOVED: &str = "it was removed";

const STEP: Duration = Duration::from_millis(1);
/// The simulation begins at this wall clock.
const WALL_START_MS: i64 = 1_700_000_000_000;
const PORT: u16 = 7000;
/// Small, so that snapshots, purges and installs are frequent, and segments begun and deleted.
const LOG_BYTES_MAX: u64 = 16 << 10;
const SEGMENT_BYTES: u64 = 32 << 10;

pub struct Machine {
    pub index: usize,
    pub process: Option<Process>,
    pub forming: Option<Forming>,
    /// Its clocks gain so many milliseconds on each thousand.
    pub drift: i64,
    pub wall_offset_ms: i64,
    /// The operator's word for the next start: go on with what there is.
    pub accept_loss: bool,
    /// An operation of its disk was made to fail, so the node may stop by itself.
    pub disk_fails: bool,
    /// Its node is no member of the cluster: not yet, or not any more.
    pub outside: bool,
    directory: TempDir,
    log: SimulatedLog,
    scenario: Scenario,
    network: Network,
}

pub struct Process {
    runtime: Runtime,
    shared: Arc<Mutex<Option<Arc<Shared>>>>,
    /// Why it cannot go on.
    failure: Arc<Mutex<Option<String>>>,
    /// Steps that it did not take while it was paused.
    missed: u64,
    pub paused: bool,
}

impl Machine {
    pub fn new(index: usize, scenario: Scenario, network: Network, drift: i64) -> Self {
        Self {
            index,
            process: None,
            forming: None,
            drift,
            wall_offset_ms: 0,
            accept_loss: false,
            disk_fails: false,
            outside: index >= scenario.nodes,
            directory: tempfile::tempdir().expect("a directory"),
            log: SimulatedLog::default(),
            scenario,
            network,
        }
    }

    pub fn config(&self) -> Config {
        let Scenario { nodes, groups, replicas, election_ms_max, read_mode, node_down_after, .. } = self.scenario;
        let founders = || (0..nodes).map(address_of).map(|Address { host, port }| HostPort { host, port });
        Config {
            join: if self.index < nodes { Vec::new() } else { founders().collect() },
            node_down_after,
            read_mode,
            announce_host: Some(host_of(self.index)),
            port: PORT + self.index as u16,
            data_dir: PathBuf::from(self.directory.path()),
            threads: 1,
            groups,
            replicas: Some(replicas),
            election_timeout_max_ms: election_ms_max,
            election_timeout_min_ms: election_ms_max / 2,
            log_bytes_max: ByteSize(LOG_BYTES_MAX),
            ..Config::default()
        }
    }

    pub fn address(&self) -> Address {
        address_of(self.index)
    }

    pub fn cluster_addresses(&self) -> BTreeSet<Address> {
        (0..self.scenario.nodes).map(address_of).collect()
    }

    /// What this machine's clocks say at a moment of the simulation.
    pub fn set_clocks(&self, now_ms: u64) {
        let elapsed_ms = now_ms as i64 + now_ms as i64 * self.drift / 1000;
        clock::simulated::set(Some(clock::simulated::Clocks {
            boot: Boottime(3_600_000_000_000 + elapsed_ms as u64 * 1_000_000),
            wall: Timestamp(WALL_START_MS + elapsed_ms + self.wall_offset_ms),
        }));
    }

    /// Err if its disk fails at once.
    pub fn start(&mut self, now_ms: u64) -> Result<(), String> {
        self.set_clocks(now_ms);
        let file = NodeFile::open(self.directory.path()).expect("the node's file");
        if !file.record.is_member() {
            self.forming = Some(Forming::new(self, file, BTreeSet::new()));
            return Ok(());
        }
        let options = LogOptions {
            fsync: self.scenario.fsync,
            segment_bytes: SEGMENT_BYTES,
            accept_loss: self.accept_loss,
            // So little that a follower that was away is fed from the disk.
            memory_bytes: 16 << 10,
        };
        let (log, recovered, writer) = self.log.open(options).map_err(|error| error.to_string())?;
        self.accept_loss = false;
        if recovered.power_loss_suspected {
            self.forming = Some(Forming::new(self, file, power_loss::held(&recovered)));
            return Ok(());
        }
        self.run(file, log, writer);
        Ok(())
    }

    /// What a machine that is formed goes on with; see `Forming`.
    pub fn join_anew(&mut self) {
        (self.log, self.disk_fails) = (SimulatedLog::default(), false);
    }

    fn run(&mut self, file: NodeFile, log: NodeLog, writer: SimulatedWriter) {
        let mut builder = Builder::new_current_thread();
        builder.max_blocking_threads(1).enable_all().start_paused(true);
        // tokio wakes those who watch a channel in an order that it draws.
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&random::draw_u64().to_le_bytes()));
        let runtime = builder.build().expect("a runtime");
        let (shared, failure) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let wire = Arc::new(SimulatedWire { network: self.network.clone(), node: self.index });
        self.network.start(self.index);
        let place = Place { file, log, wire, disk: self.log.disk(), runtime: runtime.handle().clone() };
        let (life, reason) = (live(self.config(), place, shared.clone()), failure.clone());
        runtime.spawn(async move { *reason.lock() = Some(life.await) });
        runtime.spawn(write_log(writer, Chance(random::draw_u64())));
        self.process = Some(Process { runtime, shared, failure, missed: 0, paused: false });
    }

    pub fn kill(&mut self) {
        self.network.stop(self.index, true);
        self.end();
        self.log.kill();
    }

    pub fn lose_power(&mut self, chance: &mut Chance) {
        self.end();
        self.network.stop(self.index, false);
        self.log.lose_power(chance);
    }

    fn end(&mut self) {
        (self.process, self.forming, self.disk_fails) = (None, None, false);
    }

    /// All that it had is gone, as from a machine that was replaced.
    pub fn wipe(&mut self) {
        self.kill();
        self.directory = tempfile::tempdir().expect("a directory");
        self.log = SimulatedLog::default();
    }

    /// One of its next disk operations fails.
    pub fn fail_disk(&mut self, chance: &mut Chance) {
        self.log.fail_soon(chance);
        self.disk_fails = true;
    }

    /// § Unlike one that fails, a full disk stops no node.
    pub fn fill_disk(&self, chance: &mut Chance) {
        self.log.fill(chance);
    }

    pub fn empty_disk(&self) {
        self.log.empty();
    }

    pub fn failure(&self) -> Option<String> {
        self.process.as_ref()?.failure.lock().clone()
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

    /// Err says why it does not serve.
    pub fn readiness(&self) -> Result<(), String> {
        let Some(shared) = self.shared() else {
            return Err(if self.forming.is_some() { "it is forming" } else { "it is starting" }.to_owned());
        };
        match shared.replication.is_formed() {
            true => shared.replication.readiness(),
            false => Err("the cluster is not formed".to_owned()),
        }
    }

    pub fn is_paused(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.paused)
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.runtime.spawn(task);
        }
    }
}

fn address_of(index: usize) -> Address {
    Address { host: host_of(index), port: PORT + index as u16 }
}

struct Place {
    file: NodeFile,
    log: NodeLog,
    wire: Arc<dyn Wire>,
    disk: Arc<dyn Disk>,
    runtime: tokio::runtime::Handle,
}

/// Returns why the node cannot go on.
async fn live(config: Config, place: Place, slot: Arc<Mutex<Option<Arc<Shared>>>>) -> String {
    let Place { file, log, wire, disk, runtime } = place;
    let Membership::Member { topology, .. } = file.record.membership.clone() else { unreachable!("formed before") };
    let (failed, mut failures) = mpsc::channel(64);
    let parameters = Arc::new(ConfigTable::new(&config));
    let ground = Ground {
        file,
        parameters: parameters.clone(),
        topology: *topology,
        log: log.clone(),
        failed,
        started: Instant::now(),
        runtimes: vec![runtime],
        wire,
        disk,
    };
    let (coordinator, replication, _transport, mut tasks) = match node::start_replication(&config, ground).await {
        Ok(running) => running,
        Err(error) => return error.to_string(),
    };
    let (_stop, stopped) = watch::channel(false);
    tasks.spawn(rebalance::drive(replication.clone()));
    tasks.spawn(rebalance::schedule(replication.clone(), config.node_down_after()));
    let removed = replication.clone();
    tasks.spawn(rebalance::drive_moves(replication.clone(), config.move_rate_max.0, config.park_time_max()));
    *slot.lock() = Some(Arc::new(Shared::new(replication, config, None, parameters)));
    let mut running = JoinSet::new();
    running.spawn(coordinator.run(stopped));
    tokio::select! {
        biased;
        () = removed.removed() => REMOVED.to_owned(),
        reason = failures.recv() => reason.unwrap_or_default(),
        reason = log.failure() => reason.to_string(),
    }
}

/// The log's thread: a batch, then the time a disk takes to sync it.
async fn write_log(mut writer: SimulatedWriter, mut chance: Chance) {
    while writer.step() {
        let slow = chance.below(200) == 0;
        let ms = if slow { 20 + chance.below(200) } else { chance.below(3) };
        tokio::time::sleep(Duration::from_micros(200) + Duration::from_millis(ms)).await;
    }
}
