//! The small examples do what their first lines say.
#![cfg(unix)]

#[path = "cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;

use cache_server::{CacheServer, WRITER};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A bound on an answer, for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What a service says once its cache is closed.
const CLOSED: &str = "closed: nothing is left to write";

fn program(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    Command::new(profile.join("examples").join(name))
}

fn output(name: &str) -> String {
    let output = program(name).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name}: {text}");
    text
}

#[test]
fn two_spellings_of_ones_own_ir_share_a_compile() {
    let text = output("own_ir");
    let lines: Vec<_> = text
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect()
        })
        .collect::<Vec<Vec<_>>>();
    let same = "load 0; load 1; load 0; add; add";
    let other = "load 0; load 1; load 1; add; add";
    assert_eq!(lines[0], ["sum x + y + x", "compiled", same], "{text}");
    // From memory, or from the write that is on its way there.
    assert!(["memory", "write_behind"].contains(&lines[1][1]), "{text}");
    assert_eq!((lines[1][0], lines[1][2]), ("sum a+b+a", same), "{text}");
    assert_eq!(lines[2], ["sum a + b + b", "compiled", other], "{text}");
}

#[test]
fn an_editor_finds_the_last_draft_and_remembers_a_failure() {
    let text = output("editor_loop");
    assert!(text.contains("while typing: main\n"), "{text}");
    let error = "\"fn main(\": error: expected identifier";
    assert_eq!(text.matches(error).count(), 2, "{text}");
    assert!(text.ends_with("remembered failures: 1\n"), "{text}");
}

/// A running `axum_service`, which dies with the value.
struct Service {
    child: Child,
    out: BufReader<ChildStdout>,
    url: String,
}

impl Service {
    fn start(folder: &Path, remote: &str) -> Self {
        let mut child = program("axum_service")
            .env("CACHE_DIR", folder)
            .env("CACHE_URL", remote)
            .env("CACHE_TOKEN", WRITER)
            .env("NO_PROXY", "127.0.0.1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        Self { child, out, url }
    }

    /// The answer to a source, and where it came from.
    async fn compile(&self, source: &'static str) -> (String, String) {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON);
        let client = client.build().unwrap();
        let request = client.post(format!("{}/compile", self.url)).body(source);
        let response = request.send().await.unwrap();
        assert!(
            response.headers()["server-timing"]
                .to_str()
                .unwrap()
                .contains(";dur=")
        );
        let from = response.headers()["artifact-source"].to_str().unwrap();
        let from = from.to_owned();
        (response.text().await.unwrap(), from)
    }

    /// Ends it with this signal. What it says at its end.
    fn stop(mut self, signal: Signal) -> String {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn two_services_share_what_one_compiled() {
    let server = CacheServer::start(&[]);
    let remote = server.url("/artifacts");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];

    let first = Service::start(folders[0].path(), &remote);
    let answer = |from: &str| ("HELLO".to_owned(), from.to_owned());
    assert_eq!(first.compile("hello").await, answer("compiled"));
    let (again, from) = first.compile("hello").await;
    assert_eq!(again, "HELLO");
    assert!(["memory", "write_behind"].contains(&&*from), "{from}");
    let end = first.stop(Signal::INT);
    assert!(end.contains(CLOSED), "{end}");

    let second = Service::start(folders[1].path(), &remote);
    assert_eq!(second.compile("hello").await, answer("remote"));
    // As an init system ends it.
    let end = second.stop(Signal::TERM);
    assert!(end.contains(CLOSED), "{end}");
}
