//! The settings of one node. A field's doc comment is its `--help` text; its name with dashes is the flag, the key in
//! the TOML file and, in capitals after `KVORUM_`, the environment variable. A new setting is one field here and one
//! entry in `conf/kvorum.toml`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::units::{Appendfsync, ByteSize, HostPort, LogFormat, LogLevel, ReadMode, Secret, YesNo};

/// Round-trip time between nodes that the timers allow for.
const RTT_MS_ALLOWED: u64 = 50;
/// openraft checks its timers every 13/64 of the heartbeat interval.
const TICK_OF_HEARTBEAT: (u64, u64) = (13, 64);
const REPLICAS_DEFAULT: u32 = 3;
/// In one list of them.
const ADDRESS_COUNT_MAX: usize = 256;
const PEER_PORT_OFFSET: u16 = 10_000;
const HTTP_PORT_OFFSET: u16 = 1_000;

/// One node's settings. Every flag can also be given as KVORUM_<FLAG> in the environment or as a key of the --config
/// file; flags win over the environment, the environment over the file.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct Config {
    /// TOML file with any of the settings below (see conf/kvorum.toml).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Addresses to listen on, separated by commas; * is every IPv4 address.
    #[arg(long, value_name = "ADDR,...", default_value = "127.0.0.1", value_delimiter = ',',
          action = clap::ArgAction::Set, value_parser = parse_bind, help_heading = "Network")]
    pub bind: Vec<IpAddr>,
    /// Serve only clients on this machine while no password is set.
    #[arg(
        long,
        value_enum,
        default_value = "yes",
        value_name = "YES|NO",
        hide_possible_values = true,
        help_heading = "Network"
    )]
    pub protected_mode: YesNo,
    /// Port for clients.
    #[arg(long, default_value_t = 6379, value_parser = value_parser!(u16).range(1..), help_heading = "Network")]
    pub port: u16,
    /// Port for the other nodes [default: port + 10000].
    #[arg(long, value_parser = value_parser!(u16).range(1..), help_heading = "Network")]
    pub peer_port: Option<u16>,
    /// Port for metrics, health checks and the status page; 0 is off [default: port + 1000].
    #[arg(long, help_heading = "Network")]
    pub http_port: Option<u16>,
    /// Host that clients and other nodes are told to reach this node by [default: this node's entry in
    /// --initial-cluster, or the first --bind address; a member that is given neither keeps the host it has].
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    pub announce_host: Option<String>,
    /// Port that clients are told to reach this node by [default: port].
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..), help_heading = "Network")]
    pub announce_port: Option<u16>,
    /// Most client connections at a time.
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=1_000_000),
          help_heading = "Network")]
    pub maxclients: u32,
    /// Seconds after which an idle client is disconnected; 0 is never.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = value_parser!(u32).range(0..=2_147_483_647),
          help_heading = "Network")]
    pub timeout: u32,
    /// Seconds of silence before TCP keepalive probes; 0 is off.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = value_parser!(u32).range(0..=32_767),
          help_heading = "Network")]
    pub tcp_keepalive: u32,
    /// Password that clients must give with AUTH or HELLO; empty is none. Prefer the file or KVORUM_REQUIREPASS: flags
    /// show in process lists.
    #[arg(long, default_value = "", value_name = "PASSWORD", hide_default_value = true, help_heading = "Network")]
    pub requirepass: Secret,

    /// Directory for the log, snapshots and the node's identity.
    #[arg(long, default_value = "./kvorum-data", value_name = "DIR", help_heading = "Storage")]
    pub data_dir: PathBuf,
    /// What OK means: always is on a quorum of disks; everysec and no are in a quorum's memory, on disk a little later.
    #[arg(long, value_enum, default_value = "always", help_heading = "Storage")]
    pub appendfsync: Appendfsync,
    /// Size of one file of the write-ahead log.
    #[arg(long, default_value = "64mb", value_name = "SIZE", help_heading = "Storage")]
    pub log_segment_bytes: ByteSize,
    /// Log bytes of one group since its last snapshot that trigger the next one.
    #[arg(long, default_value = "256mb", value_name = "SIZE", help_heading = "Storage")]
    pub log_bytes_max: ByteSize,
    /// Free disk space below which this node leaves writes to the others, or refuses them.
    #[arg(long, default_value = "64mb", value_name = "SIZE", help_heading = "Storage")]
    pub disk_free_min: ByteSize,

    /// Client addresses of all founding nodes, the same list on each; with empty data directories they form a cluster
    /// by themselves, in any start order. Without it an empty node becomes a cluster of one.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', action = clap::ArgAction::Set,
          value_parser = parse_host_port, help_heading = "Cluster")]
    pub initial_cluster: Vec<HostPort>,
    /// Client addresses of members of a cluster, of which one that answers is enough: with an empty data directory this node joins
    /// it, and founds none.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', action = clap::ArgAction::Set,
          value_parser = parse_host_port, help_heading = "Cluster")]
    pub join: Vec<HostPort>,
    /// Seconds that a node may be away before its replicas are rebuilt on others, if there are others. The same on every node.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=31_536_000),
          help_heading = "Cluster")]
    pub node_down_after: u32,
    /// Bytes per second that a group sends to another one at most, while a slot moves.
    #[arg(long, default_value = "64mb", value_name = "SIZE", help_heading = "Cluster")]
    pub move_rate_max: ByteSize,
    /// Nodes that hold a copy of each key; fewer while the cluster has fewer nodes. The same on every node [default: 3, or the
    /// cluster's with --join].
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=7), help_heading = "Cluster")]
    pub replicas: Option<u32>,
    /// Raft groups that share the slots, fixed when the cluster forms; the same on every node [default: one for each node, also for those
    /// that come and go].
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=1024), help_heading = "Cluster")]
    pub groups: Option<u32>,
    /// How a leader knows that it may answer a read: by lease, or by asking a quorum (read-index).
    #[arg(long, value_enum, default_value = "lease", help_heading = "Cluster")]
    pub read_mode: ReadMode,
    /// Milliseconds between a leader's heartbeats.
    #[arg(long, default_value_t = 60, value_name = "MS", value_parser = value_parser!(u64).range(5..=60_000),
          help_heading = "Cluster")]
    pub heartbeat_ms: u64,
    /// Least milliseconds added at random to the election timeout.
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = value_parser!(u64).range(10..=300_000),
          help_heading = "Cluster")]
    pub election_timeout_min_ms: u64,
    /// Milliseconds of silence from a leader before an election; its lease lasts half of it. Nodes whose values are more than half apart refuse
    /// each other.
    #[arg(long, default_value_t = 400, value_name = "MS", value_parser = value_parser!(u64).range(20..=600_000),
          help_heading = "Cluster")]
    pub election_timeout_max_ms: u64,
    /// Milliseconds that a request waits for a leader to be known before CLUSTERDOWN; 0 is four times
    /// election-timeout-max-ms.
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = value_parser!(u64).range(0..=600_000),
          help_heading = "Cluster")]
    pub park_ms_max: u64,
    /// Bytes of requests that may wait for a leader on this node.
    #[arg(long, default_value = "64mb", value_name = "SIZE", help_heading = "Cluster")]
    pub park_bytes_max: ByteSize,

    /// Largest word of a request, so the largest value; keys are at most 16mb.
    #[arg(long, default_value = "512mb", value_name = "SIZE", help_heading = "Limits")]
    pub proto_max_bulk_len: ByteSize,
    /// Most bytes of unread requests of one client; it is disconnected beyond.
    #[arg(long, default_value = "1gb", value_name = "SIZE", help_heading = "Limits")]
    pub client_query_buffer_limit: ByteSize,
    /// Most bytes of unsent replies of one client; beyond, nothing more of it is run until it has read some.
    #[arg(long, default_value = "1gb", value_name = "SIZE", help_heading = "Limits")]
    pub client_output_limit: ByteSize,
    /// Threads that serve clients and groups; 0 is one for every two cores, at most 16.
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = value_parser!(u32).range(0..=256),
          help_heading = "Limits")]
    pub threads: u32,
    /// Seconds that a clean stop may take; at the end the process exits anyway.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=3600),
          help_heading = "Limits")]
    pub shutdown_timeout: u32,

    /// Least severe message that is logged.
    #[arg(long, value_enum, default_value = "info", help_heading = "Observability")]
    pub log_level: LogLevel,
    /// Form of log lines.
    #[arg(long, value_enum, default_value = "text", help_heading = "Observability")]
    pub log_format: LogFormat,
    /// Microseconds from which a command enters the slow log; 0 is every command, -1 is none.
    #[arg(long, default_value_t = 10_000, value_name = "US", allow_negative_numbers = true,
          value_parser = value_parser!(i64).range(-1..), help_heading = "Observability")]
    pub slowlog_log_slower_than: i64,
    /// Most entries of the slow log.
    #[arg(long, default_value_t = 128, value_name = "COUNT", value_parser = value_parser!(u32).range(0..=1_000_000),
          help_heading = "Observability")]
    pub slowlog_max_len: u32,
    /// Milliseconds from which an event enters LATENCY LATEST and HISTORY; 0 is off.
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = value_parser!(u32), help_heading = "Observability")]
    pub latency_monitor_threshold: u32,

    /// Stop as if by SIGTERM when standard input ends: `kvorum local` must not leave nodes behind.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

fn parse_bind(text: &str) -> Result<IpAddr, String> {
    match text.trim() {
        "*" => Ok(IpAddr::from([0, 0, 0, 0])),
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        address => address.parse().map_err(|_| format!("'{address}' is not an IP address")),
    }
}

fn parse_host_port(text: &str) -> Result<HostPort, String> {
    text.parse()
}

fn check_addresses(setting: &str, listed: &[HostPort]) -> Result<(), String> {
    if listed.len() > ADDRESS_COUNT_MAX {
        return Err(format!("{setting}: at most {ADDRESS_COUNT_MAX} addresses"));
    }
    let mut addresses: Vec<_> = listed.iter().collect();
    addresses.sort();
    match addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{setting}: {} is listed twice", pair[0])),
        None => Ok(()),
    }
}

impl Default for Config {
    fn default() -> Self {
        super::load(&[], &|_| None, &|_| unreachable!("no --config flag was given"))
            .expect("the defaults are valid, which a test asserts")
            .config
    }
}

impl Config {
    pub fn peer_port(&self) -> u16 {
        self.peer_port.unwrap_or_else(|| self.port.saturating_add(PEER_PORT_OFFSET))
    }

    /// `None` when the HTTP server is off.
    pub fn http_port(&self) -> Option<u16> {
        let port = self.http_port.unwrap_or_else(|| self.port.saturating_add(HTTP_PORT_OFFSET));
        (port != 0).then_some(port)
    }

    /// What others are told: --announce-host; else the one entry of --initial-cluster that has our port, if only one
    /// has; else the first --bind address, unless that is a wildcard; else 127.0.0.1.
    pub fn announce(&self) -> HostPort {
        let host = self.named_host().or_else(|| self.bound_host().map(|host| host.to_string()));
        HostPort { host: host.unwrap_or_else(|| "127.0.0.1".to_string()), port: self.announced_port() }
    }

    /// What a member announces that the others know by the host `registered`: --announce-host or its entry in --initial-cluster, if they are
    /// given; else the host it has, unless --bind says that it is elsewhere. § A restart with fewer flags must not take the others the way to it.
    pub fn announce_again(&self, registered: &str) -> HostPort {
        let ip = registered.parse::<IpAddr>().ok();
        let was_loopback = ip.is_some_and(|ip| ip.is_loopback());
        let is_wide = self.bind.iter().any(IpAddr::is_unspecified);
        // A name was given once, and by no --bind.
        let kept = is_wide || ip.is_none_or(|ip| !was_loopback && self.bind.contains(&ip));
        // The loopback address is the default, and no way to a node that was elsewhere.
        let moved = || self.bound_host().filter(|bound| !kept && (was_loopback || !bound.is_loopback()));
        let host = self.named_host().or_else(|| moved().map(|host| host.to_string()));
        HostPort { host: host.unwrap_or_else(|| registered.to_string()), port: self.announced_port() }
    }

    fn announced_port(&self) -> u16 {
        self.announce_port.unwrap_or(self.port)
    }

    fn named_host(&self) -> Option<String> {
        let mut ours = self.initial_cluster.iter().filter(|address| address.port == self.announced_port());
        let listed = match (ours.next(), ours.next()) {
            (Some(only), None) => Some(only.host.clone()),
            (None, _) | (Some(_), Some(_)) => None,
        };
        self.announce_host.clone().or(listed)
    }

    fn bound_host(&self) -> Option<IpAddr> {
        self.bind.iter().find(|address| !address.is_unspecified()).copied()
    }

    /// Copies of each key in a new cluster.
    pub fn replica_count(&self) -> u32 {
        self.replicas.unwrap_or(REPLICAS_DEFAULT)
    }

    /// Data groups of a new cluster: --groups, else one for each founding node.
    pub fn group_count(&self) -> u32 {
        self.groups.unwrap_or_else(|| u32::try_from(self.initial_cluster.len().max(1)).unwrap_or(u32::MAX))
    }

    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 16)),
            count => count as usize,
        }
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub fn election_timeout_max(&self) -> Duration {
        Duration::from_millis(self.election_timeout_max_ms)
    }

    /// How long a request may wait for a leader to be known.
    pub fn park_time_max(&self) -> Duration {
        Duration::from_millis(match self.park_ms_max {
            0 => 4 * self.election_timeout_max_ms,
            ms => ms,
        })
    }

    pub fn node_down_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.node_down_after))
    }

    pub fn shutdown_time_max(&self) -> Duration {
        Duration::from_secs(u64::from(self.shutdown_timeout))
    }

    /// Rules that span several settings. The message names the settings and what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_timers()?;
        self.check_ports()?;
        self.check_sizes()?;
        if self.bind.is_empty() || self.bind.len() > 16 {
            return Err("bind: give 1 to 16 addresses".to_string());
        }
        check_addresses("initial-cluster", &self.initial_cluster)?;
        check_addresses("join", &self.join)?;
        match (self.join.is_empty(), self.initial_cluster.is_empty()) {
            (false, false) => {
                Err("join: this node either founds a cluster (initial-cluster) or joins one; give one of the two"
                    .to_string())
            }
            (false, true) if self.join == [self.announce()] => {
                Err(format!("join: {} is this node itself; name a member of the cluster", self.join[0]))
            }
            (true | false, _) => Ok(()),
        }
    }

    /// § A lease is half of election-timeout-max-ms from the last quorum acknowledgement: it must outlive the longest
    /// regular gap between two of them, or a healthy leader keeps falling back to a quorum round for each read.
    fn check_timers(&self) -> Result<(), String> {
        let (numerator, denominator) = TICK_OF_HEARTBEAT;
        let tick = self.heartbeat_ms * numerator / denominator;
        let heartbeat_min_interval = self.heartbeat_ms;
        let gap = self.heartbeat_ms + heartbeat_min_interval + tick + RTT_MS_ALLOWED;
        if 2 * gap >= self.election_timeout_max_ms {
            return Err(format!(
                "election-timeout-max-ms: {} is too short for heartbeat-ms {}; it must be over {} \
                 (twice: 2 x heartbeat, {tick} ms timer step, {RTT_MS_ALLOWED} ms round trip)",
                self.election_timeout_max_ms,
                self.heartbeat_ms,
                2 * gap
            ));
        }
        if self.election_timeout_min_ms >= self.election_timeout_max_ms {
            return Err(format!(
                "election-timeout-min-ms: {} must be below election-timeout-max-ms {}",
                self.election_timeout_min_ms, self.election_timeout_max_ms
            ));
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), String> {
        let http = self.http_port.unwrap_or(0);
        let defaults =
            [("peer-port", self.peer_port, PEER_PORT_OFFSET), ("http-port", self.http_port, HTTP_PORT_OFFSET)];
        for (name, given, offset) in defaults {
            if given.is_none() && self.port.checked_add(offset).is_none() {
                return Err(format!("{name}: port {} + {offset} is above 65535; set {name} yourself", self.port));
            }
        }
        let http = if self.http_port.is_some() { http } else { self.port + HTTP_PORT_OFFSET };
        let ports = [("port", self.port), ("peer-port", self.peer_port()), ("http-port", http)];
        for (index, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, earlier)| earlier == port) {
                return Err(format!("{name}: {port} is already {other}"));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), String> {
        const KB: u64 = 1 << 10;
        const MB: u64 = 1 << 20;
        const GB: u64 = 1 << 30;
        let bounds = [
            ("log-segment-bytes", self.log_segment_bytes, MB, 4 * GB),
            ("log-bytes-max", self.log_bytes_max, MB, 1024 * GB),
            ("disk-free-min", self.disk_free_min, 0, 1024 * GB),
            ("move-rate-max", self.move_rate_max, MB, 1024 * GB),
            ("park-bytes-max", self.park_bytes_max, 64 * KB, 64 * GB),
            ("proto-max-bulk-len", self.proto_max_bulk_len, MB, 512 * MB),
            ("client-query-buffer-limit", self.client_query_buffer_limit, MB, 1024 * GB),
            ("client-output-limit", self.client_output_limit, MB, 1024 * GB),
        ];
        for (name, size, min, max) in bounds {
            if size.0 < min || size.0 > max {
                return Err(format!("{name}: {size} is not between {} and {}", ByteSize(min), ByteSize(max)));
            }
        }
        Ok(())
    }
}
