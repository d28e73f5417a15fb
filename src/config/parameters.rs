//! The parameters of CONFIG GET and SET: one row each, with Redis's name, the values it takes and its initial value.
//!
//! Three sorts: *settings* of this node, of which some can change while it runs; *fixed* ones, which describe how Kvorum
//! works in Redis's words, and refuse what would promise otherwise; *remembered* ones, which steer encodings and background work that Kvorum does otherwise:
//! test suites and tools set them and read them back, so they are validated and kept, without effect.

use super::options::Config;
use super::units::LogLevel;

/// What a parameter's text must look like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    YesNo,
    Integer {
        min: i64,
        max: i64,
    },
    /// Bytes, with or without a unit; kept as a plain number, as Redis prints it.
    Memory {
        min: u64,
        max: u64,
    },
    OneOf(&'static [&'static str]),
    /// Up to 16 percentiles from 0 to 100, separated by blanks.
    Percentiles,
    Text,
    /// Redis's classes of clients with a hard and a soft limit and seconds each.
    OutputLimits,
    /// Exactly this: any other value would promise what Kvorum does not do.
    Only(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Initial {
    Text(&'static str),
    Setting(fn(&Config) -> String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Allowed,
    /// "can't set immutable config"
    Immutable,
    /// The same to any value but the present one, for tools that set what Redis lets them.
    Unchanged,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub name: &'static str,
    /// Redis's older name for the same value.
    pub alias: Option<&'static str>,
    pub kind: Kind,
    pub initial: Initial,
    pub change: Change,
    /// Key in the TOML file, for CONFIG REWRITE.
    pub file_key: Option<&'static str>,
}

const POLICIES: Kind = Kind::OneOf(&[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
]);
const LOG_LEVELS: Kind = Kind::OneOf(&["debug", "verbose", "notice", "warning", "nothing"]);
/// Whatever is said, each acknowledged write is on disk, and the stop has a deadline.
const SHUTDOWNS: Kind = Kind::OneOf(&["default", "save", "nosave", "now", "force"]);
const COUNT: Kind = Kind::Integer { min: 0, max: i64::MAX };
const INT: Kind = Kind::Integer { min: i32::MIN as i64, max: i32::MAX as i64 };
const SECONDS: Kind = Kind::Integer { min: 0, max: i32::MAX as i64 };
const MB: u64 = 1 << 20;

pub(super) const OUTPUT_LIMIT: &str = "client-output-limit";
pub(super) const OUTPUT_LIMITS: &str = "client-output-buffer-limit";
pub(super) const OUTPUT_LIMIT_MIN: u64 = MB;
pub(super) const OUTPUT_LIMIT_MAX: u64 = MB << 20;

const fn row(name: &'static str, kind: Kind, initial: Initial, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, initial, change, file_key: None }
}

const fn remembered(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    row(name, kind, Initial::Text(default), Change::Allowed)
}

const fn fixed(name: &'static str, value: &'static str) -> Parameter {
    row(name, Kind::Only(value), Initial::Text(value), Change::Immutable)
}

/// A setting that a restart is needed to change.
const fn started_with(name: &'static str, setting: fn(&Config) -> String) -> Parameter {
    row(name, Kind::Text, Initial::Setting(setting), Change::Immutable)
}

/// A setting that takes effect at once and that CONFIG REWRITE writes under the same key.
const fn live(name: &'static str, kind: Kind, setting: fn(&Config) -> String) -> Parameter {
    let mut parameter = row(name, kind, Initial::Setting(setting), Change::Allowed);
    parameter.file_key = Some(name);
    parameter
}

impl Parameter {
    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    const fn under(mut self, key: &'static str) -> Self {
        self.file_key = Some(key);
        self
    }
}

fn addresses(config: &Config) -> String {
    config.bind.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn redis_log_level(config: &Config) -> String {
    let word = match config.log_level {
        LogLevel::Error => "nothing",
        LogLevel::Warn => "warning",
        LogLevel::Info => "notice",
        LogLevel::Debug => "debug",
    };
    word.to_string()
}

pub(super) static PARAMETERS: &[Parameter] = &[
    // Settings that change while the node runs.
    live("maxclients", Kind::Integer { min: 1, max: 1_000_000 }, |config| config.maxclients.to_string()),
    live("timeout", SECONDS, |config| config.timeout.to_string()),
    live("tcp-keepalive", Kind::Integer { min: 0, max: 32_767 }, |config| config.tcp_keepalive.to_string()),
    live("requirepass", Kind::Text, |config| config.requirepass.0.clone()),
    live("protected-mode", Kind::YesNo, |config| config.protected_mode.to_string()),
    live("proto-max-bulk-len", Kind::Memory { min: MB, max: 512 * MB }, |config| {
        config.proto_max_bulk_len.0.to_string()
    }),
    live("client-query-buffer-limit", Kind::Memory { min: MB, max: MB << 20 }, |config| {
        config.client_query_buffer_limit.0.to_string()
    }),
    live(OUTPUT_LIMIT, Kind::Memory { min: OUTPUT_LIMIT_MIN, max: OUTPUT_LIMIT_MAX }, |config| {
        config.client_output_limit.0.to_string()
    }),
    // Of normal clients the hard limit is in force, within the bounds of the one above; the rest is remembered.
    row(
        OUTPUT_LIMITS,
        Kind::OutputLimits,
        Initial::Setting(|config| {
            format!(
                "normal {} 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
                config.client_output_limit.0
            )
        }),
        Change::Allowed,
    ),
    live("slowlog-log-slower-than", Kind::Integer { min: -1, max: i64::MAX }, |config| {
        config.slowlog_log_slower_than.to_string()
    }),
    live("slowlog-max-len", Kind::Integer { min: 0, max: 1_000_000 }, |config| config.slowlog_max_len.to_string()),
    live("latency-monitor-threshold", Kind::Integer { min: 0, max: u32::MAX as i64 }, |config| {
        config.latency_monitor_threshold.to_string()
    }),
    live("loglevel", LOG_LEVELS, redis_log_level).or("log-level").under("log-level"),
    // Take effect at once, known to Redis alone and therefore absent from the file.
    remembered("latency-tracking", Kind::YesNo, "yes"),
    remembered("latency-tracking-info-percentiles", Kind::Percentiles, "50 99 99.9"),
    remembered("maxmemory-policy", POLICIES, "noeviction"),
    // Settings that a restart changes.
    started_with("port", |config| config.port.to_string()),
    started_with("peer-port", |config| config.peer_port().to_string()),
    started_with("http-port", |config| config.http_port().unwrap_or(0).to_string()),
    started_with("bind", addresses),
    started_with("dir", |config| config.data_dir.display().to_string()).or("data-dir"),
    row("appendfsync", Kind::Text, Initial::Setting(|config| config.appendfsync.to_string()), Change::Unchanged),
    started_with("cluster-announce-ip", |config| config.announce_host.clone().unwrap_or_default()).or("announce-host"),
    started_with("cluster-announce-port", |config| config.announce_port.unwrap_or(0).to_string()).or("announce-port"),
    started_with("cluster-port", |config| config.peer_port().to_string()),
    started_with("io-threads", |config| config.thread_count().to_string()).or("threads"),
    started_with("initial-cluster", |config| {
        config.initial_cluster.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }),
    started_with("join", |config| config.join.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    started_with("node-down-after", |config| config.node_down_after.to_string()),
    started_with("log-segment-bytes", |config| config.log_segment_bytes.0.to_string()),
    started_with("log-bytes-max", |config| config.log_bytes_max.0.to_string()),
    started_with("disk-free-min", |config| config.disk_free_min.0.to_string()),
    started_with("move-rate-max", |config| config.move_rate_max.0.to_string()),
    started_with("log-format", |config| config.log_format.to_string()),
    started_with("park-ms-max", |config| config.park_ms_max.to_string()),
    started_with("park-bytes-max", |config| config.park_bytes_max.0.to_string()),
    started_with("replicas", |config| config.replica_count().to_string()),
    started_with("groups", |config| config.group_count().to_string()),
    started_with("read-mode", |config| config.read_mode.to_string()),
    started_with("heartbeat-ms", |config| config.heartbeat_ms.to_string()),
    started_with("election-timeout-min-ms", |config| config.election_timeout_min_ms.to_string()),
    started_with("election-timeout-max-ms", |config| config.election_timeout_max_ms.to_string()),
    started_with("shutdown-timeout", |config| config.shutdown_timeout.to_string()),
    // How Kvorum works, in Redis's words.
    fixed("databases", "1"),
    fixed("cluster-enabled", "yes"),
    fixed("daemonize", "no"),
    fixed("supervised", "no"),
    fixed("logfile", ""),
    fixed("pidfile", ""),
    fixed("unixsocket", ""),
    fixed("aclfile", ""),
    fixed("tls-port", "0"),
    fixed("replicaof", "").or("slaveof"),
    row("save", Kind::Only(""), Initial::Text(""), Change::Allowed),
    row("appendonly", Kind::Only("yes"), Initial::Text("yes"), Change::Allowed),
    row("maxmemory", Kind::Memory { min: 0, max: 0 }, Initial::Text("0"), Change::Allowed),
    row("replica-read-only", Kind::Only("yes"), Initial::Text("yes"), Change::Allowed).or("slave-read-only"),
    row("cluster-require-full-coverage", Kind::Only("no"), Initial::Text("no"), Change::Allowed),
    row("cluster-allow-reads-when-down", Kind::Only("no"), Initial::Text("no"), Change::Allowed),
    // Each write is on a quorum, whatever this says; a number would promise more.
    row("min-replicas-to-write", Kind::Only("0"), Initial::Text("0"), Change::Allowed).or("min-slaves-to-write"),
    row("notify-keyspace-events", Kind::Only(""), Initial::Text(""), Change::Allowed),
    // Clients are told addresses, which `announce-host` names.
    row("cluster-announce-hostname", Kind::Only(""), Initial::Text(""), Change::Allowed),
    row("cluster-preferred-endpoint-type", Kind::Only("ip"), Initial::Text("ip"), Change::Allowed),
    // No client is disconnected for the memory of all.
    row("maxmemory-clients", Kind::Memory { min: 0, max: 0 }, Initial::Text("0"), Change::Allowed),
    // Remembered: encodings.
    remembered("hash-max-listpack-entries", COUNT, "512").or("hash-max-ziplist-entries"),
    remembered("hash-max-listpack-value", COUNT, "64").or("hash-max-ziplist-value"),
    remembered("list-max-listpack-size", INT, "-2").or("list-max-ziplist-size"),
    remembered("list-compress-depth", SECONDS, "0"),
    remembered("set-max-intset-entries", COUNT, "512"),
    remembered("set-max-listpack-entries", COUNT, "128"),
    remembered("set-max-listpack-value", COUNT, "64"),
    remembered("zset-max-listpack-entries", COUNT, "128").or("zset-max-ziplist-entries"),
    remembered("zset-max-listpack-value", COUNT, "64").or("zset-max-ziplist-value"),
    remembered("hll-sparse-max-bytes", COUNT, "3000"),
    remembered("stream-node-max-bytes", COUNT, "4096"),
    remembered("stream-node-max-entries", COUNT, "100"),
    // Remembered: persistence, memory and background work.
    remembered("appendfilename", Kind::Text, "appendonly.aof"),
    remembered("dbfilename", Kind::Text, "dump.rdb"),
    remembered("no-appendfsync-on-rewrite", Kind::YesNo, "no"),
    remembered("auto-aof-rewrite-percentage", SECONDS, "100"),
    remembered("auto-aof-rewrite-min-size", Kind::Memory { min: 0, max: u64::MAX }, "67108864"),
    remembered("aof-load-truncated", Kind::YesNo, "yes"),
    remembered("aof-use-rdb-preamble", Kind::YesNo, "yes"),
    remembered("rdbcompression", Kind::YesNo, "yes"),
    remembered("rdbchecksum", Kind::YesNo, "yes"),
    remembered("rdb-key-save-delay", INT, "0"),
    remembered("rdb-save-incremental-fsync", Kind::YesNo, "yes"),
    remembered("aof-rewrite-incremental-fsync", Kind::YesNo, "yes"),
    remembered("aof-timestamp-enabled", Kind::YesNo, "no"),
    remembered("stop-writes-on-bgsave-error", Kind::YesNo, "yes"),
    remembered("maxmemory-samples", Kind::Integer { min: 1, max: 64 }, "5"),
    remembered("maxmemory-eviction-tenacity", Kind::Integer { min: 0, max: 100 }, "10"),
    remembered("lfu-log-factor", SECONDS, "10"),
    remembered("lfu-decay-time", SECONDS, "1"),
    remembered("active-expire-effort", Kind::Integer { min: 1, max: 10 }, "1"),
    remembered("activerehashing", Kind::YesNo, "yes"),
    remembered("activedefrag", Kind::YesNo, "no"),
    remembered("active-defrag-threshold-lower", Kind::Integer { min: 0, max: 1000 }, "10"),
    remembered("active-defrag-threshold-upper", Kind::Integer { min: 0, max: 1000 }, "100"),
    remembered("active-defrag-ignore-bytes", Kind::Memory { min: 1, max: u64::MAX }, "104857600"),
    remembered("active-defrag-cycle-min", Kind::Integer { min: 1, max: 99 }, "1"),
    remembered("active-defrag-cycle-max", Kind::Integer { min: 1, max: 99 }, "25"),
    remembered("active-defrag-max-scan-fields", Kind::Integer { min: 1, max: i64::MAX }, "1000"),
    remembered("lazyfree-lazy-eviction", Kind::YesNo, "no"),
    remembered("lazyfree-lazy-expire", Kind::YesNo, "no"),
    remembered("lazyfree-lazy-server-del", Kind::YesNo, "no"),
    remembered("lazyfree-lazy-user-del", Kind::YesNo, "no"),
    remembered("lazyfree-lazy-user-flush", Kind::YesNo, "no"),
    remembered("replica-lazy-flush", Kind::YesNo, "no").or("slave-lazy-flush"),
    remembered("hz", Kind::Integer { min: 1, max: 500 }, "10"),
    remembered("dynamic-hz", Kind::YesNo, "yes"),
    remembered("oom-score-adj", Kind::OneOf(&["no", "yes", "relative", "absolute"]), "no"),
    remembered("crash-log-enabled", Kind::YesNo, "yes"),
    remembered("shutdown-on-sigterm", SHUTDOWNS, "default"),
    remembered("shutdown-on-sigint", SHUTDOWNS, "default"),
    remembered("sanitize-dump-payload", Kind::OneOf(&["no", "yes", "clients"]), "no"),
    remembered("close-on-replica-write", Kind::YesNo, "yes"),
    remembered("acllog-max-len", COUNT, "128"),
    remembered("tracking-table-max-keys", COUNT, "1000000"),
    remembered("busy-reply-threshold", COUNT, "5000").or("lua-time-limit"),
    // Remembered: replication and clustering as Redis does them.
    remembered("masterauth", Kind::Text, ""),
    remembered("masteruser", Kind::Text, ""),
    remembered("min-replicas-max-lag", SECONDS, "10").or("min-slaves-max-lag"),
    remembered("repl-backlog-size", Kind::Memory { min: 1, max: u64::MAX }, "1048576"),
    remembered("repl-backlog-ttl", SECONDS, "3600"),
    remembered("repl-timeout", SECONDS, "60"),
    remembered("repl-disable-tcp-nodelay", Kind::YesNo, "no"),
    remembered("repl-ping-replica-period", SECONDS, "10").or("repl-ping-slave-period"),
    remembered("repl-diskless-sync", Kind::YesNo, "yes"),
    remembered("repl-diskless-sync-delay", SECONDS, "5"),
    remembered("repl-diskless-load", Kind::OneOf(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    remembered("replica-serve-stale-data", Kind::YesNo, "yes").or("slave-serve-stale-data"),
    remembered("replica-priority", SECONDS, "100").or("slave-priority"),
    remembered("replica-announced", Kind::YesNo, "yes"),
    remembered("replica-ignore-maxmemory", Kind::YesNo, "yes").or("slave-ignore-maxmemory"),
    remembered("cluster-node-timeout", COUNT, "15000"),
    remembered("cluster-link-sendbuf-limit", Kind::Memory { min: 0, max: u64::MAX }, "0"),
    remembered("cluster-migration-barrier", SECONDS, "1"),
    remembered("cluster-replica-validity-factor", SECONDS, "10").or("cluster-slave-validity-factor"),
    remembered("cluster-replica-no-failover", Kind::YesNo, "no").or("cluster-slave-no-failover"),
    remembered("cluster-allow-replica-migration", Kind::YesNo, "yes"),
];
