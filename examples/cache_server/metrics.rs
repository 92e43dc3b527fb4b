//! What the server counts, in the text form that Prometheus reads.

use axum::http::StatusCode;
use pipeline_cache::PipelineCacheMetrics;
use pipeline_cache::layered::LayeredMetrics;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use crate::http_server::connections::ConnectionMetrics;
use crate::http_server::counters::{Counter, Gauge};
use crate::leases::Leases;
use crate::recent::Recent;
use crate::store_metrics;

/// The parts of the server that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Artifacts,
    Leases,
    Ccache,
    Sccache,
    Other,
}

impl Area {
    pub(crate) const ALL: [Self; 5] = [
        Self::Artifacts,
        Self::Leases,
        Self::Ccache,
        Self::Sccache,
        Self::Other,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Artifacts => "artifacts",
            Self::Leases => "leases",
            Self::Ccache => "ccache",
            Self::Sccache => "sccache",
            Self::Other => "other",
        }
    }
}

/// The methods that are counted apart; anything else is one class, whoever invents it.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "PUT", "POST", "DELETE", "PROPFIND", "MKCOL", "other",
];
const CLASSES: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By area, method and class of status.
    requests: [[[Counter; CLASSES]; METHODS.len()]; Area::ALL.len()],
    pub(crate) bytes_sent: Counter,
    /// Answers whose client left before the end.
    pub(crate) broken_off: Counter,
    pub(crate) rejected_frames: Counter,
    pub(crate) log_lines_lost: Counter,
    pub(crate) requests_under_way: Gauge,
    pub(crate) connections: Arc<ConnectionMetrics>,
    pub(crate) recent: Recent,
}

/// What others know.
pub(crate) struct Elsewhere<'a> {
    pub(crate) leases: &'a Leases,
    pub(crate) disk: PipelineCacheMetrics,
    pub(crate) unsynced: u64,
    pub(crate) ccache_bytes: u64,
    pub(crate) sccache_bytes: u64,
    pub(crate) messages_lost: u64,
    pub(crate) store: Option<LayeredMetrics>,
}

impl Metrics {
    pub(crate) fn count(&self, area: Area, method: &str, status: StatusCode) {
        let method = METHODS.iter().position(|known| *known == method);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.requests[area as usize][method.unwrap_or(METHODS.len() - 1)][class].increment();
    }

    /// Requests of an area whose answer was of this class, such as 2 for 2xx.
    pub(crate) fn answered(&self, area: Area, class: usize) -> u64 {
        let methods = self.requests[area as usize].iter();
        let counters = methods.filter_map(|classes| classes.get(class.checked_sub(1)?));
        counters.map(Counter::get).sum()
    }

    pub(crate) fn text(&self, elsewhere: &Elsewhere<'_>) -> String {
        let mut text = Text::default();
        text.family(
            "requests_total",
            "counter",
            "Requests, by the class of their answer.",
        );
        for (area, methods) in Area::ALL.iter().zip(&self.requests) {
            for (method, classes) in METHODS.iter().zip(methods) {
                for (class, counter) in classes.iter().enumerate() {
                    // What never happened is not worth a line.
                    if counter.get() > 0 {
                        let (area, class) = (area.name(), class + 1);
                        let labels =
                            format!("area=\"{area}\",method=\"{method}\",status=\"{class}xx\"");
                        text.sample("requests_total", &labels, counter.get());
                    }
                }
            }
        }
        let (leases, held) = (&elsewhere.leases.metrics, elsewhere.leases.count());
        text.family(
            "leases_total",
            "counter",
            "Compile leases, by what became of them or of a request for one.",
        );
        for (outcome, counter) in [
            ("granted", &leases.granted),
            ("held", &leases.held),
            ("stored", &leases.stored),
            ("refused", &leases.refused),
            ("released", &leases.released),
            ("expired", &leases.expired),
        ] {
            let labels = format!("outcome=\"{outcome}\"");
            text.sample("leases_total", &labels, counter.get());
        }
        let disk = &elsewhere.disk;
        for (name, kind, help, value) in [
            (
                "sent_bytes_total",
                "counter",
                "Bytes of bodies sent.",
                self.bytes_sent.get(),
            ),
            (
                "broken_off_total",
                "counter",
                "Responses whose client disconnected before the end.",
                self.broken_off.get(),
            ),
            (
                "rejected_frames_total",
                "counter",
                "Uploads refused because they were not a valid frame of the key in their path.",
                self.rejected_frames.get(),
            ),
            (
                "log_lines_lost_total",
                "counter",
                "Access log lines dropped because standard output was too slow.",
                self.log_lines_lost.get(),
            ),
            (
                "messages_lost_total",
                "counter",
                "Log lines dropped because standard error was too slow.",
                elsewhere.messages_lost,
            ),
            (
                "requests_under_way",
                "gauge",
                "Requests being served.",
                self.requests_under_way.get(),
            ),
            ("leases", "gauge", "Compile leases that are held.", held),
            (
                "lease_waits",
                "gauge",
                "Requests that wait for the end of a compile lease.",
                leases.waiting.get(),
            ),
            (
                "connections",
                "gauge",
                "Open connections.",
                self.connections.open.get(),
            ),
            (
                "connections_displaced_total",
                "counter",
                "Idle connections closed to make room for new ones.",
                self.connections.displaced.get(),
            ),
            (
                "tls_handshakes_failed_total",
                "counter",
                "Connections that ended in the handshake of TLS.",
                self.connections.failed_handshakes.get(),
            ),
            (
                "artifact_hits_total",
                "counter",
                "Artifacts found.",
                disk.hits,
            ),
            (
                "artifact_misses_total",
                "counter",
                "Artifacts not found.",
                disk.misses,
            ),
            (
                "artifact_puts_total",
                "counter",
                "Artifacts stored.",
                disk.puts,
            ),
            (
                "artifact_corrupt_total",
                "counter",
                "Entries found corrupt and set aside.",
                disk.corrupt,
            ),
            (
                "artifact_evictions_total",
                "counter",
                "Artifacts removed to make room.",
                disk.evictions,
            ),
            (
                "artifact_bytes",
                "gauge",
                "Bytes of artifacts, estimated; 0 before the first put.",
                disk.cached_bytes,
            ),
            (
                "artifacts",
                "gauge",
                "Artifacts, estimated; 0 before the first put.",
                disk.entries,
            ),
            (
                "artifacts_unsynced",
                "gauge",
                "Artifacts and source aliases stored but not yet durable: a power loss would lose them.",
                elsewhere.unsynced,
            ),
        ] {
            text.family(name, kind, help);
            text.sample(name, "", value);
        }
        text.family("blob_bytes", "gauge", "Bytes of other caches' blobs.");
        text.sample("blob_bytes", "area=\"ccache\"", elsewhere.ccache_bytes);
        text.sample("blob_bytes", "area=\"sccache\"", elsewhere.sccache_bytes);
        if let Some(store) = &elsewhere.store {
            store_metrics::write(&mut text, store);
        }
        text.0
    }
}

#[derive(Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP cache_server_{name} {help}"));
        self.line(format_args!("# TYPE cache_server_{name} {kind}"));
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: u64) {
        if labels.is_empty() {
            self.line(format_args!("cache_server_{name} {value}"));
        } else {
            self.line(format_args!("cache_server_{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: impl Display) {
        // A string takes all that is written to it.
        let _ = writeln!(self.0, "{line}");
    }
}
