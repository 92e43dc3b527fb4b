//! What the server shows of itself to people: `GET /status.json`.
//!
//! All counts are since the start. `history` holds what they were at each of the last minutes, so that
//! a page can draw rates as soon as it is opened.

mod history;
mod recent;
mod times;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipeline_cache::LayeredPipelineCache;
use pipeline_cache::layered::{LATENCY_BUCKETS, LatencySummary, LayeredMetrics, TierMetrics};
use serde::Serialize;

use history::{History, Sample};
use recent::Recent;
pub(crate) use recent::{Answered, Request};
use times::Times;

/// How often what is counted is kept for the history.
pub(crate) const STEP: Duration = Duration::from_secs(5);

/// What is kept of requests and of the past.
#[derive(Debug)]
pub(crate) struct Status {
    started: f64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    recent: Recent,
    /// Of answered compile requests, by where their artifact came from.
    sources: BTreeMap<String, Times>,
    history: History,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            started: now(),
            inner: Mutex::default(),
        }
    }
}

impl Status {
    /// Keeps a request that is over.
    pub(crate) fn keep(&self, request: Request) {
        let mut inner = self.lock();
        if let Some(source) = request.source() {
            match inner.sources.get_mut(source) {
                Some(times) => times.record(request.elapsed()),
                None => {
                    let mut times = Times::default();
                    times.record(request.elapsed());
                    inner.sources.insert(source.to_owned(), times);
                }
            }
        }
        inner.recent.keep(request);
    }

    /// Keeps what is counted now. To be called once in each [`STEP`].
    pub(crate) fn sample(&self, cache: &LayeredPipelineCache) {
        let metrics = cache.layered_metrics();
        let tiers = tiers(cache, &metrics);
        let mut inner = self.lock();
        let sample = Sample::new(now(), &metrics, &tiers, &inner.sources);
        inner.history.keep(sample);
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it as JSON.
    pub(crate) fn json(&self, cache: &LayeredPipelineCache, server: ServerNow) -> Vec<u8> {
        let metrics = cache.layered_metrics();
        let tiers = tiers(cache, &metrics);
        let saved = tiers.iter().map(|tier| tier.saved_seconds).sum();
        let inner = self.lock();
        let document = Document {
            now: now(),
            started: self.started,
            latency_buckets: LATENCY_BUCKETS,
            server,
            compiles: Compiles::of(&metrics),
            saved_seconds: saved,
            tiers,
            sources: &inner.sources,
            history: &inner.history,
            recent: &inner.recent,
        };
        // Strings and numbers alone, which JSON has.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// Times of day are seconds since 1970, and lengths of time are seconds.
#[derive(Serialize)]
struct Document<'a> {
    now: f64,
    started: f64,
    /// The upper bounds, in seconds, of all `buckets`; one more counts what took longer.
    latency_buckets: [f64; LATENCY_BUCKETS.len()],
    server: ServerNow,
    compiles: Compiles,
    /// Compile time of what was found, less what keys and lookups took.
    saved_seconds: f64,
    /// In the order in which they are asked.
    tiers: Vec<Tier>,
    sources: &'a BTreeMap<String, Times>,
    /// The oldest first.
    history: &'a History,
    /// The latest first.
    recent: &'a Recent,
}

/// What the server itself is doing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ServerNow {
    pub(crate) is_stopping: bool,
    pub(crate) requests_under_way: u64,
    pub(crate) connections: u64,
}

#[derive(Debug, Serialize)]
struct Compiles {
    running: u64,
    queued: u64,
    started: u64,
    failed: u64,
    joined: u64,
    timed_out: u64,
    /// Not begun, because too many waited.
    refused: u64,
    queue_time: LatencySummary,
    compile_time: LatencySummary,
}

impl Compiles {
    const fn of(metrics: &LayeredMetrics) -> Self {
        Self {
            running: metrics.running_compiles,
            queued: metrics.queued_compiles,
            started: metrics.compiles,
            failed: metrics.compile_errors,
            joined: metrics.joins,
            timed_out: metrics.timed_out_compiles,
            refused: metrics.overloaded,
            queue_time: metrics.queue_time,
            compile_time: metrics.compile_time,
        }
    }
}

/// What a tier has done. Folders and URLs are nobody's business.
#[derive(Debug, Serialize)]
struct Tier {
    label: String,
    hits: u64,
    misses: u64,
    failed: u64,
    timed_out: u64,
    corrupt: u64,
    /// Of searches: a hit in memory needs none.
    latency: LatencySummary,
    entries: u64,
    bytes: u64,
    saved_seconds: f64,
    /// Whether it is passed by until it answers again.
    breaker_open: bool,
    write_breaker_open: bool,
}

fn tiers(cache: &LayeredPipelineCache, metrics: &LayeredMetrics) -> Vec<Tier> {
    let labelled = cache.tier_labels().zip(&metrics.tiers);
    labelled
        .map(|(label, tier)| Tier::of(label, tier))
        .collect()
}

impl Tier {
    fn of(label: &str, tier: &TierMetrics) -> Self {
        Self {
            label: label.to_owned(),
            // Hits without a search are counted by the tier alone.
            hits: tier.store.hits.max(tier.hits),
            misses: tier.misses,
            failed: tier.failed,
            timed_out: tier.timed_out,
            corrupt: tier.corrupt,
            latency: tier.latency,
            entries: tier.store.entries,
            bytes: tier.store.cached_bytes,
            saved_seconds: tier.saved_nanos as f64 * 1e-9,
            breaker_open: tier.store.breakers_open > 0,
            write_breaker_open: tier.store.write_breakers_open > 0,
        }
    }
}

/// Seconds since 1970, by a clock that may be wrong.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
