//! `fleet_model`: what the model says of small fleets, and of real processes on a real server.
#![cfg(unix)]

#[path = "cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;
#[cfg(feature = "redis")]
#[path = "../../tests/network/support/real_server.rs"]
mod real_server;

use cache_server::{CacheServer, WRITER, program};
use serde_json::Value;
use std::process::{Command, Output};

fn fleet_model(arguments: &str) -> Output {
    Command::new(program().with_file_name("examples/fleet_model"))
        .args(arguments.split_whitespace())
        .env("CACHE_TOKEN", WRITER)
        .output()
        .unwrap()
}

fn json(arguments: &str) -> Value {
    let output = fleet_model(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Of the run with these leases and edges.
fn outcome(outcomes: &Value, leases: bool, edges: bool) -> &Value {
    let mut outcomes = outcomes.as_array().unwrap().iter();
    let found = outcomes.find(|outcome| outcome["leases"] == leases && outcome["edges"] == edges);
    found.unwrap()
}

fn number(outcome: &Value, field: &str) -> f64 {
    outcome[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no {field}: {outcome}"))
}

fn assert_clean(outcome: &Value) {
    assert!(number(outcome, "requests") > 0.0);
    for field in ["failed", "wrong", "missing"] {
        assert_eq!(outcome[field], 0, "{field}");
    }
}

const SMALL: &str = "--programs 60 --seconds 5 --start-within 0.2 --rate 5";

#[test]
fn the_same_seed_gives_the_same_table_and_another_seed_another() {
    let table = |seed: u32| {
        let output = fleet_model(&format!(
            "rollout --machines 20 --edge-of 5 {SMALL} --seed {seed}"
        ));
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let first = table(1);
    assert_eq!(first, table(1));
    assert_ne!(first, table(2));
}

#[test]
fn in_a_rollout_leases_bring_compiles_to_one_for_each_program() {
    for remote in ["cache_server", "redis"] {
        let arguments =
            format!("rollout --machines 40 --edge-of 10 --remote {remote} {SMALL} --json");
        let outcomes = json(&arguments);
        for edges in [false, true] {
            let (without, with) = (
                outcome(&outcomes, false, edges),
                outcome(&outcomes, true, edges),
            );
            assert_clean(without);
            assert_clean(with);
            assert!(number(without, "compiles_per_program") > 1.5, "{without}");
            assert!(number(with, "compiles_per_program") <= 1.02, "{with}");
        }
    }
}

#[test]
fn edges_take_requests_and_bytes_off_the_remote() {
    let outcomes = json(&format!(
        "rollout --machines 40 --edge-of 20 {SMALL} --json"
    ));
    let (without, with) = (
        outcome(&outcomes, true, false),
        outcome(&outcomes, true, true),
    );
    for (field, most) in [("bytes_out", 0.4), ("remote_requests", 0.95)] {
        let (without, with) = (number(without, field), number(with, field));
        assert!(with < most * without, "{field}: {with} of {without}");
    }
}

#[test]
fn an_outage_fails_no_request_and_what_was_compiled_in_it_is_on_the_remote_after_it() {
    for down in ["hangs", "refuses"] {
        let load = "--programs 100 --seconds 30 --start-within 2 --rate 1";
        let calm = json(&format!("rollout --machines 20 {load} --json"));
        let outage = format!("outage --machines 20 --at 5 --lasts 15 --down {down} {load} --json");
        let disturbed = json(&outage);
        for leases in [false, true] {
            let (calm, disturbed) = (
                outcome(&calm, leases, false),
                outcome(&disturbed, leases, false),
            );
            // Nothing failed, nothing is wrong, nothing is missing on the remote.
            assert_clean(disturbed);
            assert_eq!(calm["requests"], disturbed["requests"]);
            let (calm, disturbed) = (number(calm, "compiles"), number(disturbed, "compiles"));
            assert!(
                disturbed > 1.2 * calm,
                "{disturbed} compiles instead of {calm}"
            );
        }
    }
}

#[test]
fn plots_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let load = "--programs 20 --seconds 5 --start-within 1 --rate 1";
    json(&format!(
        "outage --machines 5 --at 1 --lasts 2 {load} --json --plots {at}"
    ));
    json(&format!(
        "rollout --machines 5,10 {load} --json --plots {at}"
    ));
    for name in ["outage", "compiles", "times"] {
        let plot = std::fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap();
        assert!(
            plot.starts_with("<svg") && plot.contains("polyline"),
            "{name}"
        );
    }
}

/// Times are not held against each other here: beside other tests they say nothing.
fn assert_agrees(comparison: &Value, most_compiles_per_program: f64) {
    let (model, real) = (&comparison["model"], &comparison["real"]);
    assert_eq!(comparison["failed"], 0);
    assert_eq!(comparison["wrong"], 0);
    for field in ["requests", "programs"] {
        assert_eq!(model[field], real[field], "{field}");
    }
    for side in [model, real] {
        let compiles = number(side, "compiles_per_program");
        assert!(
            (1.0..=most_compiles_per_program).contains(&compiles),
            "{side}"
        );
    }
}

const REAL: &str =
    "--programs 50 --seconds 4 --start-within 0.5 --rate 20 --artifact-kib 16 --json";

#[test]
fn four_processes_on_a_cache_server_ask_as_the_model_does() {
    let server = CacheServer::start(&[]);
    let url = server.url("/artifacts");
    // Without leases each process may compile each program.
    let comparison = json(&format!("real --remote {url} --no-leases {REAL}"));
    assert_agrees(&comparison, 4.0);
}

#[cfg(feature = "redis")]
#[test]
fn four_processes_on_one_redis_compile_each_program_once() {
    let Some(server) = redis::Redis::start() else {
        return;
    };
    let comparison = json(&format!("real --redis {} {REAL}", server.url()));
    assert_agrees(&comparison, 1.02);
}

#[cfg(feature = "redis")]
mod redis {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use crate::real_server;

    /// A server that keeps nothing on disk. It dies with the value.
    pub(crate) struct Redis {
        child: Child,
        port: u16,
    }

    impl Redis {
        /// `None` where Redis is not installed.
        pub(crate) fn start() -> Option<Self> {
            let program = real_server::installed("redis-server")?;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let child = Command::new(program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let server = Self { child, port };
            let started = Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(started.elapsed() < Duration::from_secs(60), "no answer");
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(server)
        }

        pub(crate) fn url(&self) -> String {
            format!("redis://127.0.0.1:{}", self.port)
        }
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
