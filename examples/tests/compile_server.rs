//! The server of `compile_server`: the real program, on a port that was free.
#![cfg(unix)]

#[path = "cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;
#[path = "../naga_compiler/mod.rs"]
mod naga_compiler;
#[path = "../../tests/store/prometheus.rs"]
mod prometheus;
#[path = "../compile_server/shader.rs"]
#[expect(dead_code, reason = "the server tells the rest of an error")]
mod shader;
#[path = "../compile_server/targets/mod.rs"]
#[expect(dead_code, reason = "only the writers are used")]
mod targets;
#[path = "../wgsl_nesting/mod.rs"]
mod wgsl_nesting;

use bytes::Bytes;
use cache_server::{CacheServer, WRITER, client};
use futures::future::join_all;
use pipeline_cache::Program as _;
use reqwest::{Response, StatusCode};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use targets::{Choices, Language, Target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) at: vec3<u32>) {
    numbers[at.x] = numbers[at.x] * 2u;
}
";

/// The same program.
const DOUBLE_RESPELLED: &str = "// Doubles all numbers.
@compute @workgroup_size(64, 1, 1) fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    data[i] = data[i] * 2u;
}
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
";

/// The real server. It dies with the value.
struct Server {
    child: Child,
    url: String,
    errors: BufReader<ChildStderr>,
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let program = cache_server::program().with_file_name("compile_server");
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--cache-dir"])
            .arg(folder)
            .args(arguments)
            .env("NO_PROXY", "127.0.0.1")
            .env("COMPILE_SERVER_REMOTE_TOKEN", WRITER)
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

    async fn post(&self, target: &str, source: impl Into<String>) -> Response {
        let request = client().post(format!("{}/compile/{target}", self.url));
        request.body(source.into()).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        let request = client().get(format!("{}{path}", self.url));
        request.send().await.unwrap()
    }

    /// `/status.json` once so many requests are over: the last one is so shortly after its answer.
    async fn status_with_recent(&self, requests: usize) -> serde_json::Value {
        loop {
            let text = self.get("/status.json").await.bytes().await.unwrap();
            let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
            if status["recent"].as_array().unwrap().len() >= requests {
                return status;
            }
        }
    }

    /// A number of `/metrics`.
    async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }

    /// Asks it to stop, as an init system does.
    fn terminate(&self) {
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(killed.unwrap().success());
    }

    /// Reads its log up to a line that holds this.
    fn read_to(&mut self, text: &str) -> String {
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
    fn wait(&mut self) -> (ExitStatus, String) {
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

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The members of a problem, whose response has this status.
async fn problem(response: Response, status: StatusCode) -> serde_json::Value {
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

/// A shader that takes long to compile, and differs from others of its kind.
fn large(number: usize) -> String {
    let mut text = String::from(
        "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
         @compute @workgroup_size(1) fn main() { var x = data[0];\n",
    );
    for i in 0..300 {
        let factor = number * 300 + i;
        writeln!(
            text,
            "x = data[x % 64u] * {factor}u + (x >> 3u); data[x % 32u] = x;"
        )
        .unwrap();
    }
    text.push('}');
    text
}

#[tokio::test]
async fn all_targets_give_what_naga_gives() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    for name in ["spirv", "msl", "hlsl", "glsl"] {
        let target = Target::new(Language::of(name).unwrap(), &Choices::default()).unwrap();
        let source = Bytes::from(DOUBLE);
        let module = shader::parse(&source, target.capabilities).unwrap();
        let canonical = module.canonicalize().unwrap();
        let direct = target.write(canonical.module(), canonical.info().unwrap());
        let response = server.post(name, DOUBLE).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "artifact-source"), "compiled");
        let key = header(&response, "artifact-key").to_owned();
        let served = response.bytes().await.unwrap();
        assert_eq!(served, direct.unwrap(), "{name}");

        let by_key = server.get(&format!("/artifact/{key}")).await;
        assert_eq!(by_key.status(), StatusCode::OK);
        assert_eq!(by_key.bytes().await.unwrap(), served);
    }
}

#[tokio::test]
async fn a_known_spelling_is_a_hit_that_parses_nothing() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let first = server.post("spirv", DOUBLE).await;
    assert!(header(&first, "server-timing").contains("parse;dur="));
    let second = server.post("spirv", DOUBLE).await;
    assert_eq!(header(&second, "artifact-source"), "memory");
    let timing = header(&second, "server-timing");
    assert!(timing.contains("hash;dur="), "{timing}");
    assert!(!timing.contains("parse"), "{timing}");
    assert!(!timing.contains("compile"), "{timing}");
}

#[tokio::test]
async fn another_spelling_of_a_program_is_a_hit_under_its_key() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let first = server.post("msl", DOUBLE).await;
    let second = server.post("msl", DOUBLE_RESPELLED).await;
    assert_eq!(header(&second, "artifact-source"), "memory");
    let key = header(&first, "artifact-key");
    assert_eq!(header(&second, "artifact-key"), key);
    assert_eq!(key.len(), 64);
}

#[tokio::test]
async fn options_of_the_query_are_part_of_the_key() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let mut keys = Vec::new();
    for target in [
        "spirv",
        "spirv?version=1.5",
        "spirv?bounds_checks=false",
        "glsl",
        "glsl?entry=double",
        "glsl?version=310es",
    ] {
        let response = server.post(target, DOUBLE).await;
        assert_eq!(response.status(), StatusCode::OK, "{target}");
        keys.push(header(&response, "artifact-key").to_owned());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6);
    for target in ["spirv?version=9.9", "spirv?entry=double", "msl?optimize=1"] {
        let response = server.post(target, DOUBLE).await;
        problem(response, StatusCode::BAD_REQUEST).await;
    }
    problem(server.post("dxil", DOUBLE).await, StatusCode::NOT_FOUND).await;
    let unknown = server.post("glsl?entry=other", DOUBLE).await;
    problem(unknown, StatusCode::UNPROCESSABLE_ENTITY).await;
}

#[tokio::test]
async fn a_bad_shader_is_told_with_message_and_span() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    // One that does not parse, one that does not validate, and one that is no text.
    for (source, line, column, length, says) in [
        (&b"\n  fn f() { missing(); }"[..], 2, 12, 7, "missing"),
        (b"\n fn f() -> u32 { }", 2, 2, 17, "return"),
        (b"// \n//\xff", 2, 3, 1, "UTF-8"),
    ] {
        let request = client().post(format!("{}/compile/spirv", server.url));
        let response = request.body(source).send().await.unwrap();
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["type"], "urn:problem-type:invalid-shader");
        let detail = problem["detail"].as_str().unwrap();
        assert!(problem.to_string().contains(says), "{problem}");
        assert!(!detail.contains('\n'), "{detail}");
        let span = &problem["span"];
        assert_eq!(
            (&span["line"], &span["column"], &span["length"]),
            (&line.into(), &column.into(), &length.into()),
            "{problem}"
        );
    }
}

/// A compute shader with two variables and a buffer.
fn shader(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> d: array<u32>;
         @compute @workgroup_size(1) fn main() {{ var a = d[0]; var b = a > 3u; {body} }}"
    )
}

/// Sources that nest so deep in one of the ways that naga does not bound, by their names.
fn deep(levels: usize) -> Vec<(&'static str, String)> {
    let repeat = |text: &str| text.repeat(levels);
    let each = |of: &dyn Fn(usize) -> String| (1..levels).rev().map(of).collect::<String>();
    let lets = (1..levels).map(|n| format!("let x{n}=-x{};", n - 1));
    let lets: String = lets.collect();
    let (last, none) = (levels - 1, shader(""));
    vec![
        ("sum", shader(&format!("d[1] = a{};", repeat("+a")))),
        (
            "constant sum",
            shader(&format!("d[1] = 1{};", repeat("+1"))),
        ),
        (
            "conjunction",
            shader(&format!("d[1] = u32(b{});", repeat("&&b"))),
        ),
        (
            "swizzles",
            shader(&format!("d[1] = vec2(a){}.x;", repeat(".yx"))),
        ),
        ("members", shader(&format!("d[1] = a{};", repeat(".x")))),
        ("accesses", shader(&format!("d[1] = d{};", repeat("[0]")))),
        (
            "else",
            shader(&format!("if b {{}} {}", repeat("else if b {d[1]=a;}"))),
        ),
        ("blocks", shader(&format!("{}{}", repeat("{"), repeat("}")))),
        (
            "brackets",
            shader(&format!("d[1] = {}a{};", repeat("("), repeat(")"))),
        ),
        (
            "lets",
            shader(&format!("let x0 = f32(a); {lets} d[1] = u32(x{last});")),
        ),
        (
            "aliases",
            format!(
                "{}alias a0=u32;{none}",
                each(&|n| format!("alias a{n}=a{};", n - 1))
            ),
        ),
        (
            "functions",
            format!(
                "{}fn f0(){{}}{none}",
                each(&|n| format!("fn f{n}(){{f{}();}}", n - 1))
            ),
        ),
        (
            "structs",
            format!(
                "{}struct s0{{a:u32}}{none}",
                each(&|n| format!("struct s{n}{{a:s{}}}", n - 1))
            ),
        ),
        (
            "arrays",
            format!(
                "{}const a0=array(1u);{none}",
                each(&|n| format!("const a{n}=array(a{});", n - 1))
            ),
        ),
        (
            "overrides",
            format!(
                "{}override o0=1u;{none}",
                each(&|n| format!("override o{n}=-o{};", n - 1))
            ),
        ),
        (
            "comments",
            format!("{}{}{none}", repeat("/*"), repeat("*/")),
        ),
        (
            "templates",
            shader(&format!("var x: {}u32{};", repeat("array<"), repeat(",1>"))),
        ),
    ]
}

/// It is compiled, or a shader to complain of.
async fn is_answered(server: &Server, target: &str, name: &str, source: String) {
    let request = client().post(format!("{}/compile/{target}", server.url));
    let response = request.body(source).send().await;
    let response = response.unwrap_or_else(|error| panic!("{target}, {name}: {error}"));
    if response.status() != StatusCode::OK {
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["type"], "urn:problem-type:invalid-shader");
    }
}

#[tokio::test]
async fn no_nesting_ends_the_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    // About as deep as it may be.
    for (name, source) in deep(970) {
        for target in ["spirv", "msl", "hlsl", "glsl"] {
            is_answered(&server, target, name, source.clone()).await;
        }
    }
    for (name, source) in deep(20_000) {
        // What naga takes the square of the length for, which is not about nesting.
        if !["lets", "functions", "overrides"].contains(&name) {
            is_answered(&server, "spirv", name, source).await;
        }
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_nests_too_deep_is_told_where() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let response = server
        .post("spirv", format!("\nconst x = 1{};", "+1".repeat(1001)))
        .await;
    let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(problem["detail"], "the source nests deeper than 1000");
    let span = &problem["span"];
    assert_eq!(
        (&span["line"], &span["column"]),
        (&2.into(), &2010.into()),
        "{problem}"
    );
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
    let folder = folder();
    let arguments = ["--compile-places", "1", "--max-queued", "1"];
    let server = Server::start(folder.path(), &arguments);
    // All are known spellings, so that only compiles wait.
    let source = large(0);
    assert_eq!(
        server.post("spirv", source.as_str()).await.status(),
        StatusCode::OK
    );
    let choices = ["false", "true"].iter().flat_map(|checks| {
        (0..7).map(move |minor| format!("spirv?version=1.{minor}&bounds_checks={checks}"))
    });
    let choices: Vec<_> = choices.collect();
    let all = choices
        .iter()
        .map(|target| server.post(target, source.as_str()));
    let mut full = 0;
    for response in join_all(all).await {
        if response.status() == StatusCode::OK {
            continue;
        }
        assert_eq!(header(&response, "retry-after"), "1");
        let problem = problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(problem["type"], "urn:problem-type:queue-full");
        full += 1;
    }
    assert!(full > 0);
    // It is so for no longer than the others run.
    let again = server.post(&choices[0], source).await;
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_compile() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let source = large(1);
    let request = client().post(format!("{}/compile/hlsl", server.url));
    let request = request.header("compile-deadline-ms", "1");
    let response = request.body(source.clone()).send().await.unwrap();
    let problem = problem(response, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(problem["type"], "urn:problem-type:deadline-exceeded");
    let response = server.post("hlsl", source).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        server
            .metric("pipeline_cache_compiles_total{cache=\"shaders\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn servers_on_one_remote_share_what_they_compile() {
    let remote = CacheServer::start(&[]);
    let url = remote.url("/artifacts");
    let (first, second) = (folder(), folder());
    let mut one = Server::start(first.path(), &["--remote", &url]);
    let compiled = one.post("spirv", DOUBLE).await;
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    one.terminate();
    assert!(one.wait().0.success());

    let other = Server::start(second.path(), &["--remote", &url]);
    let shared = other.post("spirv", DOUBLE).await;
    assert_eq!(header(&shared, "artifact-source"), "remote");
    let timing = header(&shared, "server-timing");
    assert!(
        !timing.contains("parse"),
        "its spelling is shared too: {timing}"
    );
    assert_eq!(
        shared.bytes().await.unwrap(),
        compiled.bytes().await.unwrap()
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
    server.post("spirv", DOUBLE).await;
    server.post("msl", "no shader").await;
    server.get(&format!("/artifact/{key}")).await;
    server.get("/healthz").await;
    let response = server.get("/status.json").await;
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-store");
    let status = server.status_with_recent(4).await;
    let text = status.to_string();
    assert!(!text.contains(folder.path().to_str().unwrap()), "{text}");
    let labels = status["tiers"].as_array().unwrap().iter();
    let labels: Vec<_> = labels.map(|tier| tier["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["memory", "disk"]);
    assert_eq!(status["tiers"][0]["hits"], 2);
    assert_eq!(status["tiers"][1]["breaker_open"], false);
    assert_eq!(status["compiles"]["started"], 1);
    assert_eq!(status["compiles"]["compile_time"]["count"], 1);
    assert_eq!(status["sources"]["memory"]["count"], 1);
    let recent = status["recent"].as_array().unwrap().iter();
    let recent: Vec<_> = recent
        .map(|request| {
            let text = |name: &str| request[name].as_str().unwrap_or("-").to_owned();
            let [kind, target, source] = ["kind", "target", "source"].map(text);
            format!("{kind} {target} {source} {}", request["status"])
        })
        .collect();
    assert_eq!(
        recent,
        [
            "artifact - - 200",
            "compile msl - 422",
            "compile spirv memory 200",
            "compile spirv compiled 200",
        ]
    );
    assert_eq!(status["recent"][0]["key"], key);
    assert!(
        status["recent"][3]["timing"]
            .as_str()
            .unwrap()
            .contains("compile;dur=")
    );
    assert!(!status["history"].as_array().unwrap().is_empty());
    for _ in 0..60 {
        server.get("/artifact/x").await;
    }
    let status = server.status_with_recent(50).await;
    assert_eq!(status["recent"].as_array().unwrap().len(), 50);
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
