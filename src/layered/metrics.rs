//! What a layered store has done, tier by tier, as numbers and as a table.

use std::fmt;
use std::time::Duration;

use super::latency::{Histogram, LatencySummary};
use super::lookup::{Lookup, TierOutcome, TierReport};
use super::report::{LayeredPromotionReport, WriteBehindReport};
use super::savings::ScopeMetrics;
use crate::source_alias::AliasMetrics;
use crate::store::PipelineCacheMetrics;
use crate::store::metrics::{Counter, Gauge, StripedCounter};

/// What a layered store has done so far.
///
/// `Display` prints it as a table.
///
/// ```
/// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
/// cache.get(&PipelineFingerprint::from_bytes([1; 32])).await;
/// let metrics = cache.layered_metrics();
/// assert_eq!((metrics.lookups, metrics.misses), (1, 1));
/// assert_eq!(metrics.tiers[0].misses, 1);
/// println!("{metrics}");
/// println!("half of the lookups took {:?} or less", metrics.latency.p50);
/// println!("{} sources were known", metrics.aliases.hits);
/// for scope in &metrics.scopes {
///     println!("{} for {} saved {} ns", scope.compiler, scope.target, scope.saved_nanos);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LayeredMetrics {
    /// Lookups that were answered: hits, misses and degraded misses.
    pub lookups: u64,
    /// Lookups that found the artifact.
    pub hits: u64,
    /// Lookups that found nothing, and in which no tier failed.
    pub misses: u64,
    /// Lookups that found nothing, and in which a tier failed, timed out or held a corrupt entry.
    pub degraded_misses: u64,
    /// Lookups that joined a search under way, and compiles that joined a compile under way.
    pub joins: u64,
    /// Compiles that were started, including those of programs without a key.
    pub compiles: u64,
    /// Compiles that failed, panicked or were given up at their limit.
    pub compile_errors: u64,
    /// Compiles that were not started, because another process stored the artifact meanwhile.
    pub followed: u64,
    /// Compiles that another process may have done as well: a tier failed to grant its compile
    /// lease, or the time to wait for the lease was over.
    pub unshared_compiles: u64,
    /// Places of the compile pool that are taken now.
    pub running_compiles: u64,
    /// Compiles that wait for a place in the pool now.
    pub queued_compiles: u64,
    /// Compiles under way that nobody waits for any more.
    pub abandoned_compiles: u64,
    /// Compiles that ended, and were stored, when nobody waited for them any more.
    pub finished_after_abandonment: u64,
    /// Compiles that were not begun because too many waited.
    pub overloaded: u64,
    /// Compiles that were given up because they did not end within the limit.
    pub timed_out_compiles: u64,
    /// Compile requests that were answered with a remembered failure.
    pub remembered_failures: u64,
    /// How long compiles waited for a place in the pool.
    pub queue_time: LatencySummary,
    /// How long compiles took.
    pub compile_time: LatencySummary,
    /// What compile requests cost and saved, for each of up to 256 scopes.
    pub scopes: Vec<ScopeMetrics>,
    /// What became of sources. Aliases are not counted among lookups, hits, misses and puts, here and in
    /// tiers.
    pub aliases: AliasMetrics,
    /// Hits that were recompiled and compared.
    pub verified: u64,
    /// Of these, those whose artifacts differed.
    pub verify_mismatches: u64,
    /// Puts and compiles whose writes succeeded, or were left to the background.
    pub puts: u64,
    /// Puts and compiles for which a tier that was waited for failed to store the artifact.
    pub put_errors: u64,
    /// The time of searches. A lookup that needs no search takes some dozen nanoseconds and is not
    /// timed.
    pub latency: LatencySummary,
    /// What became of the promotions.
    pub promotions: LayeredPromotionReport,
    /// What became of the writes behind.
    pub write_behind: WriteBehindReport,
    /// What each tier did, in the order of the tiers.
    pub tiers: Vec<TierMetrics>,
}

/// What one tier has answered to layered lookups so far.
///
/// See [`LayeredMetrics`] for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TierMetrics {
    /// The tier's name.
    pub tier: String,
    /// Times it was asked and had the artifact. Hits without a search are counted in `store`.
    pub hits: u64,
    /// Times it was asked and did not have it, or refused it.
    pub misses: u64,
    /// Times it held a corrupt entry.
    pub corrupt: u64,
    /// Times it failed, or was not asked because its circuit breaker was open.
    pub failed: u64,
    /// Times it gave no answer in time.
    pub timed_out: u64,
    /// Times another tier answered first.
    pub cancelled: u64,
    /// Compile leases that it granted.
    pub leases_granted: u64,
    /// Compiles that were not started, because another process held the lease in this tier and stored
    /// the artifact.
    pub leases_followed: u64,
    /// Compiles that were started without its lease, because it did not answer within the network
    /// budget, or another process held the lease for longer than the maximal wait.
    pub leases_timed_out: u64,
    /// The time of its answers.
    pub latency: LatencySummary,
    /// The compile time of the artifacts that compile requests found here, less what their keys and
    /// lookups took, in nanoseconds.
    pub saved_nanos: i64,
    /// What the tier itself counts.
    pub store: PipelineCacheMetrics,
    /// What the stores count in which this tier keeps source aliases. All zero while it keeps none.
    pub aliases: PipelineCacheMetrics,
}

/// What the lookups of a layered store have done.
#[derive(Debug, Default)]
pub(super) struct LookupCounters {
    pub(super) hits: StripedCounter,
    pub(super) misses: Counter,
    pub(super) degraded_misses: Counter,
    pub(super) corrupt: Counter,
    pub(super) joins: Counter,
    pub(super) latency: Histogram,
}

impl LookupCounters {
    /// Counts a lookup for which the tiers were searched.
    pub(super) fn count(&self, lookup: &Lookup) {
        if lookup.artifact().is_some() {
            self.hits.increment();
        } else if lookup.is_degraded() {
            self.degraded_misses.increment();
        } else {
            self.misses.increment();
        }
        let is_corrupt = |tier: &TierReport| matches!(tier.outcome, TierOutcome::Corrupt(_));
        self.corrupt
            .add(lookup.tiers().filter(is_corrupt).count() as u64);
    }
}

/// What the compiles of a layered store have done.
#[derive(Debug, Default)]
pub(super) struct CompileCounters {
    pub(super) joins: Counter,
    pub(super) compiles: Counter,
    pub(super) compile_errors: Counter,
    pub(super) followed: Counter,
    pub(super) unshared_compiles: Counter,
    pub(super) abandoned: Gauge,
    pub(super) finished_after_abandonment: Counter,
    pub(super) overloaded: Counter,
    pub(super) timed_out: Counter,
    pub(super) queue_time: Histogram,
    pub(super) compile_time: Histogram,
}

/// What the writes of a layered store have done.
#[derive(Debug, Default)]
pub(super) struct WriteCounters {
    pub(super) puts: Counter,
    pub(super) put_errors: Counter,
    pub(super) removes: Counter,
    pub(super) flushes: Counter,
    pub(super) flush_errors: Counter,
}

/// What one tier has answered.
#[derive(Debug, Default)]
pub(super) struct TierCounters {
    hits: Counter,
    misses: Counter,
    corrupt: Counter,
    failed: Counter,
    timed_out: Counter,
    cancelled: Counter,
    pub(super) leases_granted: Counter,
    pub(super) leases_followed: Counter,
    pub(super) leases_timed_out: Counter,
    latency: Histogram,
    saved_nanos: Gauge,
}

impl TierCounters {
    pub(super) fn count(&self, report: &TierReport) {
        let counter = match report.outcome {
            TierOutcome::Hit => &self.hits,
            // To the caller, a refused artifact is not there.
            TierOutcome::Miss | TierOutcome::Refused => &self.misses,
            TierOutcome::Corrupt(_) => &self.corrupt,
            TierOutcome::Failed(_) | TierOutcome::BreakerOpen => &self.failed,
            TierOutcome::TimedOut => &self.timed_out,
            TierOutcome::Cancelled => &self.cancelled,
            TierOutcome::Skipped => return,
        };
        counter.increment();
        // How long a cancelled call would have taken is not known.
        if !matches!(report.outcome, TierOutcome::Cancelled) {
            self.latency.record(report.elapsed);
        }
    }

    /// A hit that saved so many nanoseconds.
    pub(super) fn saved(&self, nanos: i64) {
        self.saved_nanos.add(nanos);
    }

    pub(super) fn snapshot(
        &self,
        tier: &str,
        store: PipelineCacheMetrics,
        aliases: PipelineCacheMetrics,
    ) -> TierMetrics {
        TierMetrics {
            tier: tier.to_owned(),
            hits: self.hits.get(),
            misses: self.misses.get(),
            corrupt: self.corrupt.get(),
            failed: self.failed.get(),
            timed_out: self.timed_out.get(),
            cancelled: self.cancelled.get(),
            leases_granted: self.leases_granted.get(),
            leases_followed: self.leases_followed.get(),
            leases_timed_out: self.leases_timed_out.get(),
            latency: self.latency.summary(),
            saved_nanos: self.saved_nanos.get(),
            store,
            aliases,
        }
    }
}

impl fmt::Display for LayeredMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [
            "tier",
            "hits",
            "misses",
            "corrupt",
            "failed",
            "timed out",
            "cancelled",
            "p50",
            "p99",
            "max",
            "entries",
            "bytes",
        ];
        let mut rows = vec![columns.map(str::to_owned)];
        rows.extend(self.tiers.iter().map(tier_row));
        rows.push(self.total_row());
        write_table(f, &rows)?;
        writeln!(
            f,
            "joined {}, compiled {} ({} failed; {} running, {} queued, {} abandoned), verified {} ({} differed), put {} ({} failed)",
            self.joins,
            self.compiles,
            self.compile_errors,
            self.running_compiles,
            self.queued_compiles,
            self.abandoned_compiles,
            self.verified,
            self.verify_mismatches,
            self.puts,
            self.put_errors,
        )?;
        let promotions = &self.promotions;
        write!(
            f,
            "promoted {} of {} ({} coalesced, {} dropped, {} failed, {} pending)",
            promotions.promoted,
            promotions.events,
            promotions.coalesced,
            promotions.dropped,
            promotions.failed,
            promotions.pending,
        )
    }
}

impl LayeredMetrics {
    fn total_row(&self) -> [String; 12] {
        let none = String::new;
        let [p50, p99, max] = latency_cells(&self.latency);
        [
            "all".to_owned(),
            self.hits.to_string(),
            self.misses.to_string(),
            none(),
            self.degraded_misses.to_string(),
            none(),
            none(),
            p50,
            p99,
            max,
            none(),
            none(),
        ]
    }
}

fn tier_row(tier: &TierMetrics) -> [String; 12] {
    // Hits without a search are counted by the tier alone.
    let hits = tier.store.hits.max(tier.hits);
    let [p50, p99, max] = latency_cells(&tier.latency);
    [
        tier.tier.clone(),
        hits.to_string(),
        tier.misses.to_string(),
        tier.corrupt.to_string(),
        tier.failed.to_string(),
        tier.timed_out.to_string(),
        tier.cancelled.to_string(),
        p50,
        p99,
        max,
        tier.store.entries.to_string(),
        tier.store.cached_bytes.to_string(),
    ]
}

fn latency_cells(latency: &LatencySummary) -> [String; 3] {
    [latency.p50, latency.p99, latency.max].map(|time| match latency.count {
        0 => "-".to_owned(),
        _ => format!("{:.1?}", round(time)),
    })
}

/// To whole microseconds above a millisecond.
fn round(time: Duration) -> Duration {
    if time > Duration::from_millis(1) {
        Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    } else {
        time
    }
}

/// Aligns the first column to the left and the others to the right.
fn write_table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in rows {
        write!(f, "{:<width$}", row[0], width = widths[0])?;
        for (cell, width) in row.iter().zip(widths).skip(1) {
            write!(f, "  {cell:>width$}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}
