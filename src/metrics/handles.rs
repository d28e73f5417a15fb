//! The handles of each subsystem: looked up by name once, then a pointer to an atomic. Make them after
//! [`super::install`]; without a recorder, as in unit tests, they do nothing.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names;

/// Clients, memory and time of the node as a whole.
#[derive(Clone)]
pub struct NodeMetrics {
    pub connections: Gauge,
    pub connections_total: Counter,
    pub connections_rejected: Counter,
    pub net_input_bytes: Counter,
    pub net_output_bytes: Counter,
    pub unknown_outcomes: Counter,
    pub memory_resident_bytes: Gauge,
    pub memory_keyspace_bytes: Gauge,
    pub cpu_seconds: Gauge,
    pub uptime_seconds: Gauge,
    pub topology_epoch: Gauge,
    pub parked_requests: Gauge,
    pub parked_requests_total: Counter,
    pub parked_seconds_max: Gauge,
}

/// One group's replica on this node.
#[derive(Clone)]
pub struct GroupMetrics {
    pub is_leader: Gauge,
    pub term: Gauge,
    pub applied_index: Gauge,
    pub log_bytes: Gauge,
    pub leader_changes: Counter,
    pub commit_seconds: Histogram,
    pub batch_ops: Histogram,
    pub batch_bytes: Histogram,
    pub ops: Counter,
    pub lease_misses: Counter,
    pub stamps_clamped: Counter,
    pub snapshots: Counter,
    pub keys: Gauge,
    pub keys_with_ttl: Gauge,
    pub keys_expired: Counter,
}

/// The node's write-ahead log.
#[derive(Clone)]
pub struct LogMetrics {
    pub fsync_seconds: Histogram,
    pub write_bytes: Counter,
    pub batch_records: Histogram,
    pub segments: Gauge,
    pub bytes: Gauge,
}

impl NodeMetrics {
    pub fn new() -> Self {
        Self {
            connections: gauge!(names::CONNECTIONS),
            connections_total: counter!(names::CONNECTIONS_TOTAL),
            connections_rejected: counter!(names::CONNECTIONS_REJECTED),
            net_input_bytes: counter!(names::NET_INPUT_BYTES),
            net_output_bytes: counter!(names::NET_OUTPUT_BYTES),
            unknown_outcomes: counter!(names::UNKNOWN_OUTCOMES),
            memory_resident_bytes: gauge!(names::MEMORY_RESIDENT_BYTES),
            memory_keyspace_bytes: gauge!(names::MEMORY_KEYSPACE_BYTES),
            cpu_seconds: gauge!(names::CPU_SECONDS),
            uptime_seconds: gauge!(names::UPTIME_SECONDS),
            topology_epoch: gauge!(names::TOPOLOGY_EPOCH),
            parked_requests: gauge!(names::PARKED_REQUESTS),
            parked_requests_total: counter!(names::PARKED_REQUESTS_TOTAL),
            parked_seconds_max: gauge!(names::PARKED_SECONDS_MAX),
        }
    }

    pub fn disk_full() -> Gauge {
        gauge!(names::DISK_FULL)
    }

    /// The counter of a named limit ("maxclients", "peer_queue", ..); keep it where the limit is.
    pub fn limit_reached(limit: &'static str) -> Counter {
        counter!(names::LIMIT_REACHED, "limit" => limit)
    }
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl GroupMetrics {
    /// `group` is the group's number.
    pub fn new(group: u32) -> Self {
        let labels = [("group", group.to_string())];
        Self {
            is_leader: gauge!(names::GROUP_IS_LEADER, &labels),
            term: gauge!(names::GROUP_TERM, &labels),
            applied_index: gauge!(names::GROUP_APPLIED_INDEX, &labels),
            log_bytes: gauge!(names::GROUP_LOG_BYTES, &labels),
            leader_changes: counter!(names::GROUP_LEADER_CHANGES, &labels),
            commit_seconds: histogram!(names::GROUP_COMMIT_SECONDS, &labels),
            batch_ops: histogram!(names::GROUP_BATCH_OPS, &labels),
            batch_bytes: histogram!(names::GROUP_BATCH_BYTES, &labels),
            ops: counter!(names::GROUP_OPS, &labels),
            lease_misses: counter!(names::GROUP_LEASE_MISSES, &labels),
            stamps_clamped: counter!(names::GROUP_STAMPS_CLAMPED, &labels),
            snapshots: counter!(names::GROUP_SNAPSHOTS, &labels),
            keys: gauge!(names::KEYS, &labels),
            keys_with_ttl: gauge!(names::KEYS_WITH_TTL, &labels),
            keys_expired: counter!(names::KEYS_EXPIRED, &labels),
        }
    }

    /// The replica is not here any more: sums over a cluster's nodes must not count what it held.
    pub fn end(&self) {
        let Self { is_leader, term, applied_index, log_bytes, keys, keys_with_ttl, .. } = self;
        [is_leader, term, applied_index, log_bytes, keys, keys_with_ttl].iter().for_each(|gauge| gauge.set(0.0));
    }
}

impl LogMetrics {
    pub fn new() -> Self {
        Self {
            fsync_seconds: histogram!(names::LOG_FSYNC_SECONDS),
            write_bytes: counter!(names::LOG_WRITE_BYTES),
            batch_records: histogram!(names::LOG_BATCH_RECORDS),
            segments: gauge!(names::LOG_SEGMENTS),
            bytes: gauge!(names::LOG_BYTES),
        }
    }
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self::new()
    }
}
