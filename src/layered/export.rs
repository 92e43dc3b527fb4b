//! The metrics of a layered store, through the `metrics` facade.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::latency::{LATENCY_BUCKETS, LatencySummary};
use super::metrics::{LayeredMetrics, TierMetrics};
use super::savings::ScopeMetrics;
use super::tier::{kind, unique};
use crate::store::metrics::FIELD_DESCRIPTIONS;

/// The fields of a tier's own metrics that go down as well as up.
const GAUGES: [&str; 4] = [
    "breakers_open",
    "cached_bytes",
    "entries",
    "write_breakers_open",
];

/// The fields that are exported of a tier's source aliases.
const ALIAS_FIELDS: [&str; 8] = [
    "cached_bytes",
    "corrupt",
    "entries",
    "errors",
    "hits",
    "misses",
    "put_errors",
    "puts",
];

/// Hands the numbers of one cache to the recorder that is installed for the `metrics` facade. Needs
/// the feature `metrics`.
///
/// All names begin with `pipeline_cache_`. Every number carries the label `cache`, and those of a
/// tier the label `tier`, so that several caches and several tiers of one kind stay apart. Those of
/// compile requests (`pipeline_cache_scope_…`) carry the `compiler` and the `target` of their scope.
/// Counters end in `_total`; times are histograms in seconds: `pipeline_cache_lookup_seconds`,
/// `pipeline_cache_compile_queue_seconds`, `pipeline_cache_compile_seconds` and
/// `pipeline_cache_tier_answer_seconds`. Give the recorder [`LATENCY_BUCKETS`], or another choice
/// of buckets; most make a summary of quantiles without. The sum of a histogram is nearly exact.
///
/// Keep one exporter for each cache, and call [`export`](Self::export) as often as the numbers are
/// scraped. It remembers what it has handed on of the histograms: an exporter that is made anew
/// hands everything on again.
///
/// ```
/// use pipeline_cache::layered::MetricsExporter;
/// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
///
/// let l1 = InMemoryPipelineCache::with_limits(100, 1 << 20);
/// let l2 = InMemoryPipelineCache::new();
/// let cache = LayeredPipelineCache::builder().tier(l1).tier(l2).build();
/// let exporter = MetricsExporter::new("shaders").tier_labels(["l1", "l2"]);
/// exporter.export(&cache.layered_metrics());
/// ```
#[derive(Debug)]
pub struct MetricsExporter {
    cache: String,
    tiers: Vec<String>,
    /// The times that were exported last: of the cache, then of each tier.
    exported: Mutex<Vec<LatencySummary>>,
}

impl MetricsExporter {
    /// An exporter that labels all numbers with this name of the cache. It is to be short, and
    /// different for each cache of the process.
    #[must_use]
    pub fn new(cache: impl Into<String>) -> Self {
        Self {
            cache: cache.into(),
            tiers: Vec::new(),
            exported: Mutex::default(),
        }
    }

    /// Sets the labels of the tiers, in their order. Default: the kind of each tier, as in `memory`
    /// or `disk`.
    ///
    /// Tiers beyond the given ones have the default. Where two tiers come to have one label, the
    /// second is numbered, as in `memory_2`.
    #[must_use]
    pub fn tier_labels<L: Into<String>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        self.tiers = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Hands on what has been counted so far.
    pub fn export(&self, metrics: &LayeredMetrics) {
        describe();
        self.export_counters(metrics);
        self.export_background(metrics);
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        let times = times(metrics);
        exported.resize(times.len() + metrics.tiers.len(), LatencySummary::default());
        let (of_cache, of_tiers) = exported.split_at_mut(times.len());
        for ((name, _, time), exported) in times.into_iter().zip(of_cache) {
            let histogram = histogram!(name, "cache" => self.cache.clone());
            record_new(&histogram, time, exported);
        }
        let labels = self.labels(&metrics.tiers);
        for ((tier, label), exported) in metrics.tiers.iter().zip(labels).zip(of_tiers) {
            self.export_tier(tier, label, exported);
        }
        self.export_scopes(&metrics.scopes);
    }

    /// Scopes that differ in their options alone share their labels, and are added up.
    fn export_scopes(&self, scopes: &[ScopeMetrics]) {
        let labels = |scope: &ScopeMetrics| (scope.compiler.clone(), scope.target.clone());
        let mut sums = BTreeMap::<_, ScopeMetrics>::new();
        for scope in scopes {
            let sum = sums.entry(labels(scope)).or_default();
            sum.requests += scope.requests;
            sum.hits += scope.hits;
            sum.passed_by += scope.passed_by;
            sum.saved_nanos = sum.saved_nanos.saturating_add(scope.saved_nanos);
        }
        for ((compiler, target), scope) in sums {
            let labels = [
                ("cache", self.cache.clone()),
                ("compiler", compiler),
                ("target", target),
            ];
            let saved = scope.saved_nanos as f64 * 1e-9;
            gauge!("pipeline_cache_scope_saved_seconds", &labels).set(saved);
            for (name, _, value) in of_scope(&scope) {
                counter!(name, &labels).absolute(value);
            }
        }
    }

    fn export_counters(&self, metrics: &LayeredMetrics) {
        for (name, _, value) in counters(metrics) {
            counter!(name, "cache" => self.cache.clone()).absolute(value);
        }
    }

    fn export_background(&self, metrics: &LayeredMetrics) {
        for (name, _, value) in gauges(metrics) {
            gauge!(name, "cache" => self.cache.clone()).set(value as f64);
        }
    }

    fn export_tier(&self, tier: &TierMetrics, label: String, exported: &mut LatencySummary) {
        let labels = [("cache", self.cache.clone()), ("tier", label)];
        for (outcome, count) in [
            ("hit", tier.hits),
            ("miss", tier.misses),
            ("corrupt", tier.corrupt),
            ("failed", tier.failed),
            ("timed_out", tier.timed_out),
            ("cancelled", tier.cancelled),
        ] {
            let [cache, tier] = labels.clone();
            let labels = [cache, tier, ("outcome", outcome.to_owned())];
            counter!("pipeline_cache_tier_answers_total", &labels).absolute(count);
        }
        for (outcome, count) in [
            ("granted", tier.leases_granted),
            ("followed", tier.leases_followed),
            ("timed_out", tier.leases_timed_out),
            ("expired", tier.store.expired_leases),
        ] {
            let [cache, tier] = labels.clone();
            let labels = [cache, tier, ("outcome", outcome.to_owned())];
            counter!("pipeline_cache_tier_leases_total", &labels).absolute(count);
        }
        for (field, value) in tier.store.fields() {
            let name = tier_metric(field);
            if GAUGES.contains(&field) {
                gauge!(name, &labels).set(value as f64);
            } else {
                counter!(name, &labels).absolute(value);
            }
        }
        for (field, value) in tier.aliases.fields() {
            match alias_metric(field) {
                Some(name) if GAUGES.contains(&field) => gauge!(name, &labels).set(value as f64),
                Some(name) => counter!(name, &labels).absolute(value),
                None => {}
            }
        }
        let saved = tier.saved_nanos as f64 * 1e-9;
        gauge!("pipeline_cache_tier_saved_seconds", &labels).set(saved);
        let answers = histogram!("pipeline_cache_tier_answer_seconds", &labels);
        record_new(&answers, &tier.latency, exported);
    }

    /// A label for each tier, all different.
    fn labels(&self, tiers: &[TierMetrics]) -> Vec<String> {
        let given = self.tiers.iter().map(String::as_str).map(Some);
        let given = given.chain(std::iter::repeat(None));
        let wanted = tiers
            .iter()
            .zip(given)
            .map(|(tier, given)| given.unwrap_or_else(|| kind(&tier.tier)).to_owned());
        unique(wanted)
    }
}

/// Records what has come since the last export.
fn record_new(into: &metrics::Histogram, now: &LatencySummary, last: &mut LatencySummary) {
    let new: [u64; BUCKETS] =
        std::array::from_fn(|bucket| now.buckets[bucket].saturating_sub(last.buckets[bucket]));
    let sum = now.sum.saturating_sub(last.sum).as_secs_f64();
    for (value, new) in values(&new, sum, now.max.as_secs_f64()).zip(new) {
        if new > 0 {
            into.record_many(value, usize::try_from(new).unwrap_or(usize::MAX));
        }
    }
    *last = *now;
}

const BUCKETS: usize = LATENCY_BUCKETS.len() + 1;

/// A value for each bucket, within its bounds, with which so many times have this sum.
fn values(new: &[u64; BUCKETS], sum: f64, max: f64) -> impl Iterator<Item = f64> {
    let lower = std::iter::once(0.0).chain(LATENCY_BUCKETS);
    let last = LATENCY_BUCKETS[LATENCY_BUCKETS.len() - 1];
    let upper = LATENCY_BUCKETS.into_iter().chain([max.max(last * 1.01)]);
    let bounds: Vec<_> = lower.zip(upper).collect();
    let total = |of: fn(&(f64, f64)) -> f64| -> f64 {
        let each = bounds.iter().zip(new);
        each.map(|(bounds, new)| of(bounds) * *new as f64).sum()
    };
    let (least, most) = (total(|bounds| bounds.0), total(|bounds| bounds.1));
    // Within the bounds, whatever rounding does: a lower bound belongs to the bucket below.
    let share = ((sum - least) / (most - least)).clamp(0.001, 0.999);
    bounds
        .into_iter()
        .map(move |(lower, upper)| lower + share * (upper - lower))
}

/// The name of a field of a tier's own metrics.
fn tier_metric(field: &str) -> String {
    format!("pipeline_cache_tier_{field}{}", ending(field))
}

/// How the name of a counter ends, and that of a gauge does not.
fn ending(field: &str) -> &'static str {
    match GAUGES.contains(&field) {
        true => "",
        false => "_total",
    }
}

/// The name of a field of the metrics of a tier's source aliases, for those that are exported.
fn alias_metric(field: &str) -> Option<String> {
    ALIAS_FIELDS
        .contains(&field)
        .then(|| format!("pipeline_cache_tier_alias_{field}{}", ending(field)))
}

/// The counters of a whole cache, with their descriptions.
fn counters(metrics: &LayeredMetrics) -> [(&'static str, &'static str, u64); 41] {
    let aliases = &metrics.aliases;
    let promotions = &metrics.promotions;
    let behind = &metrics.write_behind;
    [
        (
            "pipeline_cache_hits_total",
            "Lookups that found the artifact.",
            metrics.hits,
        ),
        (
            "pipeline_cache_misses_total",
            "Lookups that found nothing, with every tier sure of it.",
            metrics.misses,
        ),
        (
            "pipeline_cache_degraded_misses_total",
            "Lookups that found nothing while some tier failed.",
            metrics.degraded_misses,
        ),
        (
            "pipeline_cache_joins_total",
            "Lookups and compiles that joined one under way.",
            metrics.joins,
        ),
        (
            "pipeline_cache_compiles_total",
            "Compiles that were started.",
            metrics.compiles,
        ),
        (
            "pipeline_cache_compile_errors_total",
            "Compiles that failed or panicked.",
            metrics.compile_errors,
        ),
        (
            "pipeline_cache_compiles_finished_after_abandonment_total",
            "Compiles that ended and were stored when nobody waited for them.",
            metrics.finished_after_abandonment,
        ),
        (
            "pipeline_cache_compiles_overloaded_total",
            "Compiles that were not begun because too many waited.",
            metrics.overloaded,
        ),
        (
            "pipeline_cache_compiles_timed_out_total",
            "Compiles that were given up at their limit.",
            metrics.timed_out_compiles,
        ),
        (
            "pipeline_cache_remembered_failures_total",
            "Compile requests answered with a remembered failure.",
            metrics.remembered_failures,
        ),
        (
            "pipeline_cache_alias_hits_total",
            "Sources whose spelling was known in memory.",
            aliases.hits,
        ),
        (
            "pipeline_cache_alias_kept_hits_total",
            "Sources whose spelling was known in a store of aliases.",
            aliases.kept_hits,
        ),
        (
            "pipeline_cache_alias_misses_total",
            "Sources that were parsed for their key.",
            aliases.misses,
        ),
        (
            "pipeline_cache_alias_parse_errors_total",
            "Sources that failed to parse.",
            aliases.parse_errors,
        ),
        (
            "pipeline_cache_alias_puts_total",
            "Aliases written to their stores.",
            aliases.puts,
        ),
        (
            "pipeline_cache_alias_put_errors_total",
            "Aliases that a store of them could not take, or that were not written.",
            aliases.put_errors,
        ),
        (
            "pipeline_cache_alias_joins_total",
            "Callers that waited for another with the same source.",
            aliases.joins,
        ),
        (
            "pipeline_cache_followed_total",
            "Compiles that another process made unnecessary.",
            metrics.followed,
        ),
        (
            "pipeline_cache_unshared_compiles_total",
            "Compiles that another process may have done as well.",
            metrics.unshared_compiles,
        ),
        (
            "pipeline_cache_verified_total",
            "Hits that were compiled again and compared.",
            metrics.verified,
        ),
        (
            "pipeline_cache_verify_mismatches_total",
            "Hits that differed when compiled again.",
            metrics.verify_mismatches,
        ),
        (
            "pipeline_cache_puts_total",
            "Puts that succeeded.",
            metrics.puts,
        ),
        (
            "pipeline_cache_put_errors_total",
            "Puts that some tier failed to take.",
            metrics.put_errors,
        ),
        (
            "pipeline_cache_promotions_total",
            "Promotions to faster tiers that succeeded.",
            promotions.promoted,
        ),
        (
            "pipeline_cache_promoted_bytes_total",
            "Payload bytes written by promotions.",
            promotions.promoted_bytes,
        ),
        (
            "pipeline_cache_promotions_coalesced_total",
            "Promotions left to a write of the same key under way.",
            promotions.coalesced,
        ),
        (
            "pipeline_cache_promotions_dropped_total",
            "Promotions given up: a bound was reached, the key was removed, or the cache closed.",
            promotions.dropped,
        ),
        (
            "pipeline_cache_promotions_failed_total",
            "Promotions that some tier failed to take.",
            promotions.failed,
        ),
        (
            "pipeline_cache_writes_behind_accepted_total",
            "Writes left to the background.",
            behind.accepted,
        ),
        (
            "pipeline_cache_writes_behind_written_total",
            "Writes in the background that succeeded.",
            behind.written,
        ),
        (
            "pipeline_cache_writes_behind_dropped_total",
            "Writes in the background given up: the key was removed, the cache closed, or the runtime ended.",
            behind.dropped,
        ),
        (
            "pipeline_cache_writes_behind_lost_total",
            "Writes in the background that were lost with their runtime.",
            behind.lost,
        ),
        (
            "pipeline_cache_writes_behind_failed_total",
            "Writes in the background that some tier failed to take.",
            behind.failed,
        ),
        (
            "pipeline_cache_writes_behind_coalesced_total",
            "Writes left to one of the same key under way.",
            behind.coalesced,
        ),
        (
            "pipeline_cache_writes_behind_awaited_total",
            "Puts that found the background full and waited for their tiers.",
            behind.awaited,
        ),
        (
            "pipeline_cache_writes_behind_recovered_total",
            "Artifacts that a tier took when they were offered again.",
            behind.recovered,
        ),
        (
            "pipeline_cache_writes_behind_abandoned_total",
            "Artifacts that were kept for a tier and are lost to it.",
            behind.abandoned,
        ),
        (
            "pipeline_cache_write_intents_kept_total",
            "Writes to a network tier that were recorded in a local one, because they were not done soon.",
            behind.intents_kept,
        ),
        (
            "pipeline_cache_write_intents_taken_total",
            "Artifacts that a network tier took because of a recorded write.",
            behind.intents_taken,
        ),
        (
            "pipeline_cache_write_intents_dropped_total",
            "Recorded writes that were dropped: too many, too old, the artifact gone, or refused for good.",
            behind.intents_dropped,
        ),
        (
            "pipeline_cache_write_intents_failed_total",
            "Times that a write could not be recorded.",
            behind.intents_failed,
        ),
    ]
}

/// The gauges of a whole cache, with their descriptions.
fn gauges(metrics: &LayeredMetrics) -> [(&'static str, &'static str, u64); 7] {
    [
        (
            "pipeline_cache_compiles_running",
            "Places of the compile pool that are taken.",
            metrics.running_compiles,
        ),
        (
            "pipeline_cache_compiles_queued",
            "Compiles that wait for a place in the pool.",
            metrics.queued_compiles,
        ),
        (
            "pipeline_cache_compiles_abandoned",
            "Compiles under way that nobody waits for.",
            metrics.abandoned_compiles,
        ),
        (
            "pipeline_cache_alias_entries",
            "Sources whose spelling is known in memory.",
            metrics.aliases.entries,
        ),
        (
            "pipeline_cache_promotions_pending",
            "Promotions under way.",
            metrics.promotions.pending,
        ),
        (
            "pipeline_cache_writes_behind_pending",
            "Writes in the background under way.",
            metrics.write_behind.pending,
        ),
        (
            "pipeline_cache_writes_behind_waiting",
            "Artifacts that a tier could not take, kept to be offered again.",
            metrics.write_behind.waiting,
        ),
    ]
}

/// The counters of a scope, with their descriptions.
fn of_scope(scope: &ScopeMetrics) -> [(&'static str, &'static str, u64); 3] {
    [
        (
            "pipeline_cache_scope_requests_total",
            "Compile requests of a scope that were hits with a known compile time, or compiled.",
            scope.requests,
        ),
        (
            "pipeline_cache_scope_hits_total",
            "Compile requests of a scope that were hits with a known compile time.",
            scope.hits,
        ),
        (
            "pipeline_cache_scope_passed_by_total",
            "Compile requests of a scope that passed the cache by.",
            scope.passed_by,
        ),
    ]
}

/// The times of a whole cache, with their descriptions.
fn times(metrics: &LayeredMetrics) -> [(&'static str, &'static str, &LatencySummary); 3] {
    [
        (
            "pipeline_cache_lookup_seconds",
            "The time of lookups for which tiers were asked.",
            &metrics.latency,
        ),
        (
            "pipeline_cache_compile_queue_seconds",
            "The time that compiles waited for a place in the pool.",
            &metrics.queue_time,
        ),
        (
            "pipeline_cache_compile_seconds",
            "The time of compiles.",
            &metrics.compile_time,
        ),
    ]
}

/// Tells the recorder what each number means. Recorders keep the first description of a name.
fn describe() {
    let none = LayeredMetrics::default();
    for (name, description, _) in counters(&none) {
        describe_counter!(name, description);
    }
    for (name, description, _) in gauges(&none) {
        describe_gauge!(name, description);
    }
    describe_counter!(
        "pipeline_cache_tier_answers_total",
        "Answers of a tier to lookups, by outcome."
    );
    describe_counter!(
        "pipeline_cache_tier_leases_total",
        "Compile leases of a tier, by outcome: granted, followed (another process stored the artifact), timed out, expired under their holder."
    );
    for (field, description) in FIELD_DESCRIPTIONS {
        let description = description.trim();
        let of_aliases = alias_metric(field).map(|name| (name, format!("Aliases: {description}")));
        let of_tier = (tier_metric(field), description.to_owned());
        for (name, description) in std::iter::once(of_tier).chain(of_aliases) {
            if GAUGES.contains(&field) {
                describe_gauge!(name, description);
            } else {
                describe_counter!(name, description);
            }
        }
    }
    for (name, description, _) in times(&none) {
        describe_histogram!(name, Unit::Seconds, description);
    }
    for (name, description, _) in of_scope(&ScopeMetrics::default()) {
        describe_counter!(name, description);
    }
    describe_gauge!(
        "pipeline_cache_scope_saved_seconds",
        "The compile time of the hits of a scope, less the time of the hashes, keys and lookups of all its requests. Negative where the cache costs more than it saves."
    );
    describe_gauge!(
        "pipeline_cache_tier_saved_seconds",
        "The compile time of the artifacts that compile requests found in a tier, less the time of their keys and lookups."
    );
    describe_histogram!(
        "pipeline_cache_tier_answer_seconds",
        Unit::Seconds,
        "The time of a tier's answers to lookups."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_histogram_are_in_their_buckets_and_have_its_sum() {
        // 40 times of 19 us, 5 of 0.7 ms, one of 30 s.
        let mut new = [0; BUCKETS];
        (new[0], new[3], new[BUCKETS - 1]) = (40, 5, 1);
        for (new, sum, max) in [(new, 30.004_26, 30.0), ([1; BUCKETS], 25.0, 12.0)] {
            let values: Vec<_> = values(&new, sum, max).collect();
            let exported: f64 = values.iter().zip(new).map(|(v, n)| v * n as f64).sum();
            assert!((exported - sum).abs() < sum / 8.0, "{exported} for {sum}");
            for (bucket, value) in values.iter().enumerate() {
                let found = LATENCY_BUCKETS.partition_point(|bound| bound < value);
                assert_eq!(found, bucket, "{value}");
            }
        }
    }

    use crate::store::PipelineCacheMetrics;

    #[test]
    fn every_gauge_and_every_description_is_of_a_field() {
        let fields = PipelineCacheMetrics::default()
            .fields()
            .map(|(name, _)| name);
        let fields: Vec<_> = fields.collect();
        assert!(GAUGES.iter().all(|gauge| fields.contains(gauge)));
        assert!(ALIAS_FIELDS.iter().all(|field| fields.contains(field)));
        let described: Vec<_> = FIELD_DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(described, fields);
        assert!(
            FIELD_DESCRIPTIONS
                .iter()
                .all(|(_, text)| !text.trim().is_empty())
        );
    }

    #[test]
    fn the_kind_of_a_tier_is_short() {
        for (tier, expected) in [
            ("memory", "memory"),
            ("disk(/var/cache/team)", "disk"),
            ("https://user@host/artifacts", "https"),
            ("/var/cache", "var"),
            ("", "tier"),
        ] {
            assert_eq!(kind(tier), expected, "{tier}");
        }
    }
}
