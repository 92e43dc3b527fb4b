//! Starting, stopping, sharing and watching a server.

use super::cache_server::CacheServer;
use super::prometheus;
use super::support::{DOUBLE, Server, folder, header, problem};
use reqwest::StatusCode;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn servers_on_one_remote_share_what_they_compile() {
    let remote = CacheServer::start(&[]);
    share(&remote.url("/artifacts"), &[], "remote").await;
}

/// What one server compiles another finds in the remote, also by its spelling.
pub(crate) async fn share(remote: &str, variables: &[(&str, &str)], label: &str) {
    let first = folder();
    let arguments = ["--remote", remote];
    let mut one = Server::start_with(first.path(), &arguments, variables);
    let compiled = one.post("spirv", DOUBLE).await;
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    one.terminate();
    let (status, said) = one.wait();
    assert!(status.success(), "{said}");

    let code = compiled.bytes().await.unwrap();
    for _ in 0..20 {
        let second = folder();
        let other = Server::start_with(second.path(), &arguments, variables);
        let shared = other.post("spirv", DOUBLE).await;
        let source = header(&shared, "artifact-source").to_owned();
        let timing = header(&shared, "server-timing").to_owned();
        assert_eq!(shared.bytes().await.unwrap(), code);
        if source == label && !timing.contains("parse") {
            return;
        }
        // Beside a busy machine the parse or the compile may win against the remote.
        assert!(source == label || source == "compiled", "{source}");
    }
    panic!("neither the artifact nor its spelling came from the remote");
}

/// Waits until this many entries are in a folder.
async fn entries(folder: &Path, count: usize) {
    loop {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let entries = files.filter(|file| file.path().extension() == Some("bin".as_ref()));
        if entries.count() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_on_a_new_machine_starts_with_what_another_has_recorded() {
    let remote = CacheServer::start(&[]);
    let (runs, first, second) = (folder(), folder(), folder());
    let run = runs.path().join("server.run");
    let run = run.to_str().unwrap();
    let remote = remote.url("/artifacts");
    let arguments = ["--remote", &remote, "--record", run, "--prefetch", run];
    // There is no run yet.
    let mut one = Server::start(first.path(), &arguments);
    let compiled = one.post("spirv", DOUBLE).await;
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    one.terminate();
    let (status, said) = one.wait();
    assert!(
        status.success() && said.contains("no recorded run"),
        "{said}"
    );

    let mut other = Server::start(second.path(), &arguments);
    entries(second.path(), 1).await;
    entries(&second.path().join("aliases"), 1).await;
    let known = other.post("spirv", DOUBLE).await;
    assert_eq!(header(&known, "artifact-source"), "disk");
    assert!(!header(&known, "server-timing").contains("parse"));
    other.terminate();
    let (status, said) = other.wait();
    assert!(
        status.success() && said.contains("prefetch complete: 2 of 2"),
        "{said}"
    );
}

#[tokio::test]
async fn a_restarted_server_knows_what_it_knew() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]);
    let compiled = server.post("glsl", DOUBLE).await;
    server.terminate();
    assert!(server.wait().0.success());
    let server = Server::start(folder.path(), &[]);
    let again = server.post("glsl", DOUBLE).await;
    assert_eq!(header(&again, "artifact-source"), "disk");
    assert!(!header(&again, "server-timing").contains("parse"));
    assert_eq!(
        again.bytes().await.unwrap(),
        compiled.bytes().await.unwrap()
    );
}

/// The request is under way, because its source has not come whole.
#[tokio::test]
async fn a_request_under_way_is_finished_before_the_server_stops() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]);
    let address = server.url.strip_prefix("http://").unwrap();
    let mut request = TcpStream::connect(address).await.unwrap();
    let length = DOUBLE.len();
    let head = format!(
        "POST /compile/msl HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    request.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    request.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.terminate();
    server.read_to("stopping");
    request.write_all(DOUBLE.as_bytes()).await.unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (status, said) = server.wait();
    assert!(status.success(), "{said}");
    // The line of the request, with what its span has come to know.
    assert!(
        said.contains("source=\"compiled\"") && said.contains("status=200"),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_that_is_to_stop_is_not_ready_and_serves_on() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["--linger", "600"]);
    assert_eq!(server.get("/readyz").await.status(), StatusCode::OK);
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    server.terminate();
    server.read_to("stopping");
    while server.get("/readyz").await.status() == StatusCode::OK {}
    problem(server.get("/readyz").await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(server.post("spirv", DOUBLE).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_status_tells_tiers_compiles_and_the_last_requests() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let compiled = server.post("spirv", DOUBLE).await;
    let key = header(&compiled, "artifact-key").to_owned();
    // Each is over before the next begins.
    compiled.bytes().await.unwrap();
    server.status_with_recent(1).await;
    let hit = server.post("spirv", DOUBLE).await;
    hit.bytes().await.unwrap();
    server.status_with_recent(2).await;
    server.post("msl", "no shader").await.bytes().await.unwrap();
    server.get(&format!("/artifact/{key}")).await;
    let response = server.get("/status.json").await;
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-store");
    let status = server.status_with_recent(3).await;
    let text = status.to_string();
    assert!(!text.contains(folder.path().to_str().unwrap()), "{text}");
    let tiers = status["tiers"].as_array().unwrap();
    let labels: Vec<_> = tiers.iter().map(|tier| &tier["label"]).collect();
    assert_eq!(labels, ["memory", "disk"]);
    assert_eq!(tiers[0]["hits"], 2);
    assert_eq!(tiers[1]["reads_open"], false);
    assert_eq!(status["running_compiles"], 0);
    let requests = status["requests"].as_array().unwrap();
    let lines = requests.iter().map(|request| {
        let text = |name: &str| request[name].as_str().unwrap_or("-").to_owned();
        let [target, source] = ["target", "source"].map(text);
        format!("{target} {source} {}", request["status"])
    });
    let expected = ["msl - 422", "spirv memory 200", "spirv compiled 200"];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    assert_eq!(requests[1]["key"], key[..16]);
    let timing = requests[2]["timing"].as_str().unwrap();
    assert!(timing.contains("compile;dur="), "{timing}");
    // What a client calls a target is not shown to others.
    for number in 0..60 {
        server.post(&format!("x{number}"), DOUBLE).await;
    }
    let status = server.status_with_recent(50).await;
    let requests = status["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 50);
    assert!(
        requests[..40]
            .iter()
            .all(|request| request["target"] == "unknown")
    );
}

#[tokio::test]
async fn a_client_of_prometheus_reads_the_metrics() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    server.post("spirv", DOUBLE).await;
    let text = server.get("/metrics").await.text().await.unwrap();
    let Some(lines) = prometheus::parse(&text) else {
        return;
    };
    for sample in [
        "sample compile_server_requests_total path=compile,status=200 1.0",
        "sample compile_server_artifacts_total source=compiled 1.0",
        "sample pipeline_cache_compiles_total cache=shaders 1.0",
    ] {
        assert!(lines.iter().any(|line| line == sample), "{sample}: {text}");
    }
    for family in lines.iter().filter(|line| line.starts_with("family ")) {
        assert!(family.ends_with(" True"), "{family} has no description");
    }
}

/// A remote that accepts connections and never answers.
#[tokio::test]
async fn a_remote_that_hangs_costs_little_and_once() {
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = remote.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(connection) = remote.accept().await {
            kept.push(connection);
        }
    });
    is_served_without(&format!("http://{address}/artifacts")).await;
    accepted.abort();
}

#[tokio::test]
async fn a_remote_that_is_down_is_done_without() {
    let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = remote.local_addr().unwrap();
    drop(remote);
    is_served_without(&format!("http://{address}/artifacts")).await;
}

/// Shaders are compiled although the remote does not answer, and what only it may have is not said to be
/// missing.
async fn is_served_without(remote: &str) {
    let folder = folder();
    let arguments = ["--remote", remote, "--deadline", "30"];
    let server = Server::start(folder.path(), &arguments);
    for number in 2..5 {
        let source = DOUBLE.replace("2u", &format!("{number}u"));
        let compiled = server.post("spirv", source.clone()).await;
        assert_eq!(compiled.status(), StatusCode::OK);
        assert_eq!(header(&compiled, "artifact-source"), "compiled");
        let hit = server.post("spirv", source).await;
        assert_eq!(header(&hit, "artifact-source"), "memory");
    }
    let response = server.get(&format!("/artifact/{}", "ab".repeat(32))).await;
    assert_eq!(header(&response, "retry-after"), "1");
    let problem = problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(problem["type"], "urn:problem-type:tier-unavailable");
}
