//! `compile_load` against real servers, and against one that answers wrongly.
#![cfg(unix)]

#[path = "cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;
#[path = "status_page/server.rs"]
mod server;

use cache_server::{CacheServer, WRITER, program};
use serde_json::Value;
use server::Server;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// On a remote that it may write to.
fn start(folder: &Path, remote: &str) -> Server {
    let variables = [
        ("NO_PROXY", "127.0.0.1"),
        ("COMPILE_SERVER_REMOTE_TOKEN", WRITER),
    ];
    Server::start(folder, remote, &variables)
}

fn load(arguments: &[&str]) -> Output {
    Command::new(program().with_file_name("examples/compile_load"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[test]
fn two_servers_on_one_remote_compile_each_program_at_most_once_each() {
    let team = CacheServer::start(&[]);
    let folders = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let remote = team.url("/artifacts");
    let servers = [0, 1].map(|number: usize| start(folders[number].path(), &remote));
    let urls = [0, 1].map(|number: usize| servers[number].url.as_str());

    // All shaders, asked for equally often.
    let arguments = [
        "--json",
        "--clients",
        "64",
        "--seconds",
        "60",
        "--requests",
        "2000",
    ];
    let cold = load(&[&arguments[..], &["--zipf", "0"], &urls].concat());
    let report = json(&cold);
    assert!(cold.status.success(), "{report}");
    assert_eq!(report["answers"], 2000);
    assert_eq!(
        (&report["asked"], &report["keys"]),
        (&23.into(), &23.into())
    );
    for server in report["compiles"].as_array().unwrap() {
        assert!(server["most"].as_u64() <= Some(1), "{report}");
    }
    let compiles = |report: &Value| -> u64 {
        let servers = report["compiles"].as_array().unwrap().iter();
        servers
            .map(|server| server["compiles"].as_u64().unwrap())
            .sum()
    };
    assert!((23..=46).contains(&compiles(&report)), "{report}");

    // Again, at a steady rate: all of it is known.
    let arguments = [
        "--json",
        "--clients",
        "8",
        "--seconds",
        "60",
        "--requests",
        "400",
    ];
    let warm = load(&[&arguments[..], &["--rate", "400"], &urls].concat());
    let report = json(&warm);
    assert!(warm.status.success(), "{report}");
    assert_eq!(compiles(&report), 0, "{report}");
    assert_eq!(report["sources"]["memory"]["answers"], 400, "{report}");
    assert!(report["seconds"].as_f64() >= Some(0.9), "{report}");
}

/// New spellings all the time, so that every answer needs an alias from the remote, or its lack.
#[test]
#[ignore = "measures throughput for 12 s; for a quiet machine and a release build"]
fn a_remote_that_stops_costs_no_throughput_after_two_seconds() {
    let team = CacheServer::start(&[]);
    let folders = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let remote = team.url("/artifacts");
    let servers = [0, 1].map(|number: usize| start(folders[number].path(), &remote));
    let urls = [0, 1].map(|number: usize| servers[number].url.as_str());
    let signal = |name: &str| {
        let pid = team.pid().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    };
    let arguments = [
        "--json",
        "--seconds",
        "12",
        "--spellings",
        "400",
        "--zipf",
        "0.5",
    ];
    let report = std::thread::scope(|threads| {
        let told = threads.spawn(|| json(&load(&[&arguments[..], &urls].concat())));
        std::thread::sleep(Duration::from_secs(5));
        signal("-STOP");
        std::thread::sleep(Duration::from_secs(5));
        signal("-CONT");
        told.join().unwrap()
    });
    assert_eq!(report["errors"], serde_json::json!({}));
    let seconds = report["per_second"].as_array().unwrap().iter();
    let seconds: Vec<u64> = seconds.map(|count| count.as_u64().unwrap()).collect();
    println!("answers in each second, stopped in the 6th to 10th: {seconds:?}");
    let before = seconds[1..4].iter().sum::<u64>() / 3;
    // The load starts a moment after the clock of this test.
    for second in &seconds[7..9] {
        assert!(second * 10 >= before * 8, "{seconds:?}");
    }
}

/// Answers every request with 200 and the number of the request as the artifact, under one key.
fn answer_wrongly(listener: &TcpListener) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        std::thread::spawn(move || while answer_one(&stream).is_some() {});
    }

    fn answer_one(mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let artifact = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let head = "HTTP/1.1 200 OK\r\nArtifact-Key: one\r\nArtifact-Source: memory\r\n";
        let length = artifact.len();
        write!(stream, "{head}Content-Length: {length}\r\n\r\n{artifact}").ok()
    }
}

#[test]
fn artifacts_that_differ_under_one_key_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || answer_wrongly(&listener));
    let arguments = ["--clients", "2", "--requests", "10", "--seconds", "60"];
    let told = load(&[&arguments[..], &[&url]].concat());
    let said = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("WRONG: 9 answers differ"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_of_every_request() {
    // Free again at the end of the statement.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{address}");
    let told = load(&["--json", "--clients", "2", "--requests", "4", &url]);
    assert_eq!(told.status.code(), Some(1));
    assert_eq!(json(&told)["errors"]["no connection"], 4);
}

#[test]
fn a_rate_ends_with_its_time_and_what_was_not_sent_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || answer_wrongly(&listener));
    let arguments = [
        "--json",
        "--clients",
        "1",
        "--seconds",
        "1",
        "--rate",
        "1000000",
    ];
    let told = json(&load(&[&arguments[..], &[&url]].concat()));
    let number = |name: &str| told[name].as_u64().unwrap();
    assert_eq!(number("answers") + number("unsent"), 1_000_000, "{told}");
    assert!(number("unsent") > 0, "{told}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for arguments in [
        &["https://127.0.0.1:1"][..],
        &["http://127.0.0.1:1/compile"],
        &["http://127.0.0.1:1", "--zipf", "-1"],
        &["http://127.0.0.1:1", "--spellings", "0"],
        &["http://127.0.0.1:1", "--spellings", "2305843009213693951"],
        &["http://127.0.0.1:1", "--clients", "65537"],
        &["http://127.0.0.1:1", "--shaders", "/nowhere"],
        &[],
    ] {
        let told = load(arguments);
        assert_eq!(told.status.code(), Some(2), "{arguments:?}");
        assert!(!told.stderr.is_empty());
    }
}
