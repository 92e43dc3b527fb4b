//! Other people's caches on `cache_server`: real compilers, real tools, nothing kept on the client.

use super::support::{CacheServer, READER, WRITER, files};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long sccache may take to store what it has compiled.
const STORING: Duration = Duration::from_secs(30);

const C: [(&str, &str); 3] = [
    (
        "main.c",
        "#include <stdio.h>\nlong fib(int);\nint words(const char *);\n\
         int main(void) { printf(\"%ld %d\\n\", fib(30), words(\"a team's own cache\")); }\n",
    ),
    (
        "fib.c",
        "long fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\n",
    ),
    (
        "words.c",
        "#include <ctype.h>\n#include <string.h>\n\
         int words(const char *s) {\n  int n = 0;\n  while (*s) {\n\
         while (isspace((unsigned char)*s)) s++;\n    if (*s) n++;\n\
         while (*s && !isspace((unsigned char)*s)) s++;\n  }\n  return n;\n}\n",
    ),
];

const RUST: [(&str, &str); 2] = [
    (
        "sieve",
        "pub fn primes(below: usize) -> Vec<usize> {\n\
         let mut prime = vec![true; below];\n\
         (2..below).filter(|&n| { if prime[n] { for m in (n * n..below).step_by(n) \
         { prime[m] = false; } } prime[n] }).collect()\n}\n",
    ),
    (
        "count",
        "use std::collections::BTreeMap;\n\
         pub fn words(text: &str) -> BTreeMap<&str, usize> {\n\
         let mut counts = BTreeMap::new();\n\
         for word in text.split_whitespace() { *counts.entry(word).or_default() += 1; }\n\
         counts\n}\n",
    ),
];

/// Sources, and a folder for what is made of them.
fn sources() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in C {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for (name, text) in RUST {
        fs::write(folder.path().join(format!("{name}.rs")), text).unwrap();
    }
    fs::create_dir(folder.path().join("out")).unwrap();
    folder
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

/// Compiles the C files with the compiler behind a cache's command.
fn compile_c(folder: &Path, cache: impl Fn() -> Command) {
    for (name, _) in C {
        let mut cc = cache();
        cc.current_dir(folder).args(["cc", "-O1", "-c", name, "-o"]);
        succeed(cc.arg(format!("out/{name}.o")));
    }
}

/// What was made, by name; the folder is empty after it.
fn take_made(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let out = folder.join("out");
    let made = files(&out);
    let made = made.into_iter().map(|(path, _)| {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        (path, bytes)
    });
    made.collect()
}

/// Whether a tool is there to be tested with, as it must be under `CI=true`.
fn is_installed(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok();
    let is_demanded = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(is_there || !is_demanded, "{tool} is not installed");
    if !is_there {
        println!("skipped: {tool} is not installed");
    }
    is_there
}

/// The commands of a machine that has a ccache of its own, and nothing in it.
struct Ccache {
    local: TempDir,
    remote: String,
}

impl Ccache {
    fn new(server: &CacheServer, token: &str) -> Self {
        Self {
            local: tempfile::tempdir().unwrap(),
            remote: format!("{}|bearer-token={token}", server.url("/ccache")),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ccache");
        command
            .env("CCACHE_DIR", self.local.path())
            .env("CCACHE_CONFIGPATH", "/dev/null")
            .env("CCACHE_REMOTE_STORAGE", &self.remote)
            .env_remove("CCACHE_DISABLE");
        command
    }

    fn compile(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        compile_c(folder, || self.command());
        take_made(folder)
    }

    fn counts(&self, name: &str) -> u64 {
        let counts = succeed(self.command().arg("--print-stats"));
        let counts = String::from_utf8(counts.stdout).unwrap();
        let mut lines = counts.lines().filter_map(|line| line.split_once('\t'));
        let (_, count) = lines.find(|(found, _)| *found == name).unwrap();
        count.parse().unwrap()
    }
}

#[test]
fn ccache_stores_and_hits() {
    if !is_installed("ccache") {
        return;
    }
    let server = CacheServer::start(&[]);
    let folder = sources();
    let first = Ccache::new(&server, WRITER);
    let compiled = first.compile(folder.path());
    assert_eq!(compiled.len(), C.len());
    assert_eq!(first.counts("remote_storage_hit"), 0);
    assert!(first.counts("remote_storage_write") >= C.len() as u64);
    let held = files(&server.folder().join("ccache"));
    assert!(held.len() >= C.len(), "{held:?}");

    // Another machine, which may only read.
    let second = Ccache::new(&server, READER);
    assert_eq!(second.compile(folder.path()), compiled);
    assert_eq!(second.counts("remote_storage_hit"), C.len() as u64);
    assert_eq!(second.counts("cache_miss"), 0);
    assert_eq!(second.counts("remote_storage_error"), 0);

    // What came from the server is code that runs.
    let program = folder.path().join("program");
    for (path, bytes) in &compiled {
        fs::write(path, bytes).unwrap();
    }
    let mut link = Command::new("cc");
    succeed(
        link.args(compiled.iter().map(|(path, _)| path))
            .arg("-o")
            .arg(&program),
    );
    assert_eq!(succeed(&mut Command::new(program)).stdout, b"832040 4\n");
}

/// sccache works through a server of its own, here one for each machine that is played.
struct Sccache {
    port: u16,
    endpoint: String,
    token: &'static str,
    home: TempDir,
}

impl Sccache {
    fn start(server: &CacheServer, token: &'static str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let sccache = Self {
            port: free.local_addr().unwrap().port(),
            endpoint: server.url("/sccache/"),
            token,
            home: tempfile::tempdir().unwrap(),
        };
        drop(free);
        succeed(sccache.command().arg("--start-server"));
        sccache
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sccache");
        let variables = std::env::vars_os();
        for (name, _) in variables.filter(|(name, _)| name.to_string_lossy().starts_with("SCCACHE"))
        {
            command.env_remove(name);
        }
        command
            .env("SCCACHE_SERVER_PORT", self.port.to_string())
            .env("SCCACHE_CONF", self.home.path().join("none"))
            .env("SCCACHE_WEBDAV_ENDPOINT", &self.endpoint)
            .env("SCCACHE_WEBDAV_KEY_PREFIX", "team")
            .env("SCCACHE_WEBDAV_TOKEN", self.token)
            .env("SCCACHE_IDLE_TIMEOUT", "120")
            .env("SCCACHE_ERROR_LOG", self.home.path().join("errors"))
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    fn compile(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        compile_c(folder, || self.command());
        for (name, _) in RUST {
            let mut rustc = self.command();
            rustc
                .current_dir(folder)
                .args(["rustc", "--crate-name", name]);
            rustc.args([
                "--edition=2021",
                "--crate-type",
                "lib",
                "--emit=dep-info,link",
            ]);
            succeed(rustc.args(["--out-dir", "out"]).arg(format!("{name}.rs")));
        }
        take_made(folder)
    }

    fn stats(&self) -> Value {
        let mut stats = self.command();
        let stats = succeed(stats.args(["--show-stats", "--stats-format", "json"]));
        serde_json::from_slice(&stats.stdout).unwrap()
    }
}

impl Drop for Sccache {
    fn drop(&mut self) {
        let _ = self.command().arg("--stop-server").output();
    }
}

fn sum(counts: &Value) -> u64 {
    let counts = counts["counts"].as_object().unwrap().values();
    counts.filter_map(Value::as_u64).sum()
}

#[test]
fn sccache_stores_and_hits() {
    if !is_installed("sccache") {
        return;
    }
    let server = CacheServer::start(&[]);
    let folder = sources();
    let files_made = C.len() + RUST.len();
    let first = Sccache::start(&server, WRITER);
    let compiled = first.compile(folder.path());
    assert_eq!(compiled.len(), C.len() + 2 * RUST.len());
    // It stores in the background.
    let stored = |stats: &Value| stats["stats"]["cache_writes"] == files_made;
    let waiting = Instant::now();
    while !stored(&first.stats()) {
        assert!(waiting.elapsed() < STORING, "{}", first.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(first);
    let held = files(&server.folder().join("sccache"));
    assert!(held.len() >= files_made, "{held:?}");

    let second = Sccache::start(&server, WRITER);
    assert_eq!(second.compile(folder.path()), compiled);
    let stats = second.stats();
    let stats = &stats["stats"];
    assert_eq!(sum(&stats["cache_hits"]), files_made as u64, "{stats}");
    assert_eq!(stats["cache_hits"]["counts"]["Rust"], RUST.len(), "{stats}");
    assert_eq!(sum(&stats["cache_misses"]), 0, "{stats}");
    assert_eq!(sum(&stats["cache_errors"]), 0, "{stats}");
}
