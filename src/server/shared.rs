//! What all connections of a node share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::clock::{Boottime, Timestamp};
use crate::cluster::Address;
use crate::config::{Config, ConfigTable};
use crate::raft::Replication;
use crate::server::clients::Clients;
use crate::server::latency::Latency;
use crate::server::migrations::Migrations;
use crate::server::notifications::NOTIFICATIONS_KEPT;
use crate::server::parking::Parking;
use crate::server::pause::Pause;
use crate::server::process::UsageFigures;
use crate::server::rates::{Rates, Totals};
use crate::server::slot_intents::SlotIntents;
use crate::server::slowlog::SlowLog;
use crate::server::stats::Stats;

#[derive(Debug)]
pub struct Shared {
    pub replication: Arc<Replication>,
    /// As resolved at start.
    pub config: Config,
    /// What CONFIG SET has made of it.
    pub parameters: Arc<ConfigTable>,
    /// The file that the node was started with, if any.
    pub config_file: Option<PathBuf>,
    /// Held while the file is being rewritten.
    pub rewriting: Mutex<()>,
    pub clients: Clients,
    pub stats: Stats,
    pub rates: Rates,
    pub slowlog: SlowLog,
    pub latency: Latency,
    pub pause: Pause,
    pub parking: Parking,
    /// Pushes for the clients that asked for them; see `notifications.rs`.
    pub notifications: broadcast::Sender<Bytes>,
    pub slot_intents: SlotIntents,
    pub migrations: Migrations,
    /// Reply bytes that wait for clients to read them.
    pub output_bytes: AtomicUsize,
    /// Set by SHUTDOWN; the node's main task watches it.
    pub stop_requested: watch::Sender<bool>,
    /// Set by CLUSTER MEET: this node, alone and empty, is to join the cluster there.
    pub meeting: watch::Sender<Option<Address>>,
    pub started: (Boottime, Timestamp),
    /// Memory in use before the first client came.
    pub startup_bytes: u64,
    /// 40 random hex digits, new at every start: INFO's run_id.
    pub run_id: String,
}

impl Shared {
    pub fn new(
        replication: Arc<Replication>,
        config: Config,
        config_file: Option<PathBuf>,
        parameters: Arc<ConfigTable>,
    ) -> Self {
        Self {
            replication,
            parking: Parking::new(config.park_bytes_max.as_usize()),
            config,
            parameters,
            config_file,
            rewriting: Mutex::default(),
            clients: Clients::default(),
            stats: Stats::default(),
            rates: Rates::default(),
            slowlog: SlowLog::default(),
            latency: Latency::default(),
            pause: Pause::default(),
            notifications: broadcast::Sender::new(NOTIFICATIONS_KEPT),
            slot_intents: SlotIntents::default(),
            migrations: Migrations::default(),
            output_bytes: AtomicUsize::new(0),
            stop_requested: watch::Sender::new(false),
            meeting: watch::Sender::new(None),
            startup_bytes: UsageFigures::read().allocated_bytes,
            started: (Boottime::now(), Timestamp::wall_now()),
            run_id: crate::cluster::NodeId::random().to_string(),
        }
    }

    /// Called every second: takes the sample behind INFO's rates.
    pub fn sample_rates(&self) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (peer_read_bytes, peer_written_bytes) = self.peer_bytes();
        let totals = Totals {
            commands: self.stats.commands.calls_total(),
            read_bytes: load(&self.stats.read_bytes),
            written_bytes: load(&self.stats.written_bytes),
            peer_read_bytes,
            peer_written_bytes,
        };
        self.rates.sample(Boottime::now(), totals);
    }

    /// From the other nodes, and to them.
    pub fn peer_bytes(&self) -> (u64, u64) {
        let peers = self.replication.peers();
        (peers.iter().map(|peer| peer.bytes_received).sum(), peers.iter().map(|peer| peer.bytes_sent).sum())
    }

    /// Sets the gauges that are a state rather than an event.
    pub fn sample_metrics(&self) {
        let (node, replication) = (&self.stats.node, &self.replication);
        let process = UsageFigures::read();
        node.cpu_seconds.set(process.cpu_user_seconds + process.cpu_system_seconds);
        node.memory_resident_bytes.set(process.resident_bytes as f64);
        node.uptime_seconds.set(Boottime::now().saturating_since(self.started.0).as_secs_f64());
        node.topology_epoch.set(replication.topology().epoch().0 as f64);
        let (groups, hints) = (replication.groups(), replication.hints());
        node.memory_keyspace_bytes
            .set(groups.iter().map(|group| group.keyspace().counters().bytes).sum::<u64>() as f64);
        for group in groups {
            let term = hints.leader(group.id()).map_or(0, |leader| leader.term);
            group.sample_metrics(term, replication.is_led(group.id()));
        }
    }

    /// Clients must authenticate.
    pub fn password_needed(&self) -> bool {
        self.parameters.tunables().requirepass.is_some()
    }
}
