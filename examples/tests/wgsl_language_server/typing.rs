//! Ten thousand changes: each answer is right, the last one comes, and nothing is left behind.

use crate::support::{Server, at, folder, is_about};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};
use vello_shaders::SHADERS;

const CHANGES: i32 = 10_000;

/// As many are answered one by one, to be timed; the others come as fast as they can be sent.
const TIMED: i32 = 500;

/// A shader of vello, of 12 KB, with a line at its end that is typed.
fn shader() -> String {
    format!("{}\nconst VERSION = 0u;", SHADERS.draw_leaf.wgsl.code)
}

/// What is typed as this version: every third has an error.
fn typed(version: i32) -> String {
    match version % 3 {
        1 => format!("const VERSION = {version}u + nothing;"),
        _ => format!("const VERSION = {version}u;"),
    }
}

struct Typist {
    server: Server,
    uri: String,
    line: u64,
    length: usize,
}

impl Typist {
    fn new(cache: &Path, arguments: &[&str]) -> Self {
        let mut server = Server::start(cache, arguments);
        let (uri, text) = (at("draw_leaf.wgsl"), shader());
        server.open(&uri, &text);
        assert_eq!(server.diagnostics(&uri, 0), Vec::<Value>::new());
        Self {
            server,
            uri,
            line: text.lines().count() as u64 - 1,
            length: text.lines().last().unwrap().len(),
        }
    }

    fn change(&mut self, version: i32, text: &str) {
        let at = |character: usize| json!({ "line": self.line, "character": character });
        let range = json!({ "start": at(0), "end": at(self.length) });
        self.length = text.len();
        let change = json!([{ "range": range, "text": text }]);
        self.server.change(&self.uri, version, change);
    }

    fn check(&self, version: i64, diagnostics: &Value) {
        let told = diagnostics.as_array().unwrap();
        let text = typed(version.try_into().unwrap());
        let Some(column) = text.find("nothing") else {
            assert!(told.is_empty(), "{version}: {told:?}");
            return;
        };
        let place = |character| json!({ "line": self.line, "character": character });
        let range = json!({ "start": place(column), "end": place(column + "nothing".len()) });
        assert_eq!(told.len(), 1, "{version}: {told:?}");
        assert_eq!(told[0]["range"], range, "{version}");
    }

    /// Changes as fast as they can be sent, up to the answer to the last. The memory of the server then.
    fn burst(&mut self, versions: RangeInclusive<i32>) -> u64 {
        let last = *versions.end();
        for version in versions {
            self.change(version, &typed(version));
        }
        let told = self.server.diagnostics(&self.uri, last);
        self.check(last.into(), &json!(told));
        self.server.mebibytes()
    }

    /// From each change to its answer.
    fn times(&mut self, versions: impl Iterator<Item = i32>) -> Times {
        let times = versions.map(|version| {
            let text = typed(version);
            let start = Instant::now();
            self.change(version, &text);
            let told = self.server.diagnostics(&self.uri, version);
            let took = start.elapsed();
            self.check(version.into(), &json!(told));
            took
        });
        let mut times: Vec<_> = times.collect();
        times.sort();
        Times(times)
    }
}

struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, percent: usize) -> Duration {
        self.0[self.0.len() * percent / 100]
    }

    fn print(&self, what: &str) {
        let [p50, p99] = [50, 99].map(|percent| self.percentile(percent));
        println!("{what}: p50 {p50:.1?}, p99 {p99:.1?}");
    }
}

#[test]
fn a_keystroke_drops_the_check_before_it() {
    const BURST: i32 = 200;
    let cache = folder();
    let mut server = Server::start(cache.path(), &["--compile-places", "2"]);
    let uri = at("flatten.wgsl");
    server.open(&uri, &SHADERS.flatten.wgsl.code);
    server.diagnostics(&uri, 0);
    // One check takes much longer than to send all of these.
    let first = json!({ "line": 0, "character": 0 });
    let range = json!({ "start": first, "end": first });
    for version in 1..=BURST {
        server.change(&uri, version, json!([{ "range": range, "text": "\n" }]));
    }
    assert_eq!(server.diagnostics(&uri, BURST), Vec::<Value>::new());
    let status = server.status();
    let compiles = status["compiles"].as_i64().unwrap();
    assert!(compiles < i64::from(BURST) / 2, "{status}");
    assert_eq!(status["queuedCompiles"], 0, "{status}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn ten_thousand_changes_are_answered_rightly_and_leave_nothing_behind() {
    let cache = folder();
    let mut typist = Typist::new(cache.path(), &["--memory", "2M"]);
    let new = typist.times(1..=TIMED);
    let known = typist.times((1..=TIMED).rev());
    new.print("new versions, with the cache");
    known.print("known versions, with the cache");
    let before = typist.burst(TIMED + 1..=CHANGES / 2);
    let after = typist.burst(CHANGES / 2 + 1..=CHANGES);
    let mut latest = 0;
    for message in typist.server.take_kept() {
        if !is_about(&message, &typist.uri) {
            panic!("{message}");
        }
        let version = message["params"]["version"].as_i64().unwrap();
        assert!(version > latest, "{version} after {latest}");
        latest = version;
        typist.check(version, &message["params"]["diagnostics"]);
    }
    let status = typist.server.status();
    println!("{status}");
    for nothing in ["requests", "queuedCompiles"] {
        assert_eq!(status[nothing], 0, "{status}");
    }
    println!("memory: {before} MiB, then {after} MiB");
    assert!(after <= before + 24, "{before} MiB, then {after} MiB");
    assert_eq!(typist.server.stop(), 0);

    let mut typist = Typist::new(cache.path(), &["--no-cache"]);
    typist.times(1..=TIMED).print("without the cache");
    assert_eq!(typist.server.stop(), 0);
}
