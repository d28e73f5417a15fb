//! Counts of latencies in buckets that are at most 1.6 % wide, so that a run of any length takes the same memory.

/// Values below this have a bucket each; above, every power of two has this many buckets.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0, longest: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.longest = self.longest.max(nanoseconds);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// Milliseconds within which this share of the values is; 0 without values.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        });
        found.map_or(0.0, |index| highest(index).min(self.longest) as f64 / 1e6)
    }

    /// As a JSON object.
    pub fn json(&self) -> String {
        format!(
            r#"{{"count":{},"p50":{:.4},"p99":{:.4},"p999":{:.4},"longest":{:.4}}}"#,
            self.total,
            self.percentile_ms(0.5),
            self.percentile_ms(0.99),
            self.percentile_ms(0.999),
            self.longest as f64 / 1e6
        )
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - STEP_BITS;
    (u64::from(shift + 1) * STEPS + ((value >> shift) - STEPS)) as usize
}

/// The highest value that is in this bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let top = u128::from(bucket % STEPS + STEPS + 1) << shift;
    u64::try_from(top - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for value in (0..64).map(|bit| 1u64 << bit).chain([0, 63, 65, 127, 129, 1_000_003, u64::MAX - 1]) {
            let index = bucket(value);
            assert!(highest(index) >= value, "{value}");
            assert!(index == 0 || highest(index - 1) < value, "{value}");
            assert!(highest(index) - value <= value / 32, "{value}");
        }
    }

    #[test]
    fn percentiles_of_a_thousand_values() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.add(ms * 1_000_000));
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = histogram.percentile_ms(share);
            assert!((found - expected).abs() <= expected / 60.0, "{share}: {found}");
        }
        assert_eq!(Histogram::default().percentile_ms(0.99), 0.0);
    }
}
