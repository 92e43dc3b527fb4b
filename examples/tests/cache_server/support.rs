//! The real server, started on a port that was free, with a folder of its own. It dies with the
//! value.

use pipeline_cache::network::RetryPolicy;
use pipeline_cache::{
    Artifact, ArtifactMetadata, DiskCache, PipelineCacheStore as _, PipelineFingerprint,
    RemoteCache, RemoteCacheBuilder,
};
use reqwest::header::HeaderMap;
use reqwest::{Body, Client, ClientBuilder, Response, StatusCode};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const READER: &str = "reader-token-0123456789";
pub(crate) const WRITER: &str = "writer-token-0123456789";

pub(crate) struct CacheServer {
    child: Child,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    url: String,
    start_line: String,
    folder: TempDir,
    client: Client,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl CacheServer {
    /// Starts it with a token for each role, and what else is given.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(&[], arguments)
    }

    /// As `start`, with these variables in its environment.
    pub(crate) fn start_with(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let (mut server, out, errors) = Self::launch_with(variables, arguments);
        server.readers = vec![collect(out, &server.said), collect(errors, &server.said)];
        server
    }

    /// As `start`, for whoever is to read what it prints, or not to.
    pub(crate) fn launch(arguments: &[&str]) -> (Self, BufReader<ChildStdout>, ChildStderr) {
        Self::launch_with(&[], arguments)
    }

    fn launch_with(
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> (Self, BufReader<ChildStdout>, ChildStderr) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        let lines = format!("# Ours\nread-only reader {READER}\n\nread-write writer {WRITER}\n");
        std::fs::write(&tokens, lines).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.into()).collect();
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        let variables: Vec<(String, String)> = variables.collect();
        let (child, start_line, out, errors) =
            spawn_in(&folder, "127.0.0.1:0", &arguments, &variables);
        let url = start_line.strip_prefix("listening on ").unwrap();
        let server = Self {
            url: url.split(';').next().unwrap_or_default().to_owned(),
            start_line,
            child,
            arguments,
            variables,
            folder,
            client: client(),
            said: Arc::default(),
            readers: Vec::new(),
        };
        (server, out, errors)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let address = self.address().to_owned();
        let (child, _, out, errors) =
            spawn_in(&self.folder, &address, &self.arguments, &self.variables);
        self.child = child;
        // Its connections ended with the server.
        self.client = client();
        let readers = [collect(out, &self.said), collect(errors, &self.said)];
        self.readers.extend(readers);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The first line that it prints.
    pub(crate) fn start_line(&self) -> &str {
        &self.start_line
    }

    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Requests go to it over TLS from now on, with a certificate that this authority has signed.
    pub(crate) fn trust(&mut self, authority: &[u8]) {
        self.client = client_trusting(authority).build().unwrap();
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Body>) -> StatusCode {
        let request = self.client.put(self.url(path)).bearer_auth(WRITER);
        request.body(body).send().await.unwrap().status()
    }

    pub(crate) async fn get(&self, path: &str, headers: HeaderMap) -> Response {
        let request = self.client.get(self.url(path)).bearer_auth(READER);
        request.headers(headers).send().await.unwrap()
    }

    /// Waits until a number of the server's is what it should come to be.
    pub(crate) async fn wait_for(&self, name: &str, reached: impl Fn(u64) -> bool + Send + Sync) {
        for _ in 0..4000 {
            if reached(self.metric(name).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} stays at {}", self.metric(name).await);
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics", HeaderMap::new()).await;
        let text = text.text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.trim().parse().unwrap()
    }

    /// The folder that holds everything.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// All that it has printed so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_mebibytes(&self) -> u64 {
        self.kibibytes("VmHWM:") >> 10
    }

    /// A line of its `/proc/<pid>/status`: `VmRSS:` is the memory that it has now.
    #[cfg(target_os = "linux")]
    pub(crate) fn kibibytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let value = value.unwrap().trim().trim_end_matches(" kB");
        value.parse().unwrap()
    }

    /// Waits until it has printed a text.
    pub(crate) async fn wait_until_said(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.said().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to stop, as an init system does.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(killed.success());
    }

    /// How it ended; all that it said is there then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not end: {}", self.said());
    }
}

impl Drop for CacheServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program, which takes no setting from the environment of the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CACHE_SERVER_") {
            command.env_remove(name);
        }
    }
    command
}

/// The server in this folder, its first line, and what else it prints.
fn spawn_in(
    folder: &TempDir,
    listen: &str,
    arguments: &[String],
    variables: &[(String, String)],
) -> (Child, String, BufReader<ChildStdout>, ChildStderr) {
    let mut child = command()
        .args(["--listen", listen, "--tokens"])
        .arg(folder.path().join("tokens"))
        .arg("--cache-dir")
        .arg(folder.path().join("cache"))
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let mut errors = child.stderr.take().unwrap();
    if !first.starts_with("listening on ") {
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        panic!("it did not start: {said}");
    }
    (child, first.trim().to_owned(), out, errors)
}

pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_cache_server").into()
}

fn collect(mut from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            into.lock().unwrap().push_str(&text);
        }
    })
}

pub(crate) const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
pub(crate) const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

pub(crate) fn builder(token: &str) -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .bearer_token(token)
        .retry(RetryPolicy::default().attempts(1))
        .writes()
}

pub(crate) fn remote(server: &CacheServer, token: &str) -> RemoteCache {
    builder(token).build(server.url("/artifacts")).unwrap()
}

pub(crate) fn artifact(bytes: usize) -> Artifact {
    let payload: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    Artifact::with_metadata(payload, ArtifactMetadata::new().with_provenance("ci"))
}

pub(crate) fn client() -> Client {
    // Without the platform's certificates, which take long to read.
    let client = Client::builder().no_proxy().tls_certs_only([]);
    client.build().unwrap()
}

/// For a server whose certificate this authority has signed.
pub(crate) fn client_trusting(authority: &[u8]) -> ClientBuilder {
    let authority = reqwest::Certificate::from_pem(authority).unwrap();
    Client::builder().no_proxy().tls_certs_only([authority])
}

pub(crate) fn path(key: &PipelineFingerprint) -> String {
    format!("/artifacts/{key}.bin")
}

/// The head of an upload that is announced to be this long.
pub(crate) fn put_head(path: &str, length: usize) -> String {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITER}\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// An upload that the server has begun to read, and of whose body nothing was sent yet.
pub(crate) async fn begin_upload(server: &CacheServer, path: &str, length: usize) -> TcpStream {
    let mut upload = TcpStream::connect(server.address()).await.unwrap();
    let head = put_head(path, length).replace("Host", "Expect: 100-continue\r\nHost");
    upload.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    upload.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    upload
}

/// The stored form of an artifact, as the library writes it.
pub(crate) async fn frame(key: &PipelineFingerprint, artifact: Artifact) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path()).await.unwrap();
    disk.put(key, artifact).await.unwrap();
    std::fs::read(folder.path().join(format!("{key}.bin"))).unwrap()
}

/// All files below a folder, with their lengths.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}
