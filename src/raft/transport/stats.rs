//! Counters of one peer: for CLUSTER LINKS and for the metrics endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

use crate::cluster::NodeId;

pub struct PeerStats {
    pub bytes_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    pub frames_sent: AtomicU64,
    pub frames_received: AtomicU64,
    pub connects: AtomicU64,
    exported: Exported,
}

/// Handles are looked up once per peer, so the recorder has to be installed before the transport starts.
struct Exported {
    bytes_sent: Counter,
    bytes_received: Counter,
    frames_sent: Counter,
    frames_received: Counter,
    frames_dropped: Counter,
    connects: Counter,
    queue_full: Counter,
    queue_bytes: Gauge,
}

impl PeerStats {
    pub fn new(peer: NodeId) -> Self {
        let peer = peer.to_string();
        let exported = Exported {
            bytes_sent: counter!("kvorum_peer_bytes_sent_total", "peer" => peer.clone()),
            bytes_received: counter!("kvorum_peer_bytes_received_total", "peer" => peer.clone()),
            frames_sent: counter!("kvorum_peer_frames_sent_total", "peer" => peer.clone()),
            frames_received: counter!("kvorum_peer_frames_received_total", "peer" => peer.clone()),
            frames_dropped: counter!("kvorum_peer_frames_dropped_total", "peer" => peer.clone()),
            connects: counter!("kvorum_peer_connects_total", "peer" => peer.clone()),
            queue_full: counter!("kvorum_peer_queue_full_total", "peer" => peer.clone()),
            queue_bytes: gauge!("kvorum_peer_queue_bytes", "peer" => peer),
        };
        let zero = || AtomicU64::new(0);
        Self {
            bytes_sent: zero(),
            bytes_received: zero(),
            frames_sent: zero(),
            frames_received: zero(),
            connects: zero(),
            exported,
        }
    }

    pub fn sent(&self, bytes: usize, frames: u64) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.frames_sent.fetch_add(frames, Ordering::Relaxed);
        self.exported.bytes_sent.increment(bytes as u64);
        self.exported.frames_sent.increment(frames);
    }

    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.exported.bytes_received.increment(bytes as u64);
    }

    pub fn message_received(&self) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.exported.frames_received.increment(1);
    }

    /// A frame for a replica that is not here.
    pub fn frame_dropped(&self) {
        self.exported.frames_dropped.increment(1);
    }

    pub fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.exported.connects.increment(1);
    }

    pub fn queue_full(&self) {
        self.exported.queue_full.increment(1);
    }

    pub fn set_queue_bytes(&self, bytes: usize) {
        self.exported.queue_bytes.set(bytes as f64);
    }
}
