//! A small histogram of times. Its percentiles are exact to a quarter of their size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::metrics::Counter;

/// Four buckets for each power of two of nanoseconds, up to 2^42 (73 minutes).
const SUB: u32 = 2;
const BUCKETS: usize = 42 << SUB;

/// The upper bounds, in seconds, of the buckets in which latencies are exported.
///
/// One bucket more counts what took longer than the last of them.
pub const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Box<[Counter]>,
    max_nanos: AtomicU64,
    sum_nanos: AtomicU64,
}

/// How long calls took. In serde, its times are seconds.
///
/// See [`LayeredMetrics`](super::LayeredMetrics) for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LatencySummary {
    /// How many calls were timed.
    pub count: u64,
    /// The median, exact to a quarter of its size.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub p50: Duration,
    /// The 99th percentile, exact to a quarter of its size.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub p99: Duration,
    /// The longest time, exact.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub max: Duration,
    /// The sum of all times, exact.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub sum: Duration,
    /// How many times fell into each of the [`LATENCY_BUCKETS`], and above the last of them; not
    /// cumulative. A time within a quarter of a bound may count above it.
    pub buckets: [u64; LATENCY_BUCKETS.len() + 1],
}

#[cfg(feature = "serde")]
fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Counter::default()).collect(),
            max_nanos: AtomicU64::new(0),
            sum_nanos: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(super) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].increment();
        self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let counts: Vec<u64> = self.buckets.iter().map(Counter::get).collect();
        let count: u64 = counts.iter().sum();
        let max = Duration::from_nanos(self.max_nanos.load(Ordering::Relaxed));
        let percentile = |hundredths: u64| -> Duration {
            // Ranks count from one.
            let rank = count.saturating_mul(hundredths).div_ceil(100).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            let upper = found.map_or(Duration::ZERO, |bucket| {
                Duration::from_nanos(upper_bound(bucket))
            });
            upper.min(max)
        };
        LatencySummary {
            buckets: coarse(&counts),
            count,
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
            p50: percentile(50),
            p99: percentile(99),
            max,
        }
    }
}

/// The same counts in the buckets of an export.
fn coarse(counts: &[u64]) -> [u64; LATENCY_BUCKETS.len() + 1] {
    let mut buckets = [0; LATENCY_BUCKETS.len() + 1];
    for (bucket, count) in counts.iter().enumerate() {
        let seconds = upper_bound(bucket) as f64 * 1e-9;
        buckets[LATENCY_BUCKETS.partition_point(|bound| *bound < seconds)] += count;
    }
    buckets
}

/// The power of two and the two bits that follow the leading one.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1 << SUB);
    let power = nanos.ilog2();
    let sub = (nanos >> (power - SUB)) & ((1 << SUB) - 1);
    let bucket = ((power as usize) << SUB) | sub as usize;
    bucket.min(BUCKETS - 1)
}

/// The largest number of nanoseconds that falls into a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let power = (bucket >> SUB) as u32;
    let sub = (bucket & ((1 << SUB) - 1)) as u64;
    if power < SUB {
        return 1 << SUB;
    }
    let step = 1u64 << (power - SUB);
    (1u64 << power) + (sub + 1) * step - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_a_bucket_that_bounds_it_closely() {
        for power in 0..42u32 {
            for nanos in [1u64 << power, (1 << power) + 1, (2 << power) - 1] {
                let upper = upper_bound(bucket(nanos));
                assert!(upper >= nanos, "{nanos} in a bucket up to {upper}");
                assert!(upper <= (nanos + nanos / 4).max(8), "{nanos} to {upper}");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(), LatencySummary::default());
        for millis in 1..=100 {
            histogram.record(Duration::from_millis(millis));
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 100);
        assert_eq!(summary.max, Duration::from_millis(100));
        assert_eq!(summary.buckets.iter().sum::<u64>(), 100);
        let up_to = |bound: f64| {
            let buckets = LATENCY_BUCKETS.iter().zip(summary.buckets);
            buckets
                .filter(|(le, _)| **le <= bound)
                .map(|(_, count)| count)
                .sum::<u64>()
        };
        assert!((38..=50).contains(&up_to(0.05)), "{:?}", summary.buckets);
        assert_eq!(up_to(0.25), 100);
        let near = |time: Duration, millis: u64| {
            let exact = Duration::from_millis(millis);
            time >= exact && time <= exact + exact / 4
        };
        assert!(near(summary.p50, 50), "{:?}", summary.p50);
        assert!(near(summary.p99, 99), "{:?}", summary.p99);
        assert_eq!(summary.sum, Duration::from_millis(5050));
    }
}
