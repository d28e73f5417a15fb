//! What INFO and MEMORY print, as plain values gathered from the node at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::{Boottime, Timestamp};
use crate::metrics::CommandCounts;
use crate::server::clients::{Client, ClientFilter};
use crate::server::commands::info::Section;
use crate::server::process::UsageFigures;
use crate::server::rates::PerSecond;
use crate::server::shared::Shared;

#[derive(Debug, Default)]
pub struct Figures {
    pub server: ServerFigures,
    pub clients: ClientFigures,
    pub process: UsageFigures,
    pub startup_bytes: u64,
    pub maxmemory_policy: String,
    pub stats: StatFigures,
    pub cluster_id: String,
    pub node: String,
    pub epoch: u64,
    pub leads_meta: bool,
    pub disk_full: bool,
    /// This node's replicas, in the order of their groups.
    pub groups: Vec<GroupFigures>,
    /// Empty unless a section wants them: adding the threads' counters up takes a while.
    pub commands: Vec<(&'static str, CommandCounts)>,
    pub errors: BTreeMap<String, u64>,
    pub latency_percentiles: Vec<f64>,
    pub parked: ParkedFigures,
}

#[derive(Debug, Default)]
pub struct ServerFigures {
    pub os: String,
    pub run_id: String,
    pub port: u16,
    pub binds: Vec<String>,
    pub now: Timestamp,
    pub started: Timestamp,
    pub uptime_seconds: u64,
    pub hz: String,
    pub executable: String,
    pub config_file: String,
}

#[derive(Debug, Default)]
pub struct ClientFigures {
    pub connected: usize,
    pub blocked: usize,
    pub peer_connections: usize,
    pub maxclients: usize,
    pub query_bytes_max: usize,
    pub output_bytes_max: usize,
    /// What all connections hold.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct StatFigures {
    pub connections_received: u64,
    pub connections_rejected: u64,
    pub commands: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// From clients' sockets, and to them.
    pub reads: u64,
    pub writes: u64,
    pub per_second: PerSecond,
    pub expired_keys: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub error_replies: u64,
    pub slowlog_entries: usize,
    pub peer_read_bytes: u64,
    pub peer_written_bytes: u64,
    /// AUTH and HELLO with a wrong user or password.
    pub denied_auths: u64,
}

#[derive(Debug, Default, Clone)]
pub struct GroupFigures {
    pub id: u32,
    pub replica: u64,
    pub leads: bool,
    pub term: u64,
    pub applied_index: u64,
    pub keys: u64,
    pub keys_with_ttl: u64,
    pub keyspace_bytes: u64,
    pub expired: u64,
    pub log_bytes: u64,
}

/// Requests that wait for a group's leader.
#[derive(Debug, Default)]
pub struct ParkedFigures {
    pub requests: usize,
    pub bytes: usize,
    pub wait_ms_max: u64,
}

impl Figures {
    pub fn gather(sections: &BTreeSet<Section>, shared: &Shared) -> Self {
        let wants_commands = sections.contains(&Section::Commandstats) || sections.contains(&Section::Latencystats);
        let groups = groups(shared);
        let expired = groups.iter().map(|group| group.expired).sum();
        let topology = shared.replication.topology();
        let tunables = shared.parameters.tunables();
        let (requests, bytes, wait_ms_max) = shared.parking.figures();
        let parameter = |name| shared.parameters.get(name).into_iter().map(|(_, value)| value).next();
        Self {
            server: server(shared, parameter("hz").unwrap_or_default()),
            clients: clients(shared),
            process: UsageFigures::read(),
            startup_bytes: shared.startup_bytes,
            maxmemory_policy: parameter("maxmemory-policy").unwrap_or_default(),
            stats: stats(shared, expired),
            cluster_id: topology.cluster_id().to_string(),
            node: shared.replication.node().to_string(),
            epoch: topology.epoch().0,
            leads_meta: shared.replication.leads_meta(),
            disk_full: shared.replication.space().is_short(),
            groups,
            commands: if wants_commands { shared.stats.commands.used().collect() } else { Vec::new() },
            errors: shared.stats.errors.counts(),
            latency_percentiles: tunables.latency_percentiles.clone(),
            parked: ParkedFigures { requests, bytes, wait_ms_max },
        }
    }

    /// Replicas of groups that this node leads: their keys are those that clients reach here.
    pub fn led(&self) -> impl Iterator<Item = &GroupFigures> {
        self.groups.iter().filter(|group| group.leads)
    }

    /// Of all replicas here, led or not: what the node has memory for.
    pub fn keyspace_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.keyspace_bytes).sum()
    }

    /// What was allocated and is resident.
    pub fn used_bytes(&self) -> u64 {
        self.process.allocated_bytes
    }

    /// The kernel remembers the resident peak only; the program's own pages hardly change.
    pub fn used_bytes_max(&self) -> u64 {
        let own_pages = self.process.resident_bytes.saturating_sub(self.used_bytes());
        self.process.resident_bytes_max.saturating_sub(own_pages).max(self.used_bytes())
    }

    /// What is neither key nor value.
    pub fn overhead_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.keyspace_bytes())
    }

    /// Grows with every write applied here, and with no other node's help: what clients compare replicas by.
    pub fn replication_offset(&self) -> u64 {
        self.groups.iter().map(|group| group.applied_index).sum()
    }
}

fn server(shared: &Shared, hz: String) -> ServerFigures {
    let (started_boottime, started) = shared.started;
    let uname = rustix::system::uname();
    let word = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let path = |path: &std::path::Path| path.display().to_string();
    ServerFigures {
        os: [uname.sysname(), uname.release(), uname.machine()].map(word).join(" "),
        run_id: shared.run_id.clone(),
        port: shared.config.port,
        binds: shared.config.bind.iter().map(ToString::to_string).collect(),
        now: Timestamp::wall_now(),
        started,
        uptime_seconds: Boottime::now().saturating_since(started_boottime).as_secs(),
        hz,
        executable: std::env::current_exe().map(|file| path(&file)).unwrap_or_default(),
        config_file: shared.config_file.as_deref().map(path).unwrap_or_default(),
    }
}

fn clients(shared: &Shared) -> ClientFigures {
    let all = shared.clients.select(&ClientFilter::default());
    let load = |bytes: &AtomicUsize| bytes.load(Ordering::Relaxed);
    let query = |client: &Client| load(&client.memory.query_bytes) + load(&client.memory.query_free_bytes);
    let held = all.iter().map(|client| query(client) + load(&client.memory.output_bytes) + size_of_val(&**client));
    let (query_bytes_max, output_bytes_max) = shared.clients.largest_buffers();
    ClientFigures {
        connected: all.len(),
        blocked: all.iter().filter(|client| client.is_blocked()).count(),
        peer_connections: shared.replication.peers().iter().filter(|peer| peer.connected_for.is_some()).count(),
        maxclients: shared.parameters.tunables().maxclients,
        query_bytes_max,
        output_bytes_max,
        bytes: held.sum::<usize>() as u64,
    }
}

fn stats(shared: &Shared, expired: u64) -> StatFigures {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let baseline = shared.rates.baseline();
    let (peer_read_bytes, peer_written_bytes) = shared.peer_bytes();
    let (hits, misses) = lookups(shared);
    StatFigures {
        connections_received: load(&shared.clients.accepted).saturating_sub(baseline.accepted),
        connections_rejected: load(&shared.clients.rejected).saturating_sub(baseline.rejected),
        commands: shared.stats.commands.calls_total(),
        read_bytes: load(&shared.stats.read_bytes),
        written_bytes: load(&shared.stats.written_bytes),
        reads: load(&shared.stats.reads),
        writes: load(&shared.stats.writes),
        per_second: shared.rates.now(),
        expired_keys: expired.saturating_sub(baseline.expired),
        keyspace_hits: hits.saturating_sub(baseline.hits),
        keyspace_misses: misses.saturating_sub(baseline.misses),
        error_replies: shared.stats.errors.total(),
        slowlog_entries: shared.slowlog.len(),
        peer_read_bytes: peer_read_bytes.saturating_sub(baseline.peer_read_bytes),
        peer_written_bytes: peer_written_bytes.saturating_sub(baseline.peer_written_bytes),
        denied_auths: load(&shared.stats.denied_auths),
    }
}

/// Reads that found their key and reads that did not, of all groups here.
pub fn lookups(shared: &Shared) -> (u64, u64) {
    let all = shared.replication.groups().into_iter().map(|group| group.keyspace().lookups());
    all.fold((0, 0), |sum, (hits, misses)| (sum.0 + hits, sum.1 + misses))
}

fn groups(shared: &Shared) -> Vec<GroupFigures> {
    let figures = shared.replication.groups().into_iter().map(|group| {
        let counters = group.keyspace().counters();
        GroupFigures {
            id: group.id().0,
            replica: group.replica().0,
            leads: group.leads(),
            term: group.term(),
            applied_index: group.applied_index(),
            keys: counters.keys,
            keys_with_ttl: counters.keys_with_ttl,
            keyspace_bytes: counters.bytes,
            expired: counters.expired,
            log_bytes: group.log_bytes(),
        }
    });
    figures.collect()
}
