//! The page for people at `/status`. It is whole without a script: the script fetches it anew and
//! exchanges its figures, and without one the browser loads it again.

use axum::http::Method;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use pipeline_cache::PipelineCacheMetrics;
use pipeline_cache::layered::LayeredMetrics;
use std::collections::VecDeque;
use std::time::Duration;

use crate::access::{NO_TOKEN, UNKNOWN_TOKEN};
use crate::exposition::Elsewhere;
use crate::http_error::HttpError;
use crate::metrics::{Area, Metrics};
use crate::recent::{KEPT, Past};
use crate::store_metrics;

/// The page loads nothing from elsewhere and may be part of no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Whether a path is one of the page.
pub(crate) fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/status" | "/status.css" | "/status.js")
}

/// A part of the page.
pub(crate) fn answer(
    method: &Method,
    path: &str,
    page: impl FnOnce() -> Markup,
) -> Result<Response, HttpError> {
    if !matches!(method.as_str(), "GET" | "HEAD") {
        return Err(HttpError::MethodNotAllowed("GET, HEAD"));
    }
    Ok(match path {
        "/status.css" => part(
            "text/css",
            "no-cache",
            concat!(
                include_str!("../http_server/page/base.css"),
                include_str!("page/status.css")
            )
            .into(),
        ),
        "/status.js" => {
            let script = include_str!("page/status.js").into();
            part("text/javascript", "no-cache", script)
        }
        _ => part("text/html", "no-store", page().into_string()),
    })
}

fn part(kind: &str, cache_control: &'static str, text: String) -> Response {
    let head = [
        (CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (CACHE_CONTROL, cache_control.to_owned()),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (head, text).into_response()
}

/// The whole page. `maud` escapes whatever clients have sent.
pub(crate) fn page(metrics: &Metrics, elsewhere: &Elsewhere<'_>) -> Markup {
    let kept = metrics.recent.kept();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "cache_server" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="status.css";
                script src="status.js" defer {}
                noscript { meta http-equiv="refresh" content="5"; }
            }
            body {
                header {
                    h1 { "cache_server" }
                    p { span #state role="status" { "Up." } " " span #detail {} }
                    button #pause type="button" aria-pressed="false" hidden { "Pause" }
                }
                main {
                    p #since { "Started " (duration(metrics.recent.began.elapsed())) " ago." }
                    (artifacts(&elsewhere.disk, elsewhere))
                    (load(metrics, elsewhere))
                    @if let Some(store) = &elsewhere.store { (object_store(store)) }
                    (requests_by_area(metrics))
                    (requests("requests", "The last requests", &kept.all))
                    (requests("failures", "The last requests that failed", &kept.failed))
                }
            }
        }
    }
}

fn artifacts(disk: &PipelineCacheMetrics, elsewhere: &Elsewhere<'_>) -> Markup {
    let asked = disk.hits.saturating_add(disk.misses);
    let rate = match asked {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", 100.0 * disk.hits as f64 / asked as f64),
    };
    section(
        "artifacts",
        "Artifacts",
        &[
            ("Hits", disk.hits.to_string()),
            ("Misses", disk.misses.to_string()),
            ("Hit rate of the folder", rate),
            ("Stored", disk.puts.to_string()),
            ("In the folder", disk.entries.to_string()),
            ("On disk", bytes(disk.cached_bytes)),
            ("Evicted", disk.evictions.to_string()),
            ("Corrupt", disk.corrupt.to_string()),
            ("Not yet durable", elsewhere.unsynced.to_string()),
            ("ccache", bytes(elsewhere.ccache_bytes)),
            ("sccache", bytes(elsewhere.sccache_bytes)),
        ],
    )
}

fn load(metrics: &Metrics, elsewhere: &Elsewhere<'_>) -> Markup {
    section(
        "load",
        "Now",
        &[
            ("Connections", metrics.connections.open.get().to_string()),
            ("Requests", metrics.requests_under_way.get().to_string()),
            ("Compile leases", elsewhere.leases.count().to_string()),
            (
                "Waiting for a lease",
                elsewhere.leases.metrics.waiting.get().to_string(),
            ),
        ],
    )
}

fn object_store(store: &LayeredMetrics) -> Markup {
    let Some(tier) = store_metrics::tier(store) else {
        return html! {};
    };
    let state = match (tier.store.breakers_open, tier.store.write_breakers_open) {
        (0, 0) => "in use",
        (_, 0) => "reads fail: not asked",
        (0, _) => "writes fail: nothing is sent",
        _ => "fails: neither asked nor sent to",
    };
    let behind = &store.write_behind;
    section(
        "store",
        "Object store",
        &[
            ("State", state.to_owned()),
            ("Hits", tier.hits.to_string()),
            ("Misses", tier.misses.to_string()),
            ("Failed", (tier.failed + tier.corrupt).to_string()),
            ("Timed out", tier.timed_out.to_string()),
            ("Median", duration(tier.latency.p50)),
            ("Uploaded", tier.store.puts.to_string()),
            ("Uploading", behind.pending.to_string()),
            ("Waiting for the store", behind.waiting.to_string()),
        ],
    )
}

fn section(id: &str, title: &str, figures: &[(&str, String)]) -> Markup {
    let heading = format!("{id}-title");
    html! {
        section aria-labelledby=(heading) {
            h2 id=(heading) { (title) }
            dl id=(id) {
                @for (name, value) in figures {
                    div { dt { (name) } dd { (value) } }
                }
            }
        }
    }
}

fn requests_by_area(metrics: &Metrics) -> Markup {
    html! {
        section aria-labelledby="areas-title" {
            h2 #areas-title { "Requests since the start" }
            div .scroll tabindex="0" role="region" aria-label="Requests by area" {
                table #areas {
                    caption { "By the class of their answer" }
                    thead { tr {
                        th scope="col" { "Area" }
                        @for class in 2..=5 { th scope="col" .number { (class) "xx" } }
                    } }
                    tbody { @for area in Area::ALL { tr {
                        td { (area.name()) }
                        @for class in 2..=5 { td .number { (metrics.answered(area, class)) } }
                    } } }
                }
            }
        }
    }
}

fn requests(id: &str, title: &str, requests: &VecDeque<Past>) -> Markup {
    let heading = format!("{id}-title");
    html! {
        section aria-labelledby=(heading) {
            h2 id=(heading) { (title) }
            div .scroll tabindex="0" role="region" aria-label=(title) {
                table id=(id) {
                    caption { "At most " (KEPT) ", the newest first, without those for this page, /metrics and /healthz" }
                    thead { tr {
                        th scope="col" .number { "Ago" }
                        th scope="col" { "Client" }
                        th scope="col" { "Request" }
                        th scope="col" .number { "Status" }
                        th scope="col" .number { "Sent" }
                        th scope="col" .number { "Time" }
                    } }
                    tbody {
                        @for request in requests { (row(request)) }
                        @if requests.is_empty() { tr { td colspan="6" { "None yet." } } }
                    }
                }
            }
        }
    }
}

fn row(request: &Past) -> Markup {
    html! {
        tr {
            td .number { (duration(request.ended.elapsed())) }
            td { (client(&request.client)) }
            td { (request.method) " " code { (request.path) } }
            td .number .bad[request.failed()] {
                @if request.status != 0 { (request.status) }
                @if request.left { " left" }
            }
            td .number { (bytes(request.sent)) }
            td .number { (duration(request.elapsed)) }
        }
    }
}

/// Who it was, without the signs of the access log. No token has a name of two words.
fn client(name: &str) -> &str {
    match name {
        NO_TOKEN => "no token",
        UNKNOWN_TOKEN => "unknown token",
        name => name,
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(4);
    let unit = UNITS[power as usize - 1];
    format!("{:.1} {unit}", bytes as f64 / 1024_f64.powi(power as i32))
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..120 => format!("{:.0} s", time.as_secs_f64()),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_text_on_the_page() {
        let request = Past {
            ended: std::time::Instant::now(),
            client: "<b>".to_owned(),
            method: "G\"ET".to_owned(),
            path: "/<img src=x onerror=alert(1)>".to_owned(),
            status: 404,
            left: false,
            sent: 0,
            elapsed: Duration::ZERO,
        };
        let written = row(&request).into_string();
        for text in [
            "&lt;b&gt;",
            "G&quot;ET",
            "/&lt;img src=x onerror=alert(1)&gt;",
        ] {
            assert!(written.contains(text), "{written}");
        }
    }

    #[test]
    fn sizes_and_times_are_written_for_people() {
        let sizes = [0, 1023, 1024, 1_572_864, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16777216.0 TiB"]
        );
        let times = [1, 1500, 180_000, 7_300_000, 200_000_000];
        let times = times.map(|millis| duration(Duration::from_millis(millis)));
        assert_eq!(times, ["1.0 ms", "2 s", "3 min", "2 h", "2 days"]);
    }
}
