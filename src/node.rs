//! One node from start to stop, in order.
//!
//! Start: log files, worker threads, data directory, write-ahead log, formation, transport, replicas, clients, HTTP. Stop: hand
//! leadership over, send the clients after it, accept no more, finish what is in flight, flush, and exit within the time limit.

mod meeting;
mod open_files;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::admin::{self, Health, HttpPages, NodeError};
use crate::cluster::{Address, Intent, NodeInfo, Purpose, Settings, Topology, WantedSettings};
use crate::config::{Appendfsync, Config, ConfigTable, HostPort, LoadedConfig, ReadMode};
use crate::keyspace::HashSecret;
use crate::metrics::Rendered;
use crate::raft::power_loss::{self, LOG_DIRECTORY, Resolution};
use crate::raft::promise;
use crate::raft::{
    self, Coordinator, Disk, FEATURE_LEVEL, FormationConfig, Fsync, LogOptions, NodeFile, NodeLog, PeerInbox, Reads,
    RealDisk, Recovered, ReplicaSeed, Replication, SnapshotTurns, Space, Start, Tcp, Timers, Transport,
    TransportConfig, Wire,
};
use crate::random;
use crate::rebalance;
use crate::server::{Listener, Shared, notify_clients};
use crate::workers::Workers;

/// Hints and questions of peers that wait for the coordinator.
const INBOX_MAX: usize = 1024;
/// A peer connection silent for so long is dropped and made anew.
const PEER_SILENT_MAX: Duration = Duration::from_secs(2);
/// Part of the stop during which clients' last replies are sent.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Part of the stop during which leaderships are handed over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Part of the stop during which clients are sent to the new leaders.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// A follower further behind is fed from the log's files, which the kernel still has in memory as a rule.
const LOG_MEMORY_BYTES: u64 = 8 << 20;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
const HASH_TEST_TEXT: &[u8] = b"kvorum hash test vector";
/// Secret for the hash test that is compared before a cluster's own secret is known.
const HASH_TEST_SECRET: HashSecret = HashSecret([1, 2, 3, 4]);

/// Runs a node until it is told to stop, or must.
pub fn run(loaded: LoadedConfig) -> Result<(), NodeError> {
    let logs = admin::init_logging(loaded.config.log_level, loaded.config.log_format);
    abort_on_panic();
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let rendered = crate::metrics::install();
    let workers = Workers::start(loaded.config.thread_count())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(loaded, logs, rendered, &workers));
    workers.stop();
    // Blocking work that outlives its deadline must not hold the exit up.
    runtime.shutdown_background();
    match result? {
        End::Stop => Ok(()),
        End::StartAgain => Err(meeting::start_again().into()),
    }
}

/// What the process does when the node has stopped.
enum End {
    Stop,
    /// It is a member of another cluster now, or has to take up its own again.
    StartAgain,
}

/// § A panic ends the process: one while applying or logging leaves a replica that may have diverged, and a node that lost one of its
/// tasks would only look alive.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

async fn serve(
    loaded: LoadedConfig,
    logs: admin::LogControl,
    rendered: Rendered,
    workers: &Workers,
) -> Result<End, NodeError> {
    let LoadedConfig { mut config, file: config_file, warnings: _ } = loaded;
    let started = Instant::now();
    let clients_max = open_files::make_room_for_clients(&mut config)?;
    let parameters = Arc::new(ConfigTable::new(&config).with_clients_max(clients_max));
    let (health, health_seen) = watch::channel(Health { ready: false, reason: "starting".to_owned() });
    let (stop, stopped) = watch::channel(false);
    let mut signal = Box::pin(admin::shutdown_signal(config.exit_with_parent));

    let opened = open_data(&config)?;
    health.send_replace(Health { ready: false, reason: "forming or joining the cluster".to_owned() });
    let formation = formation_config(&config, opened.1.record.info());
    let listen: Vec<SocketAddr> = config.bind.iter().map(|host| (*host, config.port).into()).collect();
    let formed = async {
        let (log, mut file) = settle_power_loss(&config, opened, &formation, &listen).await?;
        let formed = raft::form(&mut file, &formation, &listen).await?;
        Ok::<_, NodeError>((log, file, formed))
    };
    let (log, file, formed) = tokio::select! {
        formed = formed => formed?,
        reason = &mut signal => {
            // The log is closed as it is dropped.
            tracing::info!(reason = reason?, "stopping before the cluster was formed");
            return Ok(End::Stop);
        }
    };
    check_settings(&config, &formation, &formed.topology)?;

    let (failed, mut failures) = mpsc::channel(INBOX_MAX);
    let (topology, runtimes, wire, disk) =
        (formed.topology, workers.handles().to_vec(), Arc::new(Tcp), Arc::new(RealDisk));
    let (known, log_used) = (parameters.clone(), log.clone());
    let ground = Ground { file, parameters: known, topology, log: log_used, failed, started, runtimes, wire, disk };
    let (coordinator, replication, transport, tasks) = start_replication(&config, ground).await?;
    let coordinating = tokio::spawn(coordinator.run(stopped.clone()));
    let shared = Arc::new(Shared::new(replication.clone(), config.clone(), config_file, parameters.clone()));
    let listener = Listener::bind(shared.clone(), workers.handles().to_vec())?;
    let (stop_clients, clients_stopped) = watch::channel(false);
    let serving = tokio::spawn(listener.run(clients_stopped, DRAIN_MAX));
    let mut background = tasks;
    background.spawn(rebalance::drive(replication.clone()));
    background.spawn(rebalance::drive_moves(replication.clone(), config.move_rate_max.0, config.park_time_max()));
    background.spawn(raft::watch_membership(replication.clone()));
    background.spawn(raft::find_peers(replication.clone(), formation.intent.addresses.clone()));
    background.spawn(rebalance::schedule(replication.clone(), config.node_down_after()));
    background.spawn(watch_health(replication.clone(), health, shared.stop_requested.subscribe()));
    background.spawn(raft::watch_space(replication.space().clone(), config.data_dir.clone(), config.disk_free_min.0));
    background.spawn(keep_metrics(rendered.clone(), shared.clone()));
    background.spawn(notify_clients(shared.clone()));
    background.spawn(follow_log_level(parameters.clone(), logs));
    serve_pages(&config, &shared, rendered, health_seen, stopped.clone(), &mut background).await?;
    tracing::info!(port = config.port, address = %replication.address(), "serving clients");

    let outcome = tokio::select! {
        reason = &mut signal => reason.map(|reason| tracing::info!(reason, "stopping")).map(|()| None).map_err(Into::into),
        outcome = must_stop(&shared, &mut failures, &log) => outcome.map(|()| None),
        address = asked_to_meet(&shared) => Ok(Some(address)),
    };
    let running = RunningNode { shared, coordinating, serving, background, stop, stop_clients, transport, log };
    let alone = running.stop(outcome.is_ok(), &config).await;
    let Some(address) = outcome? else { return Ok(End::Stop) };
    tokio::select! {
        () = meeting::meet(&config, &formation, &address, alone) => Ok(End::StartAgain),
        _ = &mut signal => Ok(End::Stop),
    }
}

async fn asked_to_meet(shared: &Shared) -> Address {
    let mut meeting = shared.meeting.subscribe();
    let asked = meeting.wait_for(Option::is_some).await.map(|address| address.clone());
    asked.ok().flatten().expect("the sender is in `shared`, and what was waited for is there")
}

/// What has to be stopped in order.
struct RunningNode {
    shared: Arc<Shared>,
    coordinating: JoinHandle<()>,
    serving: JoinHandle<std::io::Result<()>>,
    background: JoinSet<()>,
    stop: watch::Sender<bool>,
    stop_clients: watch::Sender<bool>,
    transport: Transport,
    log: NodeLog,
}

impl RunningNode {
    /// Whether it was the only node of its cluster, and empty, in the end.
    async fn stop(mut self, healthy: bool, config: &Config) -> Result<(), String> {
        self.shared.stop_requested.send_replace(true);
        let deadline = Instant::now() + config.shutdown_time_max();
        let replication = self.shared.replication.clone();
        let orderly = async {
            // Without a log there is nothing to hand over by, and the others elect other leaders as soon as this node's connections are gone.
            if self.log.failure().now_or_never().is_none() {
                leave(&replication, &self.shared, healthy, config).await;
            }
            self.stop_clients.send_replace(true);
            let _ = (&mut self.serving).await;
            // Nobody writes any more.
            let alone = replication.check_alone();
            self.background.shutdown().await;
            self.stop.send_replace(true);
            let _ = (&mut self.coordinating).await;
            self.transport.shutdown().await;
            alone
        };
        let alone = tokio::time::timeout_at(deadline, orderly).await.unwrap_or_else(|_| {
            tracing::warn!("the time for an orderly stop is over");
            Err("it did not stop in time".to_owned())
        });
        self.log.close();
        tracing::info!("stopped");
        alone
    }
}

/// Leadership first: clients that are still here follow a MOVED instead of seeing their connection close.
async fn leave(replication: &Replication, shared: &Shared, healthy: bool, config: &Config) {
    replication.announce_departure();
    replication.hand_over_leadership(Instant::now() + HAND_OVER_MAX).await;
    // They have nowhere to go if it could not be handed over, or if this node is broken.
    if healthy && replication.led_groups().is_empty() {
        shared.clients.leave(Instant::now() + LEAVE_MAX.min(config.shutdown_time_max() / 3)).await;
        // Another node may have handed its own over meanwhile.
        replication.hand_over_leadership(Instant::now() + HAND_OVER_MAX).await;
    }
}

/// SHUTDOWN, or a reason why this node cannot go on.
async fn must_stop(shared: &Shared, failures: &mut mpsc::Receiver<String>, log: &NodeLog) -> Result<(), NodeError> {
    let mut shutdown_command = shared.stop_requested.subscribe();
    let reason = tokio::select! {
        Ok(_) = shutdown_command.wait_for(|requested| *requested) => {
            tracing::info!(reason = "SHUTDOWN", "stopping");
            return Ok(());
        }
        () = shared.replication.removed() => {
            tracing::warn!(
                node = %shared.replication.node(),
                "this node was removed from its cluster and stops; its data directory can be deleted, and has to be before it joins anew"
            );
            return Ok(());
        }
        Some(reason) = failures.recv() => reason,
        reason = log.failure() => format!("the log cannot be written: {reason}"),
    };
    tracing::error!(%reason, "this node cannot go on");
    Err(reason.into())
}

fn open_data(config: &Config) -> Result<(NodeLog, NodeFile, Recovered), NodeError> {
    let directory = &config.data_dir;
    power_loss::finish_set_aside(directory)?;
    let record = NodeFile::read(directory)?;
    let member = record.as_ref().is_some_and(raft::NodeRecord::is_member);
    // A new member whose old log was just set aside has none yet.
    let set_aside = power_loss::report(directory)?.is_some();
    if member && !set_aside && !NodeLog::is_in(&directory.join(LOG_DIRECTORY))? {
        // § Its votes and acknowledgements are gone: it must not come back as the replica it was. Said before a new log is begun, so
        // that the next start says it again.
        return Err(format!(
            "the log is missing from {}: restore it, or wipe the directory so that this node joins anew",
            directory.display()
        )
        .into());
    }
    let (log, recovered) = open_log(config, false)?;
    if record.is_none() && !recovered.replicas.is_empty() {
        // § As an empty node it would found a cluster, or join one, beside what it has acknowledged.
        return Err(format!(
            "{} is missing beside the log of its replicas: restore it, or wipe the directory so that this node joins anew",
            NodeFile::path(directory).display()
        )
        .into());
    }
    let file = NodeFile::open(directory)?;
    tracing::info!(node = %file.record.node, directory = %directory.display(), "starting");
    Ok((log, file, recovered))
}

/// § See `raft/power_loss.rs`. Returns what the node goes on with.
async fn settle_power_loss(
    config: &Config,
    (log, file, recovered): (NodeLog, NodeFile, Recovered),
    formation: &FormationConfig,
    listen: &[SocketAddr],
) -> Result<(NodeLog, NodeFile), NodeError> {
    let directory = &config.data_dir;
    if !recovered.power_loss_suspected {
        power_loss::settled(directory)?;
        return Ok((log, file));
    }
    let resolution = power_loss::resolve(directory, &file, &recovered, formation, listen).await?;
    log.close();
    drop(log);
    let accept = match resolution {
        Resolution::Keep => true,
        Resolution::Replace(record) => {
            let aside = power_loss::set_aside(directory, &record)?;
            tracing::warn!(
                node = %record.node,
                aside = %aside.display(),
                "this node was taken in as a new member; what it had is set aside and may be deleted once it has caught up"
            );
            false
        }
    };
    let (log, _) = open_log(config, accept)?;
    power_loss::settled(directory)?;
    Ok((log, NodeFile::open(directory)?))
}

fn open_log(config: &Config, accept_loss: bool) -> Result<(NodeLog, Recovered), NodeError> {
    let fsync = match config.appendfsync {
        Appendfsync::Always => Fsync::Always,
        Appendfsync::Everysec => Fsync::EverySec,
        Appendfsync::No => Fsync::No,
    };
    let options =
        LogOptions { fsync, segment_bytes: config.log_segment_bytes.0, accept_loss, memory_bytes: LOG_MEMORY_BYTES };
    let (log, recovered) = NodeLog::open(&config.data_dir.join(LOG_DIRECTORY), options)?;
    if let Some(dropped) = &recovered.dropped_tail {
        tracing::warn!(
            file = %dropped.path.display(),
            offset = dropped.offset,
            bytes = dropped.bytes,
            "dropped the end of the log, which does not read well; nothing follows it. A machine that lost power, or a process that was killed, \
             leaves a write behind that was never acknowledged; damage of the disk to the last write looks the same. If this machine did \
             neither, check the disk: this node may lack what it has acknowledged"
        );
    }
    Ok((log, recovered))
}

/// `registered`: what the others know of this node, if it is a member.
pub fn formation_config(config: &Config, registered: Option<&NodeInfo>) -> FormationConfig {
    let known = registered.filter(|info| info.is_known());
    let announced = known.map_or_else(|| config.announce(), |info| config.announce_again(&info.host));
    let info = NodeInfo {
        host: announced.host.clone(),
        port: announced.port,
        peer_port: config.peer_port(),
        http_port: config.http_port().unwrap_or(0),
    };
    let addresses_of = |listed: &[HostPort]| -> BTreeSet<Address> {
        listed.iter().map(|listed| Address { host: listed.host.clone(), port: listed.port }).collect()
    };
    let (purpose, mut addresses, replicas) = match config.join.is_empty() {
        true => (Purpose::FoundOrJoin, addresses_of(&config.initial_cluster), Some(config.replica_count())),
        false => (Purpose::Join, addresses_of(&config.join), config.replicas),
    };
    if addresses.is_empty() {
        addresses.insert(info.address());
    }
    let settings =
        WantedSettings { groups: config.groups, replicas, hash_check: HASH_TEST_SECRET.hash(HASH_TEST_TEXT) };
    let password = Some(config.requirepass.clone()).filter(|password| !password.0.is_empty());
    FormationConfig { info, intent: Intent { addresses, settings }, purpose, password }
}

/// A restarted node may have been given other flags, another CPU, or an older version.
fn check_settings(config: &Config, formation: &FormationConfig, topology: &Topology) -> Result<(), NodeError> {
    let level = topology.level();
    if level > FEATURE_LEVEL {
        return Err(format!(
            "the cluster is at feature level {level}, this version knows {FEATURE_LEVEL}: upgrade this node"
        )
        .into());
    }
    let wanted = WantedSettings { replicas: config.replicas, ..formation.intent.settings };
    wanted.check(topology.settings()).map_err(Into::into)
}

pub type Running = (Coordinator, Arc<Replication>, Transport, JoinSet<()>);

/// What replication stands on.
pub struct Ground {
    pub file: NodeFile,
    pub parameters: Arc<ConfigTable>,
    pub topology: Topology,
    pub log: NodeLog,
    pub failed: mpsc::Sender<String>,
    pub started: Instant,
    pub runtimes: Vec<Handle>,
    pub wire: Arc<dyn Wire>,
    /// Where snapshots are.
    pub disk: Arc<dyn Disk>,
}

pub async fn start_replication(config: &Config, ground: Ground) -> Result<Running, NodeError> {
    let Ground { file, parameters, topology, log, failed, started, runtimes, wire, disk } = ground;
    let (hints, hints_received) = mpsc::channel(INBOX_MAX);
    let (questions, questions_received) = mpsc::channel(INBOX_MAX);
    let (connections, connections_received) = mpsc::channel(INBOX_MAX);
    let (sightings, sightings_received) = mpsc::channel(INBOX_MAX);
    // The newest topology, once the replication layer exists; what was formed until then.
    let known = Arc::new(OnceLock::<Weak<Replication>>::new());
    let (inbox_known, formed_topology) = (known.clone(), topology.clone());
    let inbox = PeerInbox {
        hints,
        questions,
        connections,
        known: Arc::new(move |node| match inbox_known.get().and_then(Weak::upgrade) {
            Some(replication) => replication.newest_topology().node(node).is_some(),
            None => formed_topology.node(node).is_some(),
        }),
    };
    let peers = transport_config(config, parameters.clone(), &log, &file, &topology, disk.clone());
    let transport = {
        // Beside the groups of the first worker: with one worker a commit then crosses no thread but the log's.
        let _on_worker = runtimes[0].enter();
        Transport::start(wire, peers, Arc::new(inbox))?
    };
    let timers = timers(config);
    let promised = promise::renew(&config.data_dir, timers.election_max)?;
    let founding = topology.clone();
    let seed = ReplicaSeed {
        data_directory: config.data_dir.clone(),
        space: Arc::new(Space::new(log.room())),
        log,
        disk,
        transport: transport.clone(),
        raft_config: Arc::new(timers.raft_config()?),
        timers,
        promised,
        nonce: random::draw_u64(),
        started,
        log_bytes_max: config.log_bytes_max.0,
        snapshot_turns: SnapshotTurns::new(config.log_bytes_max.0),
        walls: Arc::default(),
        leaderships: Arc::default(),
        level: Arc::new(AtomicU16::new(topology.level())),
        reads: reads(config),
        sightings,
        changes: watch::Sender::new(0),
        founding_slots: Arc::new(move |group| founding.slots_of(group).collect()),
        failed,
    };
    let start = Start {
        announced: formation_config(config, topology.node(file.record.node)).info,
        file,
        topology,
        seed,
        transport: transport.clone(),
        parameters,
        runtimes,
        sightings: sightings_received,
        hints: hints_received,
        connections: connections_received,
    };
    let coordinator = Coordinator::start(start).await?;
    let replication = coordinator.replication();
    known.get_or_init(|| Arc::downgrade(&replication));
    let mut tasks = JoinSet::new();
    tasks.spawn(raft::answer_questions(replication.clone(), questions_received));
    tasks.spawn(raft::announce_address(replication.clone()));
    tasks.spawn(keep_promise(config.data_dir.clone(), promised, timers.election_max, started));
    Ok((coordinator, replication, transport, tasks))
}

/// What was promised under a longer election timeout is over some time after the start.
async fn keep_promise(directory: PathBuf, promised: Duration, timeout: Duration, started: Instant) {
    if promised == timeout {
        return;
    }
    tokio::time::sleep_until(started + promise::wait_after_restart(promised)).await;
    if let Err(error) = raft::blocking(move || promise::keep(&directory, timeout)).await.flatten() {
        tracing::warn!(%error, "the next start will wait as long as this one did before it votes");
    }
}

fn reads(config: &Config) -> Reads {
    match config.read_mode {
        ReadMode::Lease => Reads::ByLease,
        ReadMode::ReadIndex => Reads::ByReadIndex,
    }
}

fn timers(config: &Config) -> Timers {
    Timers {
        heartbeat: config.heartbeat(),
        election_min: Duration::from_millis(config.election_timeout_min_ms),
        election_max: config.election_timeout_max(),
    }
}

fn transport_config(
    config: &Config,
    parameters: Arc<ConfigTable>,
    log: &NodeLog,
    file: &NodeFile,
    topology: &Topology,
    disk: Arc<dyn Disk>,
) -> TransportConfig {
    let Settings { groups, replicas, hash_check: _ } = topology.settings();
    TransportConfig {
        listen: config.bind.iter().map(|host| SocketAddr::new(*host, config.peer_port())).collect(),
        node: file.record.node,
        cluster: topology.cluster_id(),
        hash_secret: HashSecret(topology.hash_secret()),
        hash_vector: HashSecret(topology.hash_secret()).hash(HASH_TEST_TEXT),
        parameters,
        room: log.room(),
        settings_fingerprint: groups.unwrap_or(0) << 16 | replicas,
        election_timeout: config.election_timeout_max(),
        silent_max: PEER_SILENT_MAX,
        disk,
    }
}

async fn serve_pages(
    config: &Config,
    shared: &Arc<Shared>,
    rendered: Rendered,
    health: watch::Receiver<Health>,
    stopped: watch::Receiver<bool>,
    background: &mut JoinSet<()>,
) -> Result<(), NodeError> {
    let Some(port) = config.http_port() else { return Ok(()) };
    let (counted, replication) = (shared.clone(), shared.replication.clone());
    let pages = Arc::new(HttpPages {
        health,
        metrics: Box::new(move || {
            let mut text = rendered.text();
            counted.stats.commands.render(&mut text);
            counted.stats.errors.render(&mut text);
            text
        }),
        status: Box::new(move || {
            let replication = replication.clone();
            Box::pin(async move { replication.status().await })
        }),
    });
    for host in &config.bind {
        let address = SocketAddr::new(*host, port);
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address} (http-port): {error}"))?;
        background.spawn(admin::serve_http(listener, pages.clone(), stopped.clone()));
    }
    Ok(())
}

/// Ready: this node knows a current leader for every group, and its own replicas have started. One that stops still serves who is
/// connected, but load balancers are to send nobody else.
async fn watch_health(
    replication: Arc<Replication>,
    health: watch::Sender<Health>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let now = if *stopping.borrow() { Err("stopping".to_owned()) } else { replication.readiness() };
        let now = Health { ready: now.is_ok(), reason: now.err().unwrap_or_else(|| "ok".to_owned()) };
        health.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        // Whoever could say that the node stops is gone only when this task is, too.
        let _ = tokio::time::timeout(HEALTH_INTERVAL, stopping.changed()).await;
    }
}

/// Samples what is a state rather than an event, and keeps the histograms' memory bounded.
async fn keep_metrics(rendered: Rendered, shared: Arc<Shared>) {
    let mut collected = Instant::now();
    loop {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        shared.sample_metrics();
        if collected.elapsed() >= Rendered::COLLECT_INTERVAL {
            rendered.collect();
            collected = Instant::now();
        }
    }
}

async fn follow_log_level(parameters: Arc<ConfigTable>, logs: admin::LogControl) {
    let mut level = parameters.tunables().log_level;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = parameters.tunables().log_level;
        if now != level {
            logs.set_level(now);
            level = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;
    use crate::raft::{Membership, NodeRecord};

    #[test]
    fn a_start_ends_first_what_a_crash_interrupted_when_the_node_became_another() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        let (log, file, _) = open_data(&config).unwrap();
        log.close();
        drop((log, file));
        let record = NodeRecord { node: NodeId::random(), membership: Membership::Empty };
        power_loss::set_aside(directory.path(), &record).unwrap();
        // As it is after the log was moved, and nothing else.
        let (now, aside) = (|name| directory.path().join(name), |name| directory.path().join("set-aside").join(name));
        std::fs::rename(now("node.kvn"), now("node.kvn.next")).unwrap();
        std::fs::rename(aside("node.kvn"), now("node.kvn")).unwrap();
        assert_eq!(open_data(&config).unwrap().1.record.node, record.node);
        assert!(aside("node.kvn").exists() && aside("log").exists() && !now("node.kvn.next").exists());
    }
}
