//! INFO: the sections that clients, exporters and people read, in Redis's names; Kvorum's own beside them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::clock::{Boottime, Timestamp};
use crate::keyspace::Counters;
use crate::protocol::Args;
use crate::server::commands::{CommandContext, REDIS_VERSION};
use crate::server::process;
use crate::server::shared::Shared;

/// Every section, in the order of printing, and whether plain INFO prints it.
const SECTIONS: [(&str, bool); 12] = [
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("stats", true),
    ("replication", true),
    ("cpu", true),
    ("commandstats", false),
    ("latencystats", false),
    ("errorstats", true),
    ("cluster", true),
    ("keyspace", true),
];
const OWN_SECTION: &str = "kvorum";

pub fn info(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let asked: Vec<String> =
        args.iter().skip(1).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let any = |name: &str| asked.iter().any(|word| word == name);
    let everything = any("everything") || any("all");
    let mut text = String::new();
    let default = asked.is_empty() || any("default");
    for (name, by_default) in SECTIONS.into_iter().chain([(OWN_SECTION, true)]) {
        if everything || any(name) || (default && by_default) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            section(name, context.shared, &mut text);
        }
    }
    context.reply.verbatim("txt", text.as_bytes());
}

fn section(name: &str, shared: &Shared, text: &mut String) {
    let title = match name {
        "cpu" => "CPU".to_owned(),
        other => other[..1].to_ascii_uppercase() + &other[1..],
    };
    let _ = write!(text, "# {title}\r\n");
    let mut line = |field: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(text, "{field}:{value}\r\n");
    };
    match name {
        "server" => server(shared, &mut line),
        "clients" => clients(shared, &mut line),
        "memory" => memory(shared, &mut line),
        "persistence" => persistence(&mut line),
        "stats" => stats(shared, &mut line),
        "replication" => replication(shared, &mut line),
        "cpu" => cpu(&mut line),
        "commandstats" => command_stats(shared, &mut line),
        "latencystats" => latency_stats(shared, &mut line),
        "errorstats" => {
            for (code, count) in shared.stats.errors.counts() {
                line(&format!("errorstat_{code}"), &format_args!("count={count}"));
            }
        }
        "cluster" => line("cluster_enabled", &1),
        "keyspace" => keyspace(shared, &mut line),
        _ => own(shared, &mut line),
    }
}

type Line<'a> = &'a mut dyn FnMut(&str, &dyn std::fmt::Display);

fn server(shared: &Shared, line: Line<'_>) {
    let uptime_s = Boottime::now().saturating_since(shared.started.0).as_secs();
    line("redis_version", &REDIS_VERSION);
    line("redis_mode", &"cluster");
    line("server_name", &"kvorum");
    line("kvorum_version", &env!("CARGO_PKG_VERSION"));
    line("os", &format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line("arch_bits", &usize::BITS);
    line("process_id", &std::process::id());
    line("process_supervised", &"no");
    line("run_id", &shared.run_id);
    line("tcp_port", &shared.config.port);
    line("server_time_usec", &(Timestamp::wall_now().as_ms() * 1000));
    line("uptime_in_seconds", &uptime_s);
    line("uptime_in_days", &(uptime_s / 86_400));
    line("hz", &10);
    line("executable", &std::env::current_exe().unwrap_or_default().display());
    line("config_file", &shared.config.config.clone().unwrap_or_default().display());
}

fn clients(shared: &Shared, line: Line<'_>) {
    let (input, output) = shared.clients.largest_buffers();
    line("connected_clients", &shared.clients.count());
    line("cluster_connections", &shared.replication.peers().iter().filter(|peer| peer.connected_for.is_some()).count());
    line("maxclients", &shared.parameters.tunables().maxclients);
    line("client_recent_max_input_buffer", &input);
    line("client_recent_max_output_buffer", &output);
    line("blocked_clients", &shared.parking.figures().0);
    line("tracking_clients", &0);
    line("total_blocking_keys", &0);
}

fn memory(shared: &Shared, line: Line<'_>) {
    let resident = process::resident_bytes();
    let data: u64 = shared.replication.groups().iter().map(|group| group.keyspace().counters().bytes).sum();
    line("used_memory", &resident);
    line("used_memory_human", &human(resident));
    line("used_memory_rss", &resident);
    line("used_memory_rss_human", &human(resident));
    line("used_memory_dataset", &data);
    line("used_memory_overhead", &resident.saturating_sub(data));
    line("total_system_memory", &process::machine_bytes());
    line("maxmemory", &0);
    line("maxmemory_human", &"0B");
    line("maxmemory_policy", &"noeviction");
    line("mem_fragmentation_ratio", &"1.00");
    line("mem_allocator", &"mimalloc");
}

fn persistence(line: Line<'_>) {
    line("loading", &0);
    line("async_loading", &0);
    line("rdb_changes_since_last_save", &0);
    line("rdb_bgsave_in_progress", &0);
    line("rdb_last_bgsave_status", &"ok");
    line("aof_enabled", &1);
    line("aof_rewrite_in_progress", &0);
    line("aof_last_write_status", &"ok");
}

fn stats(shared: &Shared, line: Line<'_>) {
    let expired: u64 = shared.replication.groups().iter().map(|group| group.keyspace().counters().expired).sum();
    line("total_connections_received", &shared.clients.accepted.load(Ordering::Relaxed));
    line("total_commands_processed", &shared.stats.commands.calls_total());
    line("instantaneous_ops_per_sec", &shared.stats.calls_per_second());
    line("total_net_input_bytes", &shared.stats.read_bytes.load(Ordering::Relaxed));
    line("total_net_output_bytes", &shared.stats.written_bytes.load(Ordering::Relaxed));
    line("rejected_connections", &shared.clients.rejected.load(Ordering::Relaxed));
    line("expired_keys", &expired);
    line("evicted_keys", &0);
    line("pubsub_channels", &0);
    line("pubsub_patterns", &0);
    line("latest_fork_usec", &0);
    line("total_error_replies", &shared.stats.errors.total());
    line("slowlog_entries", &shared.slowlog.len());
}

fn replication(shared: &Shared, line: Line<'_>) {
    let offset: u64 = shared.replication.groups().iter().map(|group| group.applied_index()).sum();
    // Every node leads or may lead, and none is another's replica: to clients all are masters.
    line("role", &"master");
    line("connected_slaves", &0);
    line("master_failover_state", &"no-failover");
    line("master_replid", &shared.run_id);
    line("master_repl_offset", &offset);
    line("repl_backlog_active", &0);
}

fn cpu(line: Line<'_>) {
    let (user, system) = process::cpu_seconds();
    line("used_cpu_sys", &format_args!("{system:.6}"));
    line("used_cpu_user", &format_args!("{user:.6}"));
}

fn command_stats(shared: &Shared, line: Line<'_>) {
    for (name, counts) in shared.stats.commands.used() {
        let per_call = counts.micros as f64 / counts.calls.max(1) as f64;
        line(
            &format!("cmdstat_{name}"),
            &format_args!(
                "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                counts.calls, counts.micros, counts.rejected, counts.failed
            ),
        );
    }
}

fn latency_stats(shared: &Shared, line: Line<'_>) {
    let percentiles = shared.parameters.tunables().latency_percentiles.clone();
    for (name, counts) in shared.stats.commands.used() {
        let figures: Vec<String> = percentiles
            .iter()
            .map(|percent| format!("p{percent}={:.3}", counts.latency.percentile_us(*percent) as f64))
            .collect();
        line(&format!("latency_percentiles_usec_{name}"), &figures.join(","));
    }
}

fn keyspace(shared: &Shared, line: Line<'_>) {
    let sum = shared.replication.led_groups().iter().fold(Counters::default(), |sum, group| {
        let counters = group.keyspace().counters();
        Counters {
            keys: sum.keys + counters.keys,
            keys_with_ttl: sum.keys_with_ttl + counters.keys_with_ttl,
            bytes: sum.bytes + counters.bytes,
            expired: sum.expired + counters.expired,
        }
    });
    if sum.keys > 0 {
        line("db0", &format_args!("keys={},expires={},avg_ttl=0,subexpiry=0", sum.keys, sum.keys_with_ttl));
    }
}

fn own(shared: &Shared, line: Line<'_>) {
    let hints = shared.replication.hints();
    line("kvorum_version", &env!("CARGO_PKG_VERSION"));
    line("cluster_id", &shared.replication.topology().cluster_id());
    line("topology_epoch", &shared.replication.topology().epoch().0);
    let (requests, bytes, worst_ms) = shared.parking.figures();
    line("parked_requests", &requests);
    line("parked_bytes", &bytes);
    line("parked_worst_ms", &worst_ms);
    for group in shared.replication.groups() {
        let term = hints.leader(group.id()).map_or(0, |leader| leader.term);
        let role = if group.leads() { "leader" } else { "follower" };
        let keys = group.keyspace().counters().keys;
        line(
            &format!("group_{}", group.id()),
            &format_args!("role={role},term={term},applied={},keys={keys}", group.applied_index()),
        );
    }
}

fn human(bytes: u64) -> String {
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / size as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people_have_two_decimals_and_a_unit() {
        assert_eq!(human(512), "512B");
        assert_eq!(human(1536), "1.50K");
        assert_eq!(human(3 << 30), "3.00G");
    }
}
