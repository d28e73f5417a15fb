//! Latency events (LATENCY LATEST, HISTORY, RESET): the last 160 spikes of each kind, as Redis's latency monitor keeps them.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use crate::clock::Timestamp;

/// Samples kept per event; Redis's number.
const SAMPLE_COUNT_MAX: usize = 160;

/// What was slow. Closed, so the monitor's memory is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LatencyEvent {
    /// A command's own work.
    Command,
    /// Waiting for a group to commit.
    Commit,
    /// Waiting for a group's leader.
    Parked,
}

impl LatencyEvent {
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Commit => "commit",
            Self::Parked => "parked",
        }
    }

    /// In lower case alone, as in Redis.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        [Self::Command, Self::Commit, Self::Parked].into_iter().find(|event| name == event.name().as_bytes())
    }
}

/// One spike: when (Unix seconds) and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySample {
    pub at_seconds: i64,
    pub ms: u64,
}

#[derive(Debug, Clone, Default)]
pub struct LatencySeries {
    pub samples: VecDeque<LatencySample>,
    pub max_ms: u64,
}

#[derive(Debug, Default)]
pub struct Latency(Mutex<BTreeMap<LatencyEvent, LatencySeries>>);

impl Latency {
    /// Called only for events over the threshold, which are rare by definition.
    pub fn record(&self, event: LatencyEvent, ms: u64) {
        let at_seconds = Timestamp::wall_now().as_ms() / 1000;
        let mut all = self.0.lock();
        let series = all.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        match series.samples.back_mut() {
            // One sample per second, the worst, as Redis does.
            Some(last) if last.at_seconds == at_seconds => last.ms = last.ms.max(ms),
            Some(_) | None => {
                series.samples.push_back(LatencySample { at_seconds, ms });
                if series.samples.len() > SAMPLE_COUNT_MAX {
                    series.samples.pop_front();
                }
            }
        }
    }

    pub fn all(&self) -> BTreeMap<LatencyEvent, LatencySeries> {
        self.0.lock().clone()
    }

    pub fn history(&self, event: LatencyEvent) -> LatencySeries {
        self.0.lock().get(&event).cloned().unwrap_or_default()
    }

    /// How many series were dropped; `None` drops all.
    pub fn reset(&self, event: Option<LatencyEvent>) -> usize {
        let mut all = self.0.lock();
        match event {
            Some(event) => usize::from(all.remove(&event).is_some()),
            None => std::mem::take(&mut *all).len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_within_a_second_are_one_sample_with_the_worst_value() {
        let latency = Latency::default();
        latency.record(LatencyEvent::Commit, 120);
        latency.record(LatencyEvent::Commit, 300);
        latency.record(LatencyEvent::Commit, 150);
        let series = latency.history(LatencyEvent::Commit);
        assert!(series.samples.len() <= 2);
        assert_eq!(series.max_ms, 300);
        assert_eq!(latency.reset(None), 1);
        assert!(latency.all().is_empty());
    }

    #[test]
    fn events_are_found_by_name_in_lower_case_alone() {
        assert_eq!(LatencyEvent::of_name(b"commit"), Some(LatencyEvent::Commit));
        for unknown in [&b"COMMIT"[..], b"fork"] {
            assert_eq!(LatencyEvent::of_name(unknown), None);
        }
    }
}
