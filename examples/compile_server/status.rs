//! The page for people at `/`, and the numbers that it draws.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use pipeline_cache::layered::{LatencySummary, TierMetrics};
use serde::Serialize;

use crate::activity::{Past, Recent, WINDOW, Window};
use crate::site::Site;

/// The page loads nothing from elsewhere and may be part of no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What the page draws. For other programs there is `/metrics`: this may change.
#[derive(Serialize)]
struct Status {
    uptime_seconds: f64,
    window_seconds: f64,
    windows: Vec<Window>,
    /// All windows together.
    total: Window,
    running_compiles: u64,
    queued_compiles: u64,
    tiers: Vec<Tier>,
    requests: Vec<Past>,
}

/// What a tier has done. Folders and URLs are nobody's business.
#[derive(Serialize)]
struct Tier {
    label: String,
    hits: u64,
    misses: u64,
    /// Times that it gave no usable answer.
    failed: u64,
    latency: LatencySummary,
    /// Zero where the tier does not count them.
    entries: u64,
    bytes: u64,
    saved_seconds: f64,
    reads_open: bool,
    writes_open: bool,
}

impl Tier {
    fn new(label: &str, tier: &TierMetrics) -> Self {
        Self {
            label: label.to_owned(),
            // Hits without a search are counted by the tier alone.
            hits: tier.store.hits.max(tier.hits),
            misses: tier.misses,
            failed: tier.failed + tier.timed_out + tier.corrupt,
            latency: tier.latency,
            entries: tier.store.entries,
            bytes: tier.store.cached_bytes,
            saved_seconds: tier.saved_nanos as f64 * 1e-9,
            reads_open: tier.store.breakers_open > 0,
            writes_open: tier.store.write_breakers_open > 0,
        }
    }
}

const STYLE: &str = concat!(
    include_str!("../http_server/page/base.css"),
    include_str!("page/page.css")
);

pub(crate) fn router() -> Router<Arc<Site>> {
    let html = "text/html; charset=utf-8";
    let script = "text/javascript; charset=utf-8";
    let style = "text/css; charset=utf-8";
    Router::new()
        .route(
            "/",
            get(async || part(html, include_str!("page/index.html"))),
        )
        .route(
            "/page.js",
            get(async || part(script, include_str!("page/page.js"))),
        )
        .route("/page.css", get(async || part(style, STYLE)))
        .route("/status.json", get(status))
}

fn part(kind: &'static str, text: &'static str) -> Response {
    let head = [
        (CONTENT_TYPE, kind),
        // As the program is, which may be another after the next start.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (head, text).into_response()
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    let Recent {
        windows,
        total,
        requests,
    } = site.activity.recent();
    let metrics = site.cache.layered_metrics();
    let labelled = site.cache.tier_labels().zip(&metrics.tiers);
    let status = Status {
        uptime_seconds: site.began.elapsed().as_secs_f64(),
        window_seconds: WINDOW.as_secs_f64(),
        windows,
        total,
        running_compiles: metrics.running_compiles,
        queued_compiles: metrics.queued_compiles,
        tiers: labelled
            .map(|(label, tier)| Tier::new(label, tier))
            .collect(),
        requests,
    };
    ([(CACHE_CONTROL, "no-store")], Json(status)).into_response()
}
