//! A histogram of durations in a fixed array of counters. Hot path: one relaxed add per sample, no allocation.
//!
//! Buckets are powers of two of a microsecond, each cut into four equal parts: a percentile is at most 25 % too high.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PARTS: usize = 4;
/// Powers of two up to 2^25 us = 33 s; longer samples count in the last bucket.
const OCTAVES: usize = 26;
/// 0 to 3 us have a bucket each, then four per octave from 4 us.
pub(super) const BUCKET_COUNT: usize = PARTS + (OCTAVES - 2) * PARTS;

#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; BUCKET_COUNT],
}

/// The counters at one moment.
#[derive(Debug, Clone)]
pub struct LatencyCounts {
    buckets: Box<[u64; BUCKET_COUNT]>,
}

/// 0, 1, 2, 3 | 4, 5, 6, 7 | 8, 10, 12, 14 | 16, 20, ..
fn bucket_of(micros: u64) -> usize {
    if micros < PARTS as u64 {
        return micros as usize;
    }
    let octave = 63 - micros.leading_zeros() as usize;
    let part = (micros >> (octave - 2)) as usize - PARTS;
    (PARTS + (octave - 2) * PARTS + part).min(BUCKET_COUNT - 1)
}

/// First microsecond that no longer belongs to the bucket.
fn bucket_end(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < PARTS { next as u64 } else { ((next % PARTS + PARTS) as u64) << (next / PARTS - 1) }
}

impl LatencyHistogram {
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKET_COUNT] }
    }

    pub fn record(&self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// `count` samples of the same duration.
    pub fn record_many(&self, duration: Duration, count: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros)].fetch_add(count, Ordering::Relaxed);
    }

    pub fn counts(&self) -> LatencyCounts {
        let mut counts = LatencyCounts::default();
        self.add_to(&mut counts);
        counts
    }

    pub(super) fn add_to(&self, counts: &mut LatencyCounts) {
        for (sum, bucket) in counts.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }

    pub fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for LatencyCounts {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKET_COUNT]) }
    }
}

impl LatencyCounts {
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Microseconds that `percent` of the samples did not exceed, at most 25 % too high; 0 without samples.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let total = self.total();
        let rank = ((total as f64 * percent / 100.0).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_end(bucket) - 1;
            }
        }
        0
    }

    /// Samples below 1, 2, 4, .. microseconds: `(bound, samples below it)`, rising, to the last octave.
    pub fn cumulative_by_octave(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..OCTAVES).map(|octave| {
            let bound = 1u64 << octave;
            let below = self.buckets.iter().enumerate().filter(|(bucket, _)| bucket_end(*bucket) <= bound);
            (bound, below.map(|(_, count)| count).sum())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_hold_what_they_say() {
        let mut micros = 0;
        for bucket in 0..BUCKET_COUNT {
            assert_eq!(bucket_of(micros), bucket, "start of bucket {bucket}");
            assert_eq!(bucket_of(bucket_end(bucket) - 1), bucket, "end of bucket {bucket}");
            micros = bucket_end(bucket);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
    }

    #[test]
    fn a_percentile_is_at_most_a_quarter_too_high() {
        let histogram = LatencyHistogram::new();
        (1..=10_000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for percent in [1.0, 50.0, 99.0, 99.9, 100.0] {
            let (exact, shown) = (percent * 100.0, histogram.counts().percentile_us(percent) as f64);
            assert!(shown >= exact && shown <= exact * 1.25, "p{percent}: {shown} for {exact}");
        }
    }

    #[test]
    fn an_empty_histogram_has_percentile_zero() {
        assert_eq!(LatencyHistogram::new().counts().percentile_us(99.0), 0);
    }

    #[test]
    fn octaves_cumulate() {
        let histogram = LatencyHistogram::new();
        [0, 1, 3, 4, 100].iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
        let octaves: Vec<_> = histogram.counts().cumulative_by_octave().take(8).collect();
        assert_eq!(octaves, [(1, 1), (2, 2), (4, 3), (8, 4), (16, 4), (32, 4), (64, 4), (128, 5)]);
    }
}
