//! What a node counts and how long things take, for /metrics, INFO, LATENCY and LATENCY HISTOGRAM.
//!
//! * `names`: every metric's name, description and buckets; [`install`] the recorder once, before any handle is made.
//! * `commands`: per-command counters and latencies in arrays, because `metrics` histograms keep each sample until
//!   somebody collects it, which a million requests a second cannot afford.
//! * `handles`: the other subsystems' counters, gauges and histograms, looked up once and kept.
//!
//! Never on a request's path: looking a metric up by name.

mod commands;
mod handles;
mod latency;
mod names;

pub use commands::{CommandCounts, CommandStats, ErrorStats};
pub use handles::{GroupMetrics, LogMetrics, NodeMetrics};
pub use latency::{LatencyCounts, LatencyHistogram};
pub use names::{Rendered, install};
