//! A remote tier behind the proxies that the environment names, as on most machines of companies.
//!
//! The environment is that of a process: each test starts itself again with another.

use crate::support::certificates::certificates;
use crate::support::nginx::{Nginx, Settings};
use crate::support::scripted_http::{ScriptedServer, answer};
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache, RemoteCacheBuilder,
};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const URL: &str = "PIPELINE_CACHE_TEST_URL";
const ROOTS: &str = "PIPELINE_CACHE_TEST_ROOTS";

/// Runs one of the tests below that only speak where there is a URL, in a process of its own.
fn run(test: &str, url: &str, variables: &[(&str, &str)]) {
    const OTHERS: [&str; 8] = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ];
    let mut command = Command::new(std::env::current_exe().unwrap());
    for variable in OTHERS {
        command.env_remove(variable);
    }
    let command = command.args(["--exact", test]).env(URL, url);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn url() -> Option<String> {
    std::env::var(URL).ok()
}

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder().bearer_token("hunter2")
}

#[tokio::test]
async fn child_misses_twice() {
    let Some(url) = url() else { return };
    let remote = builder().build(url).unwrap();
    for _ in 0..2 {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
}

#[tokio::test]
async fn child_puts_and_gets() {
    let Some(url) = url() else { return };
    let roots = std::fs::read(std::env::var(ROOTS).unwrap()).unwrap();
    let remote = builder().extra_root_certificates(roots).writes();
    let remote = remote.build(url).unwrap();
    let artifact = Artifact::new(vec![7; 100_000]);
    remote.put(&KEY, artifact.clone()).await.unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Hit(artifact));
}

/// There is no such host: only the proxy can answer.
#[test]
fn a_plain_request_goes_to_the_proxy_with_its_whole_url_and_the_proxys_own_credentials() {
    let proxy = ScriptedServer::always(answer("404 Not Found", b""));
    let host = proxy.url().replace("http://", "http://user:secret@");
    run(
        "http::proxy::child_misses_twice",
        "http://cache.invalid:81/a",
        &[("http_proxy", &host)],
    );
    let requests = proxy.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.path, format!("http://cache.invalid:81/a/{KEY}.bin"));
        assert_eq!(request.header("host"), Some("cache.invalid:81"));
        // user:secret
        let credentials = request.header("proxy-authorization");
        assert_eq!(credentials, Some("Basic dXNlcjpzZWNyZXQ="));
        assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
    }
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_server_in_no_proxy_is_requested_directly() {
    let proxy = ScriptedServer::always(answer("502 Bad Gateway", b""));
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let variables = [("http_proxy", &*proxy.url()), ("no_proxy", "127.0.0.1")];
    run("http::proxy::child_misses_twice", &server.url(), &variables);
    assert_eq!(proxy.connections(), 0);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].path, format!("/{KEY}.bin"));
    assert_eq!(requests[0].header("proxy-authorization"), None);
}

/// A proxy that only leads connections on. What each was asked for first.
fn tunnel() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let asks = Arc::clone(&asks);
            thread::spawn(move || lead_on(stream.unwrap(), &asks));
        }
    });
    (address, asked)
}

fn lead_on(client: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0);
    }
    let target = head.split(' ').nth(1).unwrap();
    let server = TcpStream::connect(target).unwrap();
    asked.lock().unwrap().push(head);
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let copy = |mut from: TcpStream, to: TcpStream| {
        // However one side ends, the other is told.
        let _ = std::io::copy(&mut from, &mut &to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || copy(from, to));
    copy(client, server);
}

#[test]
fn what_is_secret_on_the_way_goes_through_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    if certificates(path).is_none() {
        return;
    }
    let name = path.display();
    let settings = Settings {
        listen: "ssl http2",
        server: &format!(
            "ssl_certificate {name}/server.pem; ssl_certificate_key {name}/server.key;"
        ),
        ..Settings::default()
    };
    let locations = "location /cache/ { dav_methods PUT DELETE; create_full_put_path on; }";
    let Some(nginx) = Nginx::start_with(&settings, locations) else {
        return;
    };
    let (proxy, asked) = tunnel();
    let proxy = format!("http://user:secret@{proxy}");
    let roots = path.join("ca.pem");
    let variables = [("https_proxy", &*proxy), (ROOTS, roots.to_str().unwrap())];
    run(
        "http::proxy::child_puts_and_gets",
        &nginx.url("/cache"),
        &variables,
    );
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let head = asked[0].to_lowercase();
    assert!(
        head.starts_with(&format!("connect 127.0.0.1:{}", nginx.port())),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: basic dxnlcjpzzwnyzxq="),
        "{head}"
    );
    assert!(head.contains("user-agent: pipeline-cache/"), "{head}");
    // Nobody on the way is to see it.
    assert!(!head.contains("hunter2"));
}
