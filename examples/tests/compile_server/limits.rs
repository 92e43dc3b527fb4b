//! What is answered when there is too much, too late or too little of something.

use super::cache_server::client;
use super::problem::Problem;
use super::shader;
use super::support::{DOUBLE, DOUBLE_RESPELLED, Server, Service, folder, header, narrow, problem};
use super::targets::{Choices, Language, Target};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use pipeline_cache::{CompileError, PipelineFingerprint};
use reqwest::StatusCode;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Another program than `DOUBLE`.
fn triple() -> String {
    DOUBLE.replace("2u", "3u")
}

/// How long an answer says that its compile waited for a place.
fn queued(response: &reqwest::Response) -> f64 {
    let timing = header(response, "server-timing");
    let steps = timing.split(", ");
    let queue = steps.filter_map(|step| step.strip_prefix("queue;dur="));
    queue.map(|millis| millis.parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn a_source_above_the_limit_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--max-source", "1K"]);
    let response = server.post("spirv", " ".repeat(1025)).await;
    problem(response, StatusCode::PAYLOAD_TOO_LARGE).await;
    // One that does not announce its length.
    let parts = futures::stream::iter((0..2).map(|_| Ok::<_, std::io::Error>(vec![b' '; 600])));
    let request = client().post(format!("{}/compile/spirv", server.url));
    let body = reqwest::Body::wrap_stream(parts);
    let response = request.body(body).send().await.unwrap();
    problem(response, StatusCode::PAYLOAD_TOO_LARGE).await;
    let response = server.post("spirv", format!("{DOUBLE:<1024}")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_full_queue_is_told_to_come_again() {
    let service = Service::start(narrow().build()).await;
    let held = service.hold().await;
    let waits = Service::send(service.post("spirv", DOUBLE));
    service.until_queued(1).await;
    let full = service.post("spirv", &triple()).send().await.unwrap();
    assert_eq!(header(&full, "retry-after"), "1");
    let problem = problem(full, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(problem["type"], "urn:problem-type:queue-full");
    drop(held);
    assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
    let again = service.post("spirv", &triple()).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_hit_needs_no_place() {
    let service = Service::start(narrow().build()).await;
    let compiled = service.post("spirv", DOUBLE).send().await.unwrap();
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    let held = service.hold().await;
    // A known spelling, and one that is parsed first.
    for source in [DOUBLE, DOUBLE_RESPELLED] {
        let hit = service.post("spirv", source).send().await.unwrap();
        assert_eq!(header(&hit, "artifact-source"), "memory");
    }
    drop(held);
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_compile() {
    let service = Service::start(narrow().build()).await;
    let held = service.hold().await;
    let request = service.post("hlsl", DOUBLE);
    let late = request.header("compile-deadline-ms", "1").send().await;
    let problem = problem(late.unwrap(), StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(problem["type"], "urn:problem-type:deadline-exceeded");
    assert!(
        problem["detail"].as_str().unwrap().contains("1 ms"),
        "{problem}"
    );
    drop(held);
    let response = service.post("hlsl", DOUBLE).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // That which holds the place, and one of the shader.
    assert_eq!(service.cache.layered_metrics().compiles, 2);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_compile() {
    let service = Service::start(narrow().build()).await;
    let held = service.hold().await;
    let leaves = Service::send(service.post("msl", DOUBLE));
    service.until_queued(1).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    // The server knows, and the compile is still there.
    service
        .until(|cache| cache.layered_metrics().abandoned_compiles == 1)
        .await;
    drop(held);
    service
        .until(|cache| cache.layered_metrics().finished_after_abandonment == 1)
        .await;
    let target = Target::new(Language::Msl, &Choices::default()).unwrap();
    let module = shader::parse(&Bytes::from(DOUBLE), target.capabilities).unwrap();
    let key = PipelineFingerprint::of(&module)
        .unwrap()
        .scoped(&target.scope);
    let kept = service
        .get(&format!("/artifact/{key}"))
        .send()
        .await
        .unwrap();
    assert_eq!(kept.status(), StatusCode::OK);
    assert_eq!(service.cache.layered_metrics().compiles, 2);
}

#[tokio::test]
async fn a_user_who_waits_is_served_before_what_is_in_the_background() {
    let service = Service::start(narrow().build()).await;
    let held = service.hold().await;
    let background = service.post("spirv", DOUBLE);
    let background = Service::send(background.header("compile-priority", "background"));
    service.until_queued(1).await;
    let triple = triple();
    let interactive = service.post("spirv", &triple);
    let interactive = Service::send(interactive.header("compile-priority", "interactive"));
    service.until_queued(2).await;
    drop(held);
    let (background, interactive) = (background.await.unwrap(), interactive.await.unwrap());
    // It came first, and waited until the other was done.
    assert!(queued(&background) > queued(&interactive));
    let unknown = service.post("spirv", DOUBLE);
    let unknown = unknown.header("compile-priority", "urgent").send().await;
    let problem = problem(unknown.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(
        problem["detail"],
        "Compile-Priority: neither interactive nor background"
    );
}

#[test]
fn a_compile_that_is_given_up_is_a_timeout() {
    let given_up = CompileError::TimedOut(Duration::from_secs(60));
    let response = Problem::from(given_up).into_response();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// GLSL spells out the zeros of an array.
#[tokio::test]
async fn an_artifact_above_the_limit_is_refused_before_it_is_made() {
    let service = Service::start(narrow().build()).await;
    let source = "@group(0) @binding(0) var<storage, read_write> out: u32;
        @compute @workgroup_size(1) fn main() {
            var zeros: array<u32, 50000000>;
            out = zeros[out];
        }";
    let refused = service.post("glsl", source).send().await.unwrap();
    let problem = problem(refused, StatusCode::UNPROCESSABLE_ENTITY).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("more than 16 MiB"), "{detail}");
}

/// What is remembered of a failure repeats lines of the source.
#[tokio::test]
async fn what_is_told_of_a_long_line_is_short() {
    let service = Service::start(narrow().build()).await;
    let source = format!("const x = {};", "y".repeat(400_000));
    let refused = service.post("spirv", &source).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let told = refused.bytes().await.unwrap();
    assert!(told.len() < 40_000, "{} bytes", told.len());
}

#[tokio::test]
async fn requests_whose_source_does_not_come_hold_no_place() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--max-requests", "1"]);
    let address = server.url.strip_prefix("http://").unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let head = "POST /compile/spirv HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n";
    silent.write_all(head.as_bytes()).await.unwrap();
    // That one, and the one that asks.
    loop {
        let metrics = server.get("/metrics").await.text().await.unwrap();
        if metrics.contains("compile_server_requests_under_way 2") {
            break;
        }
    }
    let request = client().post(format!("{}/compile/spirv", server.url));
    let answer = request.header("compile-deadline-ms", "20000").body(DOUBLE);
    assert_eq!(answer.send().await.unwrap().status(), StatusCode::OK);
    drop(silent);
}

#[tokio::test]
async fn answers_have_a_length() {
    let service = Service::start(narrow().build()).await;
    let compiled = service.post("spirv", DOUBLE).send().await.unwrap();
    let key = header(&compiled, "artifact-key").to_owned();
    let length = compiled.content_length();
    let code = compiled.bytes().await.unwrap();
    assert_eq!(length, Some(code.len() as u64));
    let known = service.get(&format!("/artifact/{key}")).send().await;
    assert_eq!(
        header(&known.unwrap(), "content-length"),
        code.len().to_string()
    );
}
