//! The server under test.

#[cfg(feature = "object-store")]
#[path = "../../../tests/network/support/real_server.rs"]
pub(crate) mod real_server;
#[cfg(feature = "object-store")]
#[path = "../../../tests/network/support/signals.rs"]
pub(crate) mod signals;

use super::activity::Activity;
use super::cache_server::{self, WRITER, client};
use super::http_server::connection::Timeouts;
use super::http_server::connections::Connections;
use super::http_server::counters::Gauge;
use super::http_server::listener::Listener;
use super::site::{self, Site};
use super::targets::Targets;
use metrics_exporter_prometheus::PrometheusBuilder;
use pipeline_cache::layered::MetricsExporter;
use pipeline_cache::{
    Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache,
    LayeredPipelineCacheBuilder, PipelineFingerprint,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(crate) const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) at: vec3<u32>) {
    numbers[at.x] = numbers[at.x] * 2u;
}
";

/// The same program.
pub(crate) const DOUBLE_RESPELLED: &str = "// Doubles all numbers.
@compute @workgroup_size(64, 1, 1) fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    data[i] = data[i] * 2u;
}
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
";

/// The real server. It dies with the value.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    errors: BufReader<ChildStderr>,
}

impl Server {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// With variables in its environment.
    pub(crate) fn start_with(
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let program = cache_server::program().with_file_name("examples/compile_server");
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--cache-dir"])
            .arg(folder)
            .args(arguments)
            .env("NO_PROXY", "127.0.0.1")
            .env("COMPILE_SERVER_REMOTE_TOKEN", WRITER)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let Some(told) = first.trim().strip_prefix("listening on ") else {
            let mut said = String::new();
            errors.read_to_string(&mut said).unwrap();
            panic!("it did not start: {said}");
        };
        let url = told.split(';').next().unwrap_or_default().to_owned();
        Self { child, url, errors }
    }

    pub(crate) async fn post(&self, target: &str, source: impl Into<reqwest::Body>) -> Response {
        let request = client().post(format!("{}/compile/{target}", self.url));
        request.body(source).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let request = client().get(format!("{}{path}", self.url));
        request.send().await.unwrap()
    }

    /// `/status.json` once so many requests are over: the last one is so shortly after its answer.
    pub(crate) async fn status_with_recent(&self, requests: usize) -> serde_json::Value {
        loop {
            let text = self.get("/status.json").await.bytes().await.unwrap();
            let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
            if status["requests"].as_array().unwrap().len() >= requests {
                return status;
            }
        }
    }

    /// Asks it to stop, as an init system does.
    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(killed.unwrap().success());
    }

    /// Reads its log up to a line that holds this.
    pub(crate) fn read_to(&mut self, text: &str) -> String {
        let mut said = String::new();
        let mut last = 0;
        while !said[last..].contains(text) {
            last = said.len();
            let read = self.errors.read_line(&mut said).unwrap();
            assert!(read > 0, "no {text} in {said}");
        }
        said
    }

    /// How it ended, and what else it logged.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The members of a problem, whose response has this status.
pub(crate) async fn problem(response: Response, status: StatusCode) -> serde_json::Value {
    assert_eq!(response.status(), status);
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json"
    );
    let problem: serde_json::Value =
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["title"].is_string() && problem["type"].is_string());
    problem
}

/// The service of the server alone, on a cache that the test holds.
pub(crate) struct Service {
    pub(crate) cache: LayeredPipelineCache,
    pub(crate) address: SocketAddr,
    _served: AbortOnDropHandle<Option<Duration>>,
}

/// One place for compiles, and one that waits.
pub(crate) fn narrow() -> LayeredPipelineCacheBuilder {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .compile_places(1)
        .max_queued_compiles(1)
}

impl Service {
    pub(crate) async fn start(cache: LayeredPipelineCache) -> Self {
        Self::start_with(cache, Duration::from_secs(600)).await
    }

    /// With this limit on what does not move.
    pub(crate) async fn start_with(cache: LayeredPipelineCache, inactivity: Duration) -> Self {
        let connections = Arc::default();
        let site = Arc::new(Site {
            cache: cache.clone(),
            targets: Targets::default(),
            native: None,
            exporter: MetricsExporter::new("shaders"),
            prometheus: PrometheusBuilder::new().build_recorder().handle(),
            connections: Arc::clone(&connections),
            under_way: Gauge::default(),
            request_permits: Arc::new(Semaphore::new(64)),
            stopping: AtomicBool::new(false),
            activity: Activity::new(),
            began: Instant::now(),
            max_source: 512 << 10,
            deadline: Duration::from_secs(600),
            inactivity,
        });
        let timeouts = Timeouts {
            head: inactivity,
            idle: Duration::from_secs(600),
            inactivity: Duration::from_secs(600),
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener {
            socket,
            tls: None,
            connections: Arc::new(Connections::new(64, timeouts, connections)),
            drain: Duration::ZERO,
            work: TaskTracker::new(),
        };
        let router = site::router(Arc::clone(&site));
        let served = tokio::spawn(listener.serve(router, std::future::pending()));
        Self {
            cache,

            address,
            _served: AbortOnDropHandle::new(served),
        }
    }

    /// A request to compile, which is to be sent.
    pub(crate) fn post(&self, target: &str, source: &str) -> RequestBuilder {
        let url = format!("http://{}/compile/{target}", self.address);
        client().post(url).body(source.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        client().get(format!("http://{}{path}", self.address))
    }

    /// Sends a request in a task of its own.
    pub(crate) fn send(request: RequestBuilder) -> JoinHandle<Response> {
        tokio::spawn(async move { request.send().await.unwrap() })
    }

    /// Waits until so many compiles wait for a place.
    pub(crate) async fn until_queued(&self, count: u64) {
        self.until(|cache| cache.layered_metrics().queued_compiles == count)
            .await;
    }

    pub(crate) async fn until(&self, reached: impl Fn(&LayeredPipelineCache) -> bool) {
        while !reached(&self.cache) {
            tokio::task::yield_now().await;
        }
    }

    /// Holds the place for compiles until the value is dropped.
    pub(crate) async fn hold(&self) -> Sender<()> {
        let (entered, is_held) = tokio::sync::oneshot::channel();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let cache = self.cache.clone();
        tokio::spawn(async move {
            let scope = CompileScope::new("holder", "none").unwrap();
            let request = cache
                .compile(&scope)
                .key(PipelineFingerprint::from_bytes([7; 32]));
            let held = request.run(move |(), _| {
                entered.send(()).unwrap();
                // Ends with the sender.
                let _ = held.recv();
                Ok::<_, Infallible>(Artifact::new("held"))
            });
            held.await.unwrap();
        });
        is_held.await.unwrap();
        hold
    }
}

/// What a client receives until the server closes the connection, for what it has sent.
pub(crate) async fn talk(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer, and close, before it has read all.
    let _ = stream.write_all(sent).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
