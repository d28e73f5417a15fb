//! INFO's text: a pure function of the figures. Names and order are those of Redis 7.2, since clients and exporters read them; a
//! field about something that Kvorum does not have says so with the value that an idle Redis shows.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use crate::server::commands::info::Section;
use crate::server::commands::info_figures::Figures;
use crate::server::commands::run::REDIS_VERSION;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Fields that a section ends with whatever the node does.
const CLIENTS_REST: &[(&str, &str)] = &[
    ("tracking_clients", "0"),
    ("clients_in_timeout_table", "0"),
    ("total_blocking_keys", "0"),
    ("total_blocking_keys_on_nokey", "0"),
];
/// There are no scripts and functions.
const MEMORY_SCRIPTS: &[(&str, &str)] = &[
    ("used_memory_lua", "0"),
    ("used_memory_vm_eval", "0"),
    ("used_memory_lua_human", "0B"),
    ("used_memory_scripts_eval", "0"),
    ("number_of_cached_scripts", "0"),
    ("number_of_functions", "0"),
    ("number_of_libraries", "0"),
    ("used_memory_vm_functions", "0"),
    ("used_memory_vm_total", "0"),
    ("used_memory_vm_total_human", "0B"),
    ("used_memory_functions", "0"),
    ("used_memory_scripts", "0"),
    ("used_memory_scripts_human", "0B"),
];
const MEMORY_REST: &[(&str, &str)] = &[
    ("mem_not_counted_for_evict", "0"),
    ("mem_replication_backlog", "0"),
    ("mem_total_replication_buffers", "0"),
    ("mem_clients_slaves", "0"),
];
const PERSISTENCE_HEAD: &[(&str, &str)] = &[
    ("loading", "0"),
    ("async_loading", "0"),
    ("current_cow_peak", "0"),
    ("current_cow_size", "0"),
    ("current_cow_size_age", "0"),
    ("current_fork_perc", "0.00"),
    ("current_save_keys_processed", "0"),
    ("current_save_keys_total", "0"),
    ("rdb_changes_since_last_save", "0"),
    ("rdb_bgsave_in_progress", "0"),
];
const PERSISTENCE_REST: &[(&str, &str)] = &[
    ("rdb_last_bgsave_status", "ok"),
    ("rdb_last_bgsave_time_sec", "-1"),
    ("rdb_current_bgsave_time_sec", "-1"),
    ("rdb_saves", "0"),
    ("rdb_last_cow_size", "0"),
    ("rdb_last_load_keys_expired", "0"),
    ("rdb_last_load_keys_loaded", "0"),
    ("aof_enabled", "1"),
    ("aof_rewrite_in_progress", "0"),
    ("aof_rewrite_scheduled", "0"),
    ("aof_last_rewrite_time_sec", "-1"),
    ("aof_current_rewrite_time_sec", "-1"),
    ("aof_last_bgrewrite_status", "ok"),
    ("aof_rewrites", "0"),
    ("aof_rewrites_consecutive_failures", "0"),
    ("aof_last_cow_size", "0"),
    ("module_fork_in_progress", "0"),
    ("module_fork_last_cow_size", "0"),
];
const STATS_SYNC: &[(&str, &str)] = &[("sync_full", "0"), ("sync_partial_ok", "0"), ("sync_partial_err", "0")];
/// Due keys are known by their time: there is no search for them by samples.
const STATS_EXPIRY: &[(&str, &str)] =
    &[("expired_stale_perc", "0.00"), ("expired_time_cap_reached_count", "0"), ("expire_cycle_cpu_milliseconds", "0")];
const STATS_EVICTION: &[(&str, &str)] = &[
    ("evicted_keys", "0"),
    ("evicted_clients", "0"),
    ("total_eviction_exceeded_time", "0"),
    ("current_eviction_exceeded_time", "0"),
];
const STATS_REST: &[(&str, &str)] = &[
    ("pubsub_channels", "0"),
    ("pubsub_patterns", "0"),
    ("pubsubshard_channels", "0"),
    ("latest_fork_usec", "0"),
    ("total_forks", "0"),
    ("migrate_cached_sockets", "0"),
    ("slave_expires_tracked_keys", "0"),
    ("active_defrag_hits", "0"),
    ("active_defrag_misses", "0"),
    ("active_defrag_key_hits", "0"),
    ("active_defrag_key_misses", "0"),
    ("total_active_defrag_time", "0"),
    ("current_active_defrag_time", "0"),
    ("tracking_total_keys", "0"),
    ("tracking_total_items", "0"),
    ("tracking_total_prefixes", "0"),
    ("unexpected_error_replies", "0"),
    ("dump_payload_sanitizations", "0"),
    ("io_threaded_reads_processed", "0"),
    ("io_threaded_writes_processed", "0"),
    ("reply_buffer_shrinks", "0"),
    ("reply_buffer_expands", "0"),
];
const REPLICATION_REST: &[(&str, &str)] = &[
    ("second_repl_offset", "-1"),
    ("repl_backlog_active", "0"),
    ("repl_backlog_size", "1048576"),
    ("repl_backlog_first_byte_offset", "0"),
    ("repl_backlog_histlen", "0"),
];

/// The sections' text, one blank line between them.
pub fn render(sections: &BTreeSet<Section>, figures: &Figures) -> String {
    let mut text = Text(String::with_capacity(4096));
    for section in sections {
        text.open(section.title());
        match section {
            Section::Server => server(figures, &mut text),
            Section::Clients => clients(figures, &mut text),
            Section::Memory => memory(figures, &mut text),
            Section::Persistence => persistence(figures, &mut text),
            Section::Stats => stats(figures, &mut text),
            Section::Replication => replication(figures, &mut text),
            Section::Cpu => cpu(figures, &mut text),
            // There are none.
            Section::Modules => (),
            Section::Commandstats => command_stats(figures, &mut text),
            Section::Errorstats => error_stats(figures, &mut text),
            Section::Latencystats => latency_stats(figures, &mut text),
            Section::Cluster => text.field("cluster_enabled", 1),
            Section::Keyspace => keyspace(figures, &mut text),
            Section::Kvorum => kvorum(figures, &mut text),
        }
    }
    text.0
}

struct Text(String);

impl Text {
    fn open(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        self.line(format_args!("# {title}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        write!(self.0, "{line}\r\n").expect("writing to a String cannot fail");
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name}:{value}"));
    }

    fn fields(&mut self, fields: &[(&str, &str)]) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }

    /// A count of bytes, and once more for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }
}

/// As Redis spells sizes: 1.64M.
fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 'K';
    for next in ['M', 'G', 'T', 'P'] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.2}{unit}")
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn server(figures: &Figures, text: &mut Text) {
    let server = &figures.server;
    text.field("redis_version", REDIS_VERSION);
    text.field("server_name", "kvorum");
    text.field("kvorum_version", VERSION);
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", "0");
    text.field("redis_mode", "cluster");
    text.field("os", &server.os);
    text.field("arch_bits", usize::BITS);
    text.field("monotonic_clock", "POSIX clock_gettime");
    text.field("multiplexing_api", "epoll");
    // Redis's name for the compiler's own, which these are.
    text.field("atomicvar_api", "c11-builtin");
    // As Redis's that was built by another compiler.
    text.field("gcc_version", "0.0.0");
    text.field("process_id", std::process::id());
    text.field("process_supervised", "no");
    text.field("run_id", &server.run_id);
    text.field("tcp_port", server.port);
    text.field("server_time_usec", server.now.as_ms().saturating_mul(1000));
    text.field("uptime_in_seconds", server.uptime_seconds);
    text.field("uptime_in_days", server.uptime_seconds / 86_400);
    text.field("hz", &server.hz);
    text.field("configured_hz", &server.hz);
    // Redis's clock of 24 bits.
    text.field("lru_clock", (server.now.as_ms() / 1000) & 0xff_ffff);
    text.field("executable", &server.executable);
    text.field("config_file", &server.config_file);
    text.field("io_threads_active", 0);
    for (number, bind) in server.binds.iter().enumerate() {
        text.line(format_args!("listener{number}:name=tcp,bind={bind},port={}", server.port));
    }
}

fn clients(figures: &Figures, text: &mut Text) {
    let clients = &figures.clients;
    text.field("connected_clients", clients.connected);
    text.field("cluster_connections", clients.peer_connections);
    text.field("maxclients", clients.maxclients);
    text.field("client_recent_max_input_buffer", clients.query_bytes_max);
    text.field("client_recent_max_output_buffer", clients.output_bytes_max);
    text.field("blocked_clients", clients.blocked + figures.parked.requests);
    text.fields(CLIENTS_REST);
}

fn memory(figures: &Figures, text: &mut Text) {
    let (used, most) = (figures.used_bytes(), figures.used_bytes_max());
    let resident = figures.process.resident_bytes;
    let dataset = figures.keyspace_bytes();
    text.bytes("used_memory", used);
    text.bytes("used_memory_rss", resident);
    text.bytes("used_memory_peak", most);
    text.line(format_args!("used_memory_peak_perc:{:.2}%", 100.0 * ratio(used, most)));
    text.field("used_memory_overhead", figures.overhead_bytes());
    text.field("used_memory_startup", figures.startup_bytes);
    text.field("used_memory_dataset", dataset);
    let since_start = used.saturating_sub(figures.startup_bytes).max(dataset);
    text.line(format_args!("used_memory_dataset_perc:{:.2}%", 100.0 * ratio(dataset, since_start)));
    text.field("allocator_allocated", used);
    text.field("allocator_active", used);
    text.field("allocator_resident", resident);
    text.bytes("total_system_memory", figures.process.system_memory_bytes);
    text.fields(MEMORY_SCRIPTS);
    text.field("maxmemory", 0);
    text.field("maxmemory_human", "0B");
    text.field("maxmemory_policy", &figures.maxmemory_policy);
    // What the allocator holds free is not known apart from what the program does not use.
    text.fields(&[("allocator_frag_ratio", "1.00"), ("allocator_frag_bytes", "0")]);
    text.field("allocator_rss_ratio", format_args!("{:.2}", ratio(resident, used)));
    text.field("allocator_rss_bytes", resident.saturating_sub(used));
    text.fields(&[("rss_overhead_ratio", "1.00"), ("rss_overhead_bytes", "0")]);
    text.field("mem_fragmentation_ratio", format_args!("{:.2}", ratio(resident, used)));
    text.field("mem_fragmentation_bytes", resident.saturating_sub(used));
    text.fields(MEMORY_REST);
    text.field("mem_clients_normal", figures.clients.bytes);
    text.field("mem_cluster_links", 0);
    // What the log still holds for replicas that are behind.
    text.field("mem_aof_buffer", figures.groups.iter().map(|group| group.log_bytes).sum::<u64>());
    text.field("mem_allocator", "mimalloc");
    text.field("active_defrag_running", 0);
    text.field("lazyfree_pending_objects", 0);
    text.field("lazyfreed_objects", 0);
}

fn persistence(figures: &Figures, text: &mut Text) {
    text.fields(PERSISTENCE_HEAD);
    // There are no dumps; as LASTSAVE, when the process started.
    text.field("rdb_last_save_time", figures.server.started.as_ms() / 1000);
    text.fields(PERSISTENCE_REST);
    // A log that cannot be written for another reason ends the node.
    text.field("aof_last_write_status", if figures.disk_full { "err" } else { "ok" });
}

fn stats(figures: &Figures, text: &mut Text) {
    let stats = &figures.stats;
    text.field("total_connections_received", stats.connections_received);
    text.field("total_commands_processed", stats.commands);
    text.field("instantaneous_ops_per_sec", stats.per_second.commands.round());
    text.field("total_net_input_bytes", stats.read_bytes);
    text.field("total_net_output_bytes", stats.written_bytes);
    text.field("total_reads_processed", stats.reads);
    text.field("total_writes_processed", stats.writes);
    text.field("total_net_repl_input_bytes", stats.peer_read_bytes);
    text.field("total_net_repl_output_bytes", stats.peer_written_bytes);
    text.field("instantaneous_input_kbps", format_args!("{:.2}", stats.per_second.read_bytes / 1024.0));
    text.field("instantaneous_output_kbps", format_args!("{:.2}", stats.per_second.written_bytes / 1024.0));
    text.field("instantaneous_input_repl_kbps", format_args!("{:.2}", stats.per_second.peer_read_bytes / 1024.0));
    text.field("instantaneous_output_repl_kbps", format_args!("{:.2}", stats.per_second.peer_written_bytes / 1024.0));
    text.field("rejected_connections", stats.connections_rejected);
    text.fields(STATS_SYNC);
    text.field("expired_keys", stats.expired_keys);
    text.fields(STATS_EXPIRY);
    text.fields(STATS_EVICTION);
    text.field("keyspace_hits", stats.keyspace_hits);
    text.field("keyspace_misses", stats.keyspace_misses);
    text.fields(STATS_REST);
    text.field("acl_access_denied_auth", stats.denied_auths);
    // There is one user, who may do all.
    text.fields(&[("acl_access_denied_cmd", "0"), ("acl_access_denied_key", "0"), ("acl_access_denied_channel", "0")]);
    text.field("total_error_replies", stats.error_replies);
    text.field("slowlog_entries", stats.slowlog_entries);
}

/// A node may lead some groups and follow in others, which clients cannot express: each is shown as a master without replicas.
fn replication(figures: &Figures, text: &mut Text) {
    text.field("role", "master");
    text.field("connected_slaves", 0);
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", &figures.node);
    text.field("master_replid2", "0".repeat(40));
    text.field("master_repl_offset", figures.replication_offset());
    text.fields(REPLICATION_REST);
}

fn cpu(figures: &Figures, text: &mut Text) {
    let process = &figures.process;
    for (name, seconds) in [
        ("used_cpu_sys", process.cpu_system_seconds),
        ("used_cpu_user", process.cpu_user_seconds),
        ("used_cpu_sys_children", process.children_system_seconds),
        ("used_cpu_user_children", process.children_user_seconds),
        // What Redis does on its main thread all threads do here.
        ("used_cpu_sys_main_thread", process.cpu_system_seconds),
        ("used_cpu_user_main_thread", process.cpu_user_seconds),
    ] {
        text.field(name, format_args!("{seconds:.6}"));
    }
}

fn command_stats(figures: &Figures, text: &mut Text) {
    for (name, counts) in &figures.commands {
        text.line(format_args!(
            "cmdstat_{name}:calls={},usec={},usec_per_call={:.2},rejected_calls={},failed_calls={}",
            counts.calls,
            counts.micros,
            ratio(counts.micros, counts.calls),
            counts.rejected,
            counts.failed,
        ));
    }
}

fn error_stats(figures: &Figures, text: &mut Text) {
    for (word, count) in &figures.errors {
        text.line(format_args!("errorstat_{word}:count={count}"));
    }
}

fn latency_stats(figures: &Figures, text: &mut Text) {
    for (name, counts) in figures.commands.iter().filter(|(_, counts)| counts.calls > 0) {
        let percentiles = figures.latency_percentiles.iter();
        let words = percentiles.map(|percent| format!("p{percent}={}.000", counts.latency.percentile_us(*percent)));
        text.line(format_args!("latency_percentiles_usec_{name}:{}", words.collect::<Vec<_>>().join(",")));
    }
}

/// The keys of the groups that this node leads, so that the cluster's nodes add up; absent when there are none.
fn keyspace(figures: &Figures, text: &mut Text) {
    let keys: u64 = figures.led().map(|group| group.keys).sum();
    let expires: u64 = figures.led().map(|group| group.keys_with_ttl).sum();
    if keys > 0 {
        text.line(format_args!("db0:keys={keys},expires={expires},avg_ttl=0"));
    }
}

fn kvorum(figures: &Figures, text: &mut Text) {
    text.field("node_id", &figures.node);
    text.field("cluster_id", &figures.cluster_id);
    text.field("topology_epoch", figures.epoch);
    text.field("leads_meta_group", u8::from(figures.leads_meta));
    text.field("groups_here", figures.groups.len());
    text.field("groups_led", figures.led().count());
    text.field("parked_requests", figures.parked.requests);
    text.field("parked_bytes", figures.parked.bytes);
    text.field("parked_worst_ms", figures.parked.wait_ms_max);
    for group in &figures.groups {
        let role = if group.leads { "leader" } else { "follower" };
        text.line(format_args!(
            "group_{}:role={role},replica={},term={},applied={},keys={},bytes={},log_bytes={}",
            group.id, group.replica, group.term, group.applied_index, group.keys, group.keyspace_bytes, group.log_bytes,
        ));
    }
}

#[cfg(test)]
#[path = "info_text_tests.rs"]
mod tests;
