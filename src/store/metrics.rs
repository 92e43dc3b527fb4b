//! Counters of a tier: a snapshot to read, and the cells it is taken from.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Declares the snapshot once, so that no field can be forgotten in a sum.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// What a tier has done so far, and what it holds now.
        ///
        /// A snapshot: the fields are read one after the other while others count on, so sums
        /// over fields are exact only at rest.
        ///
        /// ```
        /// use pipeline_cache::PipelineCacheMetrics;
        ///
        /// let mut day = PipelineCacheMetrics::default();
        /// day.lookups = 3;
        /// day.hits = 2;
        /// day.misses = 1;
        /// assert_eq!(day.hit_rate_ppm(), 666_666);
        ///
        /// let week = day.saturating_add(&day);
        /// assert_eq!(week.lookups, 6);
        /// for (name, value) in week.fields() {
        ///     println!("{name} {value}");
        /// }
        /// ```
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct PipelineCacheMetrics {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        /// What each field means, in the order of declaration: its documentation.
        #[cfg(feature = "metrics")]
        pub(crate) const FIELD_DESCRIPTIONS: [(&str, &str); [$(stringify!($field)),+].len()] =
            [$((stringify!($field), concat!($($doc),+)),)+];

        impl PipelineCacheMetrics {
            /// The sum, field by field.
            ///
            /// # Errors
            ///
            /// Names the first field whose sum does not fit.
            ///
            /// ```
            /// # use pipeline_cache::PipelineCacheMetrics;
            /// let mut full = PipelineCacheMetrics::default();
            /// full.puts = u64::MAX;
            /// let error = full.checked_add(&full).unwrap_err();
            /// assert_eq!(error.field(), "puts");
            /// ```
            pub fn checked_add(&self, other: &Self) -> Result<Self, PipelineCacheMetricError> {
                Ok(Self {
                    $($field: self.$field.checked_add(other.$field).ok_or(
                        PipelineCacheMetricError {
                            field: stringify!($field),
                            message: "the sum does not fit 64 bits",
                        },
                    )?,)+
                })
            }

            /// The sum, field by field, held at `u64::MAX` where it does not fit.
            #[must_use]
            pub const fn saturating_add(&self, other: &Self) -> Self {
                Self {
                    $($field: self.$field.saturating_add(other.$field),)+
                }
            }

            /// Every field by name, in the order of declaration, for tables and exporters.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }
    };
}

metrics! {
    /// Lookups that were answered: `hits`, `misses` and `errors`.
    lookups,
    /// Lookups that found the artifact.
    hits,
    /// Lookups that found nothing, or something corrupt or refused.
    misses,
    /// Lookups that found something that is not the artifact. Counted as misses too.
    corrupt,
    /// Lookups that found an entry that this tier's settings refuse: it is too large, signed with
    /// another secret, of another version, or its metadata is not as required. Counted as misses too.
    refused,
    /// Entries without a valid tag of an accepted secret. Counted in `corrupt` or `refused` too.
    unauthenticated,
    /// Misses answered from memory: a remembered miss sends no request.
    remembered_misses,
    /// Lookups that failed.
    errors,
    /// Artifacts that were stored.
    puts,
    /// Artifacts that were not stored because they are over a limit, or because another reader may
    /// still use the entry of their key.
    rejected_puts,
    /// Artifacts that could not be stored for another reason.
    put_errors,
    /// Puts that waited for evictions, because the tier was over its bounds.
    throttled_puts,
    /// How long these puts waited, in microseconds, over all of them.
    throttled_micros,
    /// Artifacts that were removed by a caller.
    removes,
    /// Artifacts that were evicted to keep a budget.
    evictions,
    /// Payload bytes of the evicted artifacts.
    evicted_bytes,
    /// Flushes that succeeded.
    flushes,
    /// Flushes that failed.
    flush_errors,
    /// Requests that were made again after one that failed.
    retries,
    /// Times that all kept connections were given up, because one delivered the response to another
    /// request, or the server no longer answered on it.
    connections_replaced,
    /// Lookups that failed at once because the circuit breaker of the reads was open.
    short_circuited,
    /// Times that the circuit breaker of the reads opened.
    breaker_opened,
    /// Times that it closed again.
    breaker_closed,
    /// Circuit breakers of reads that are open now.
    breakers_open,
    /// Puts and removals that failed at once because the circuit breaker of the writes was open.
    short_circuited_writes,
    /// Times that the circuit breaker of the writes opened.
    write_breaker_opened,
    /// Times that it closed again.
    write_breaker_closed,
    /// Circuit breakers of writes that are open now.
    write_breakers_open,
    /// Compiles that waited because another process was compiling the same key.
    awaited_compiles,
    /// Compile leases that expired under their holder, because it was stopped or cut off from the
    /// server.
    expired_leases,
    /// Bytes that the tier holds, where it counts them.
    cached_bytes,
    /// Artifacts that the tier holds, where it counts them.
    entries,
}

impl PipelineCacheMetrics {
    /// Hits per million lookups, rounded down; 0 without lookups, and at most 1,000,000.
    #[must_use]
    pub fn hit_rate_ppm(&self) -> u64 {
        self.try_hit_rate_ppm()
            .unwrap_or(if self.lookups == 0 { 0 } else { PPM })
    }

    /// Hits per million lookups, rounded down.
    ///
    /// # Errors
    ///
    /// Where there were no lookups, and where there are more hits than lookups.
    ///
    /// ```
    /// # use pipeline_cache::PipelineCacheMetrics;
    /// let error = PipelineCacheMetrics::default().try_hit_rate_ppm().unwrap_err();
    /// assert_eq!(error.field(), "lookups");
    /// ```
    pub fn try_hit_rate_ppm(&self) -> Result<u64, PipelineCacheMetricError> {
        if self.lookups == 0 {
            return Err(PipelineCacheMetricError {
                field: "lookups",
                message: "there were no lookups to take a rate of",
            });
        }
        if self.hits > self.lookups {
            return Err(PipelineCacheMetricError {
                field: "hits",
                message: "there are more hits than lookups",
            });
        }
        // At most PPM, so it fits; the product needs the wider type.
        let ppm = u128::from(self.hits) * u128::from(PPM) / u128::from(self.lookups);
        Ok(ppm as u64)
    }
}

/// One million: the unit of rates.
const PPM: u64 = 1_000_000;

impl fmt::Display for PipelineCacheMetrics {
    /// The fields that are not zero, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in self.fields().filter(|(_, value)| *value != 0) {
            write!(f, "{separator}{name} {value}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("nothing yet")?;
        }
        Ok(())
    }
}

/// Metrics that cannot be added or divided, and which field is at fault.
///
/// ```
/// # use pipeline_cache::PipelineCacheMetrics;
/// let mut metrics = PipelineCacheMetrics::default();
/// metrics.lookups = 1;
/// metrics.hits = 2;
/// let error = metrics.try_hit_rate_ppm().unwrap_err();
/// assert_eq!((error.field(), error.message()), ("hits", "there are more hits than lookups"));
/// assert_eq!(error.to_string(), "hits: there are more hits than lookups");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct PipelineCacheMetricError {
    field: &'static str,
    message: &'static str,
}

impl PipelineCacheMetricError {
    /// The name of the field in [`PipelineCacheMetrics`].
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        self.message
    }
}

/// A counter that many threads raise and few read.
///
/// It saturates in practice by never getting there: at a billion a second, 64 bits last 584 years.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes down as well as up.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for what happens on every thread all the time: each thread raises a cell of its own
/// cache line, and only a reader adds them up.
#[derive(Debug, Default)]
pub(crate) struct StripedCounter {
    stripes: [Stripe; STRIPES],
}

/// A power of two.
const STRIPES: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Counter);

impl StripedCounter {
    #[inline]
    pub(crate) fn increment(&self) {
        thread_local! {
            static STRIPE: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
            };
        }
        // A thread that is being torn down has no stripe left; any will do.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.stripes[stripe].0.increment();
    }

    pub(crate) fn get(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0.get()).sum()
    }
}

/// The counters every tier keeps of its calls.
#[derive(Debug, Default)]
pub(crate) struct StoreCounters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) refused: Counter,
    pub(crate) errors: Counter,
    pub(crate) puts: Counter,
    pub(crate) rejected_puts: Counter,
    pub(crate) put_errors: Counter,
    pub(crate) throttled_puts: Counter,
    pub(crate) throttled_micros: Counter,
    pub(crate) removes: Counter,
    pub(crate) evictions: Counter,
    pub(crate) evicted_bytes: Counter,
    pub(crate) flushes: Counter,
    pub(crate) flush_errors: Counter,
    pub(crate) awaited_compiles: Counter,
}

impl StoreCounters {
    /// The snapshot. `lookups` is the sum of its parts, so that it always adds up and costs the
    /// lookup nothing. What the tier holds, the tier fills in.
    pub(crate) fn snapshot(&self) -> PipelineCacheMetrics {
        let hits = self.hits.get();
        let misses = self.misses.get();
        let errors = self.errors.get();
        PipelineCacheMetrics {
            lookups: hits.saturating_add(misses).saturating_add(errors),
            hits,
            misses,
            corrupt: self.corrupt.get(),
            refused: self.refused.get(),
            errors,
            puts: self.puts.get(),
            rejected_puts: self.rejected_puts.get(),
            put_errors: self.put_errors.get(),
            throttled_puts: self.throttled_puts.get(),
            throttled_micros: self.throttled_micros.get(),
            removes: self.removes.get(),
            evictions: self.evictions.get(),
            evicted_bytes: self.evicted_bytes.get(),
            flushes: self.flushes.get(),
            flush_errors: self.flush_errors.get(),
            awaited_compiles: self.awaited_compiles.get(),
            ..PipelineCacheMetrics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_right_at_the_edges() {
        let rate = |hits, lookups| {
            let metrics = PipelineCacheMetrics {
                hits,
                lookups,
                ..Default::default()
            };
            (metrics.hit_rate_ppm(), metrics.try_hit_rate_ppm().ok())
        };
        assert_eq!(rate(0, 0), (0, None));
        assert_eq!(rate(0, 5), (0, Some(0)));
        assert_eq!(rate(1, 3), (333_333, Some(333_333)));
        assert_eq!(rate(u64::MAX, u64::MAX), (PPM, Some(PPM)));
        assert_eq!(rate(2, 1), (PPM, None));
    }

    #[test]
    fn every_field_takes_part_in_sums() {
        let mut ones = PipelineCacheMetrics::default();
        ones = StoreCounters::default().snapshot().saturating_add(&ones);
        for (name, value) in ones.fields() {
            assert_eq!(value, 0, "{name}");
        }
        let full = PipelineCacheMetrics {
            cached_bytes: u64::MAX,
            ..Default::default()
        };
        assert_eq!(full.saturating_add(&full).cached_bytes, u64::MAX);
        assert_eq!(full.checked_add(&full).unwrap_err().field(), "cached_bytes");
    }
}
