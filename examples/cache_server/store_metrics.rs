//! What the server counts of its object store.

use pipeline_cache::layered::{LayeredMetrics, TierMetrics};

use crate::prometheus::Text;

/// The store: the tier below the folder.
pub(crate) fn tier(metrics: &LayeredMetrics) -> Option<&TierMetrics> {
    metrics.tiers.last()
}

pub(crate) fn write(text: &mut Text, metrics: &LayeredMetrics) {
    let Some(tier) = tier(metrics) else { return };
    let (store, behind) = (&tier.store, &metrics.write_behind);
    text.family(
        "store_lookups_total",
        "counter",
        "Lookups in the object store, by how they ended.",
    );
    for (outcome, value) in [
        ("hit", tier.hits),
        ("miss", tier.misses),
        ("corrupt", tier.corrupt),
        ("failed", tier.failed),
        ("timed_out", tier.timed_out),
        ("cancelled", tier.cancelled),
    ] {
        let labels = format!("outcome=\"{outcome}\"");
        text.sample("store_lookups_total", &labels, value);
    }
    text.family(
        "store_breaker_open",
        "gauge",
        "1 while a circuit breaker keeps requests from the object store.",
    );
    for (requests, value) in [
        ("reads", store.breakers_open),
        ("writes", store.write_breakers_open),
    ] {
        let labels = format!("requests=\"{requests}\"");
        text.sample("store_breaker_open", &labels, value);
    }
    for (name, kind, help, value) in [
        (
            "store_puts_total",
            "counter",
            "Artifacts uploaded to the object store.",
            store.puts,
        ),
        (
            "store_put_errors_total",
            "counter",
            "Uploads to the object store that failed. They are tried again.",
            store.put_errors,
        ),
        (
            "store_retries_total",
            "counter",
            "Requests to the object store that were repeated.",
            store.retries,
        ),
        (
            "store_refused_total",
            "counter",
            "Entries of the object store that the settings of this server refuse.",
            store.refused,
        ),
        (
            "store_pending",
            "gauge",
            "Uploads to the object store under way.",
            behind.pending,
        ),
        (
            "store_waiting",
            "gauge",
            "Artifacts in memory that the object store could not take yet.",
            behind.waiting,
        ),
        (
            "store_recovered_total",
            "counter",
            "Artifacts that the object store took when they were offered again.",
            behind.recovered.saturating_add(behind.intents_taken),
        ),
        (
            "store_abandoned_total",
            "counter",
            "Artifacts that are no longer offered to the object store.",
            behind.abandoned.saturating_add(behind.intents_dropped),
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, "", value);
    }
}
