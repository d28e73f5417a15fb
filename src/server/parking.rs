//! Bounds on requests that wait for a group's leader: how many bytes wait on this node, and how long the worst waited.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::Boottime;
use crate::metrics::NodeMetrics;

#[derive(Debug)]
pub struct Parking {
    /// Bytes of requests that may wait at once, all connections together, or of one that waits alone. Beyond it requests get CLUSTERDOWN
    /// at once.
    bytes_max: usize,
    bytes: AtomicUsize,
    requests: AtomicUsize,
    worst_ms: AtomicU64,
}

/// A request that waits; leaving is dropping it.
pub struct Parked<'a> {
    parking: &'a Parking,
    metrics: &'a NodeMetrics,
    bytes: usize,
    since: Boottime,
}

impl Parking {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), requests: AtomicUsize::new(0), worst_ms: AtomicU64::new(0) }
    }

    /// `None` when too much waits already.
    pub fn enter<'a>(&'a self, bytes: usize, metrics: &'a NodeMetrics) -> Option<Parked<'a>> {
        let fits = |held: usize| held.checked_add(bytes).filter(|total| held == 0 || *total <= self.bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        metrics.parked_requests.increment(1.0);
        metrics.parked_requests_total.increment(1);
        Some(Parked { parking: self, metrics, bytes, since: Boottime::now() })
    }

    /// (connections with a parked request, bytes, worst wait in ms), for INFO.
    pub fn figures(&self) -> (usize, usize, u64) {
        let load = |value: &AtomicUsize| value.load(Ordering::Relaxed);
        (load(&self.requests), load(&self.bytes), self.worst_ms.load(Ordering::Relaxed))
    }
}

impl Parked<'_> {
    pub fn waited_ms(&self) -> u64 {
        u64::try_from(Boottime::now().saturating_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let waited_ms = self.waited_ms();
        self.parking.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.parking.requests.fetch_sub(1, Ordering::Relaxed);
        let worst_ms = self.parking.worst_ms.fetch_max(waited_ms, Ordering::Relaxed).max(waited_ms);
        self.metrics.parked_requests.decrement(1.0);
        self.metrics.parked_seconds_max.set(worst_ms as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parking_is_bounded_in_bytes_and_freed_by_leaving() {
        let parking = Parking::new(1000);
        let metrics = NodeMetrics::new();
        let parked = parking.enter(1000, &metrics).expect("fits");
        assert!(parking.enter(1, &metrics).is_none());
        drop(parked);
        assert!(parking.enter(1, &metrics).is_some());
        let large = parking.enter(1_000_000, &metrics).expect("nothing else waits");
        assert!(parking.enter(1, &metrics).is_none());
        drop(large);
        let small = parking.enter(1, &metrics).expect("fits");
        assert!(parking.enter(1000, &metrics).is_none());
        drop(small);
        assert_eq!(parking.figures().0, 0);
    }
}
