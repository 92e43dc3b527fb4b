//! What a collector is told of requests.

use super::cache_server::client;
use super::support::{DOUBLE, Server, folder, header};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::sync::{Arc, Mutex};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

type Spans = Arc<Mutex<Vec<Span>>>;

async fn collect(State(spans): State<Spans>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        assert!(
            attributes
                .iter()
                .any(|attribute| attribute.key == "service.name")
        );
        let scopes = resource.scope_spans.into_iter();
        spans
            .lock()
            .unwrap()
            .extend(scopes.flat_map(|scope| scope.spans));
    }
}

/// A collector, and what it has been sent.
async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let routes = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(Arc::clone(&spans));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async { axum::serve(socket, routes).await });
    (url, spans)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_around_its_steps_in_the_trace_of_its_client() {
    let (url, spans) = collector().await;
    let folder = folder();
    let mut server = Server::start(folder.path(), &["--otlp", &url, "--log", "warn"]);
    let request = client().post(format!("{}/compile/spirv", server.url));
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let compiled = request.body(DOUBLE).send().await.unwrap();
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    // One without a trace, and one whose trace makes no sense.
    server.post("spirv", DOUBLE).await;
    let request = client().post(format!("{}/compile/spirv", server.url));
    let request = request.header("traceparent", "00-0-0-zz").body(DOUBLE);
    request.send().await.unwrap();
    server.terminate();
    let (status, said) = tokio::task::spawn_blocking(move || server.wait())
        .await
        .unwrap();
    assert!(status.success(), "{said}");

    let spans = spans.lock().unwrap().clone();
    let (of_client, others): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| hex(&span.trace_id) == TRACE);
    let named = |name: &str| {
        let mut named = of_client.iter().filter(|span| span.name == name);
        let span = named
            .next()
            .unwrap_or_else(|| panic!("no {name} in {of_client:#?}"));
        assert!(named.next().is_none(), "{name} twice");
        *span
    };
    let request = named("request");
    assert_eq!(hex(&request.parent_span_id), CALLER);
    for step in ["parse", "search", "queue", "compile"] {
        let step = named(step);
        assert_eq!(step.parent_span_id, request.span_id, "{}", step.name);
        assert!(step.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(step.end_time_unix_nano <= request.end_time_unix_nano);
    }
    let roots = others.iter().filter(|span| span.name == "request");
    let traces: std::collections::HashSet<_> = roots.map(|span| &span.trace_id).collect();
    assert_eq!(traces.len(), 2);
}

/// The collector is down: the server is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_is_done_without() {
    let folder = folder();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    let mut server = Server::start(folder.path(), &["--otlp", &url]);
    assert!(server.post("spirv", DOUBLE).await.status().is_success());
    server.terminate();
    let (status, said) = tokio::task::spawn_blocking(move || server.wait())
        .await
        .unwrap();
    assert!(status.success(), "{said}");
    assert!(
        said.contains("BatchSpanProcessor"),
        "the log tells it: {said}"
    );
}
