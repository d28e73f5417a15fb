//! Every metric's name, kind, unit and description, and the recorder that keeps them.
//!
//! A subsystem whose handles are not in `handles` makes its own under a name listed here (`tests/tidy.rs` checks it).
//! Per-command metrics are the exception: `commands` keeps and renders them itself.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Histograms hold samples until they are collected: call [`Rendered::collect`] at least this often.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

pub(super) const CONNECTIONS: &str = "kvorum_connections";
pub(super) const CONNECTIONS_TOTAL: &str = "kvorum_connections_total";
pub(super) const CONNECTIONS_REJECTED: &str = "kvorum_connections_rejected_total";
pub(super) const NET_INPUT_BYTES: &str = "kvorum_net_input_bytes_total";
pub(super) const NET_OUTPUT_BYTES: &str = "kvorum_net_output_bytes_total";
pub(super) const LIMIT_REACHED: &str = "kvorum_limit_reached_total";
pub(super) const UNKNOWN_OUTCOMES: &str = "kvorum_unknown_outcomes_total";
pub(super) const MEMORY_RESIDENT_BYTES: &str = "kvorum_memory_resident_bytes";
pub(super) const MEMORY_KEYSPACE_BYTES: &str = "kvorum_memory_keyspace_bytes";
pub(super) const DISK_FULL: &str = "kvorum_disk_full";
pub(super) const CPU_SECONDS: &str = "kvorum_cpu_seconds";
pub(super) const UPTIME_SECONDS: &str = "kvorum_uptime_seconds";
pub(super) const TOPOLOGY_EPOCH: &str = "kvorum_topology_epoch";
pub(super) const KEYS: &str = "kvorum_keys";
pub(super) const KEYS_WITH_TTL: &str = "kvorum_keys_with_ttl";
pub(super) const KEYS_EXPIRED: &str = "kvorum_keys_expired_total";
pub(super) const GROUP_IS_LEADER: &str = "kvorum_is_leader";
pub(super) const GROUP_TERM: &str = "kvorum_term";
pub(super) const GROUP_APPLIED_INDEX: &str = "kvorum_applied_index";
pub(super) const GROUP_LOG_BYTES: &str = "kvorum_group_log_bytes";
pub(super) const GROUP_LEADER_CHANGES: &str = "kvorum_leader_changes_total";
pub(super) const GROUP_COMMIT_SECONDS: &str = "kvorum_commit_seconds";
pub(super) const GROUP_BATCH_OPS: &str = "kvorum_batch_ops";
pub(super) const GROUP_BATCH_BYTES: &str = "kvorum_batch_bytes";
pub(super) const GROUP_OPS: &str = "kvorum_ops_total";
pub(super) const GROUP_LEASE_MISSES: &str = "kvorum_lease_misses_total";
pub(super) const GROUP_STAMPS_CLAMPED: &str = "kvorum_stamps_clamped_total";
pub(super) const GROUP_SNAPSHOTS: &str = "kvorum_snapshots_total";
pub(super) const PARKED_REQUESTS: &str = "kvorum_parked_requests";
pub(super) const PARKED_REQUESTS_TOTAL: &str = "kvorum_parked_requests_total";
pub(super) const PARKED_SECONDS_MAX: &str = "kvorum_parked_seconds_max";
pub(super) const LOG_FSYNC_SECONDS: &str = "kvorum_log_fsync_seconds";
pub(super) const LOG_WRITE_BYTES: &str = "kvorum_log_write_bytes_total";
pub(super) const LOG_BATCH_RECORDS: &str = "kvorum_log_batch_records";
pub(super) const LOG_SEGMENTS: &str = "kvorum_log_segments";
pub(super) const LOG_BYTES: &str = "kvorum_log_bytes";

const SECONDS: [f64; 16] =
    [25e-6, 50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 5.0];
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
const BYTES: [f64; 9] = [64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

enum Described {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

use Described::{Counter, Gauge, Histogram};

static METRICS: &[(&str, Described, &str)] = &[
    (CONNECTIONS, Gauge, "Client connections now."),
    (CONNECTIONS_TOTAL, Counter, "Client connections accepted."),
    (CONNECTIONS_REJECTED, Counter, "Client connections refused because of maxclients or protected mode."),
    (NET_INPUT_BYTES, Counter, "Bytes received from clients."),
    (NET_OUTPUT_BYTES, Counter, "Bytes sent to clients."),
    (LIMIT_REACHED, Counter, "Times that a named limit was reached, by limit."),
    (UNKNOWN_OUTCOMES, Counter, "Writes whose outcome could not be told; their connections were closed."),
    (MEMORY_RESIDENT_BYTES, Gauge, "Resident memory of the process."),
    (MEMORY_KEYSPACE_BYTES, Gauge, "Memory of keys and values of all groups on this node."),
    (
        DISK_FULL,
        Gauge,
        "1 while this node is short of disk space (see disk-free-min), or has none for a replica that it is to get.",
    ),
    (CPU_SECONDS, Gauge, "User and system time of the process."),
    (UPTIME_SECONDS, Gauge, "Seconds since the process started."),
    (TOPOLOGY_EPOCH, Gauge, "Epoch of the topology this node knows."),
    (KEYS, Gauge, "Keys, by group."),
    (KEYS_WITH_TTL, Gauge, "Keys with a time to live, by group."),
    (KEYS_EXPIRED, Counter, "Keys removed because their time had come, by group."),
    (GROUP_IS_LEADER, Gauge, "1 where this node leads the group."),
    (GROUP_TERM, Gauge, "Raft term of the group as seen here."),
    (GROUP_APPLIED_INDEX, Gauge, "Last log index applied here."),
    (GROUP_LOG_BYTES, Gauge, "Bytes of the group's log that are not purged."),
    (GROUP_LEADER_CHANGES, Counter, "Changes of the group's leader seen here."),
    (GROUP_COMMIT_SECONDS, Histogram(&SECONDS), "Time from proposing an entry to applying it on the leader."),
    (GROUP_BATCH_OPS, Histogram(&COUNTS), "Ops in one entry."),
    (GROUP_BATCH_BYTES, Histogram(&BYTES), "Bytes of one entry."),
    (GROUP_OPS, Counter, "Ops applied."),
    (GROUP_LEASE_MISSES, Counter, "Chunks of reads that needed a round trip because the lease was in doubt."),
    (GROUP_STAMPS_CLAMPED, Counter, "Entries whose stamp was more than a second ahead and was cut back."),
    (GROUP_SNAPSHOTS, Counter, "Snapshots built."),
    (PARKED_REQUESTS, Gauge, "Requests waiting for a leader to be known."),
    (PARKED_REQUESTS_TOTAL, Counter, "Requests that had to wait for a leader to be known."),
    (PARKED_SECONDS_MAX, Gauge, "Longest that a request has waited for a leader since the start."),
    (LOG_FSYNC_SECONDS, Histogram(&SECONDS), "Time of one fdatasync of the write-ahead log."),
    (LOG_WRITE_BYTES, Counter, "Bytes written to the write-ahead log."),
    (LOG_BATCH_RECORDS, Histogram(&COUNTS), "Records in one write of the write-ahead log."),
    (LOG_SEGMENTS, Gauge, "Files of the write-ahead log."),
    (LOG_BYTES, Gauge, "Size of all files of the write-ahead log."),
    ("kvorum_clock_lead_ms", Gauge, "How far the last clamped stamp was ahead of the group's clock."),
    ("kvorum_snapshot_seconds", Histogram(&SECONDS), "Time to build one snapshot."),
    ("kvorum_peer_bytes_sent_total", Counter, "Bytes sent to the peer."),
    ("kvorum_peer_bytes_received_total", Counter, "Bytes received from the peer."),
    ("kvorum_peer_frames_sent_total", Counter, "Frames sent to the peer."),
    ("kvorum_peer_frames_received_total", Counter, "Messages received from the peer."),
    ("kvorum_peer_frames_dropped_total", Counter, "Messages from the peer for a replica that is not here."),
    ("kvorum_peer_connects_total", Counter, "Times that the connection to the peer was made."),
    ("kvorum_peer_queue_full_total", Counter, "Times that the queue to the peer was full."),
    ("kvorum_peer_queue_bytes", Gauge, "Bytes waiting to be sent to the peer."),
];

/// The recorder's reading side.
#[derive(Clone)]
pub struct Rendered {
    handle: PrometheusHandle,
}

/// Installs the process's recorder; later calls return the same one. Handles made before the first call stay silent.
pub fn install() -> Rendered {
    static INSTALLED: OnceLock<Rendered> = OnceLock::new();
    let rendered = INSTALLED.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for (name, kind, _) in METRICS {
            if let Histogram(buckets) = kind {
                let exact = Matcher::Full((*name).to_string());
                builder = builder.set_buckets_for_metric(exact, buckets).expect("no bucket list is empty");
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("this is the only recorder of the process");
        describe_all();
        Rendered { handle }
    });
    rendered.clone()
}

fn describe_all() {
    for (name, kind, description) in METRICS {
        match kind {
            Counter => metrics::describe_counter!(*name, *description),
            Gauge => metrics::describe_gauge!(*name, *description),
            Histogram(_) => metrics::describe_histogram!(*name, *description),
        }
    }
}

impl Rendered {
    pub const COLLECT_INTERVAL: Duration = COLLECT_INTERVAL;

    /// Prometheus text of everything but the per-command metrics.
    pub fn text(&self) -> String {
        self.handle.render()
    }

    /// Moves the samples of histograms into their buckets and frees them. Without it memory grows with every sample.
    pub fn collect(&self) {
        self.handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::GroupMetrics;

    #[test]
    fn names_are_unique_and_have_the_prefix() {
        let mut names: Vec<_> = METRICS.iter().map(|(name, ..)| *name).collect();
        assert!(names.iter().all(|name| name.starts_with("kvorum_")));
        names.sort_unstable();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
    }

    #[test]
    fn a_recorded_sample_is_rendered_with_its_description() {
        let rendered = install();
        let group = GroupMetrics::new(77);
        group.commit_seconds.record(0.0003);
        group.leader_changes.increment(2);
        rendered.collect();
        let text = rendered.text();
        assert!(text.contains("# HELP kvorum_commit_seconds Time from proposing"), "{text}");
        assert!(text.contains("kvorum_commit_seconds_bucket{group=\"77\",le=\"0.0005\"} 1"), "{text}");
        assert!(text.contains("kvorum_leader_changes_total{group=\"77\"} 2"), "{text}");
    }
}
