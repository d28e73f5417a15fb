//! What all connections of a node share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::watch;

use crate::clock::{Boottime, Timestamp};
use crate::config::{Config, ConfigTable};
use crate::raft::Replication;
use crate::server::clients::Clients;
use crate::server::latency::Latency;
use crate::server::parking::Parking;
use crate::server::pause::Pause;
use crate::server::process;
use crate::server::slowlog::SlowLog;
use crate::server::stats::Stats;

#[derive(Debug)]
pub struct Shared {
    pub replication: Arc<Replication>,
    /// As resolved at start.
    pub config: Config,
    /// What CONFIG SET has made of it.
    pub parameters: Arc<ConfigTable>,
    pub clients: Clients,
    pub stats: Stats,
    pub slowlog: SlowLog,
    pub latency: Latency,
    pub pause: Pause,
    pub parking: Parking,
    /// Reply bytes that wait for clients to read them.
    pub output_bytes: AtomicUsize,
    /// Set by SHUTDOWN; the node's main task watches it.
    pub stop_requested: watch::Sender<bool>,
    pub started: (Boottime, Timestamp),
    /// 40 random hex digits, new at every start: INFO's run_id.
    pub run_id: String,
}

impl Shared {
    pub fn new(replication: Arc<Replication>, config: Config, parameters: Arc<ConfigTable>) -> Self {
        Self {
            replication,
            parking: Parking::new(config.park_bytes_max.as_usize()),
            config,
            parameters,
            clients: Clients::default(),
            stats: Stats::default(),
            slowlog: SlowLog::default(),
            latency: Latency::default(),
            pause: Pause::default(),
            output_bytes: AtomicUsize::new(0),
            stop_requested: watch::Sender::new(false),
            started: (Boottime::now(), Timestamp::wall_now()),
            run_id: crate::cluster::NodeId::random().to_string(),
        }
    }

    /// Sets the gauges that are a state rather than an event.
    pub fn sample_metrics(&self) {
        let (node, replication) = (&self.stats.node, &self.replication);
        let (user, system) = process::cpu_seconds();
        node.cpu_seconds.set(user + system);
        node.memory_resident_bytes.set(process::resident_bytes() as f64);
        node.uptime_seconds.set(Boottime::now().saturating_since(self.started.0).as_secs_f64());
        node.topology_epoch.set(replication.topology().epoch().0 as f64);
        let (groups, hints) = (replication.groups(), replication.hints());
        node.memory_keyspace_bytes
            .set(groups.iter().map(|group| group.keyspace().counters().bytes).sum::<u64>() as f64);
        for group in groups {
            group.sample_metrics(hints.leader(group.id()).map_or(0, |leader| leader.term));
        }
    }

    /// Clients must authenticate.
    pub fn password_needed(&self) -> bool {
        self.parameters.tunables().requirepass.is_some()
    }
}
