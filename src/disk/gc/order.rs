//! The order of eviction: by the last use alone, or by what an entry saves.

use std::time::{Duration, SystemTime};

/// A time of use is known to within this, so entries that were used less long ago are of one age.
const LEAST_AGE: Duration = Duration::from_secs(60 * 60);

/// The compile time of an artifact whose metadata does not tell it, in nanoseconds a byte of its file:
/// between that of shaders (20) and of native code (400).
const USUAL_NANOS_PER_BYTE: u64 = 100;

/// Which entries of a full [`DiskCache`](crate::DiskCache) are evicted first.
///
/// ```
/// use pipeline_cache::DiskCache;
/// use pipeline_cache::disk::EvictionOrder;
///
/// let settings = DiskCache::builder()
///     .max_bytes(1 << 30)
///     .eviction_order(EvictionOrder::LeastTimeSaved);
/// # let _ = settings;
/// assert_eq!(EvictionOrder::default(), EvictionOrder::LeastRecentlyUsed);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionOrder {
    /// What has not been used for the longest time.
    #[default]
    LeastRecentlyUsed,
    /// What saves the least compile time for its size and age: compile time / (bytes x age). The age is
    /// the time since the last use, plus an hour, since uses are recorded to within an hour. The compile
    /// time is that in the [metadata](crate::ArtifactMetadata::compile_time), which a
    /// [`LayeredPipelineCache`](crate::LayeredPipelineCache) sets; where there is none, 100 ns for each
    /// byte of the file are assumed.
    ///
    /// It pays where artifacts differ much in their compile time per byte: native code and shaders, debug
    /// and release builds. On traces of 23 shaders and 30 WebAssembly modules it saved 1.7 times as much
    /// compile time as the order of last use where all programs are about as popular (Zipf, 0.6), 1.3 times
    /// at 0.9 and 1.1 times at 1.2: it does not know how often an entry was used.
    LeastTimeSaved,
}

/// What a byte of an entry saves, in nanoseconds of compile time a second of its age, times 2^40. Never 0.
pub(in crate::disk) fn worth(
    compile_time: Option<Duration>,
    bytes: u64,
    used: SystemTime,
    now: SystemTime,
) -> u64 {
    let nanos = match compile_time {
        Some(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        None => bytes.saturating_mul(USUAL_NANOS_PER_BYTE),
    };
    let age = now.duration_since(used).unwrap_or_default() + LEAST_AGE;
    let cost = u128::from(bytes.max(1)) * u128::from(age.as_secs());
    let worth = (u128::from(nanos) << 40) / cost;
    u64::try_from(worth).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_the_compile_time_and_shrinks_with_size_and_age() {
        let now = SystemTime::now();
        let worth = |compile: u64, bytes, hours: u64| {
            let used = now - LEAST_AGE * hours as u32;
            worth(Some(Duration::from_millis(compile)), bytes, used, now)
        };
        let one = worth(10, 1000, 0);
        assert!(worth(11, 1000, 0) > one);
        assert!(worth(10, 1100, 0) < one);
        assert!(worth(10, 1000, 1) < one);
        // Twice the size or twice the age take twice the compile time.
        assert_eq!(worth(20, 2000, 0), one);
        assert_eq!(worth(20, 1000, 1), one);
    }

    #[test]
    fn any_numbers_have_one() {
        let now = SystemTime::now();
        for compile in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            for bytes in [0, 1, u64::MAX] {
                for used in [SystemTime::UNIX_EPOCH, now, now + LEAST_AGE] {
                    assert!(worth(compile, bytes, used, now) > 0);
                }
            }
        }
    }
}
