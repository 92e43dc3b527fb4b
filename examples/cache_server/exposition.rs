//! What the server counts and what others know, as `/metrics` shows it.

use pipeline_cache::PipelineCacheMetrics;
use pipeline_cache::layered::LayeredMetrics;

use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::prometheus::Text;
use crate::store_metrics;

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

/// All numbers of the server.
pub(crate) fn text(metrics: &Metrics, elsewhere: &Elsewhere<'_>) -> String {
    let mut text = Text::default();
    text.family(
        "requests_total",
        "counter",
        "Requests, by the class of their answer.",
    );
    for (area, method, class, count) in metrics.requests() {
        let area = area.name();
        let labels = format!("area=\"{area}\",method=\"{method}\",status=\"{class}xx\"");
        text.sample("requests_total", &labels, count);
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
            metrics.bytes_sent.get(),
        ),
        (
            "broken_off_total",
            "counter",
            "Responses whose client disconnected before the end.",
            metrics.broken_off.get(),
        ),
        (
            "rejected_frames_total",
            "counter",
            "Uploads refused because they were not a valid frame of the key in their path.",
            metrics.rejected_frames.get(),
        ),
        (
            "log_lines_lost_total",
            "counter",
            "Access log lines dropped because standard output was too slow.",
            metrics.log_lines_lost.get(),
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
            metrics.requests_under_way.get(),
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
            metrics.connections.open.get(),
        ),
        (
            "connections_displaced_total",
            "counter",
            "Idle connections closed to make room for new ones.",
            metrics.connections.displaced.get(),
        ),
        (
            "tls_handshakes_failed_total",
            "counter",
            "Connections that ended in the handshake of TLS.",
            metrics.connections.failed_handshakes.get(),
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
    text.finish()
}
