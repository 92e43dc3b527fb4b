//! The metrics of a layered store, through the `metrics` facade.

use metrics::{counter, gauge};

use super::latency::LatencySummary;
use super::metrics::{LayeredMetrics, TierMetrics};

impl LayeredMetrics {
    /// Passes the numbers to the recorder that is installed for the `metrics` facade: counters as
    /// absolute values, times as gauges in seconds. Call it as often as they are scraped.
    ///
    /// All names begin with `pipeline_cache_`. Those of a tier have the label `tier`.
    ///
    /// ```
    /// # use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
    /// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// cache.layered_metrics().export();
    /// ```
    pub fn export(&self) {
        counter!("pipeline_cache_hits_total").absolute(self.hits);
        counter!("pipeline_cache_misses_total").absolute(self.misses);
        counter!("pipeline_cache_degraded_misses_total").absolute(self.degraded_misses);
        counter!("pipeline_cache_joins_total").absolute(self.joins);
        counter!("pipeline_cache_compiles_total").absolute(self.compiles);
        counter!("pipeline_cache_compile_errors_total").absolute(self.compile_errors);
        counter!("pipeline_cache_followed_total").absolute(self.followed);
        counter!("pipeline_cache_unshared_compiles_total").absolute(self.unshared_compiles);
        counter!("pipeline_cache_verified_total").absolute(self.verified);
        counter!("pipeline_cache_verify_mismatches_total").absolute(self.verify_mismatches);
        counter!("pipeline_cache_puts_total").absolute(self.puts);
        counter!("pipeline_cache_put_errors_total").absolute(self.put_errors);
        let promotions = &self.promotions;
        counter!("pipeline_cache_promotions_total").absolute(promotions.promoted);
        counter!("pipeline_cache_promoted_bytes_total").absolute(promotions.promoted_bytes);
        counter!("pipeline_cache_promotions_dropped_total").absolute(promotions.dropped);
        counter!("pipeline_cache_promotions_failed_total").absolute(promotions.failed);
        gauge!("pipeline_cache_promotions_pending").set(promotions.pending as f64);
        gauge!("pipeline_cache_writes_behind_pending").set(self.write_behind.pending as f64);
        export_latency("all", &self.latency);
        self.tiers.iter().for_each(export_tier);
    }
}

fn export_tier(tier: &TierMetrics) {
    let outcomes = [
        ("hit", tier.hits),
        ("miss", tier.misses),
        ("corrupt", tier.corrupt),
        ("failed", tier.failed),
        ("timed_out", tier.timed_out),
        ("cancelled", tier.cancelled),
    ];
    for (outcome, count) in outcomes {
        counter!(
            "pipeline_cache_tier_answers_total",
            "tier" => tier.tier.clone(),
            "outcome" => outcome
        )
        .absolute(count);
    }
    for (field, value) in tier.store.fields() {
        gauge!(format!("pipeline_cache_tier_{field}"), "tier" => tier.tier.clone())
            .set(value as f64);
    }
    export_latency(&tier.tier, &tier.latency);
}

fn export_latency(tier: &str, latency: &LatencySummary) {
    for (quantile, time) in [
        ("0.5", latency.p50),
        ("0.99", latency.p99),
        ("1", latency.max),
    ] {
        gauge!(
            "pipeline_cache_latency_seconds",
            "tier" => tier.to_owned(),
            "quantile" => quantile
        )
        .set(time.as_secs_f64());
    }
}
