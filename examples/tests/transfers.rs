//! `cachectl push` and `cachectl pull`: what goes between a folder and a remote.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "cache_server/support.rs"]
mod cache_server;

use axum::Router;
use axum::http::StatusCode;
use cache_server::{CacheServer, READER, WRITER, files};
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _,
    PipelineFingerprint,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn artifact(number: u8) -> Artifact {
    Artifact::new(vec![number; 1000])
}

async fn filled(numbers: std::ops::Range<u8>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(folder.path()).await.unwrap();
    for number in numbers {
        cache.put(&key(number), artifact(number)).await.unwrap();
    }
    folder
}

/// The entries below a folder, by name, with their bytes.
fn entries(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(folder).into_iter();
    let frames = files.filter(|(file, _)| file.extension().is_some_and(|end| end == "bin"));
    let read = |file: PathBuf| {
        let name = file.strip_prefix(folder).unwrap().to_owned();
        (name, fs::read(file).unwrap())
    };
    frames.map(|(file, _)| read(file)).collect()
}

async fn cachectl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachectl"));
    command.arg("--cache-dir").arg(folder).args(arguments);
    // A server of the test's own runs beside it.
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    run.await.unwrap()
}

/// The exit code, and the summary.
async fn summary(folder: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = cachectl(folder, &[arguments, &["--json"]].concat()).await;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), value)
}

fn numbers<const N: usize>(summary: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| {
        summary[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {summary}"))
    })
}

const ALL: [&str; 6] = [
    "pulled",
    "was_there",
    "missing",
    "damaged",
    "not_judged",
    "left",
];

#[tokio::test]
async fn a_folder_goes_to_an_object_store_and_back_and_nothing_goes_twice() {
    let folder = filled(0..50).await;
    let (store, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = &format!("file://{}/team", store.path().display());
    let (code, pushed) = summary(folder.path(), &["push", url, "--all"]).await;
    assert_eq!(code, 0);
    assert_eq!(
        numbers(&pushed, ["pushed", "bytes", "was_there"]),
        [50, 50_000, 0]
    );
    let (_, pushed) = summary(folder.path(), &["push", url, "--all"]).await;
    assert_eq!(
        numbers(&pushed, ["pushed", "bytes", "was_there"]),
        [0, 0, 50]
    );
    assert_eq!(entries(&store.path().join("team")), entries(folder.path()));

    // As after an interruption: a part is there already.
    let fresh = beside.path().join("fresh");
    let some = beside.path().join("keys");
    let lines: String = (0..20).map(|number| format!("{}\n", key(number))).collect();
    fs::write(&some, format!("# some of them\n\n{lines}")).unwrap();
    let (code, pulled) = summary(&fresh, &["pull", url, "--keys", some.to_str().unwrap()]).await;
    assert_eq!((code, numbers(&pulled, ALL)), (0, [20, 0, 0, 0, 0, 0]));
    let (code, pulled) = summary(&fresh, &["pull", url]).await;
    assert_eq!((code, numbers(&pulled, ALL)), (0, [30, 20, 0, 0, 0, 0]));
    assert_eq!(pulled["bytes"], 30_000);
    assert_eq!(entries(&fresh), entries(folder.path()));
    let said = cachectl(&fresh, &["pull", url]).await;
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("pulled 0, 0 B, 50 there already"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_pulled_is_told_by_its_kind() {
    let folder = filled(0..4).await;
    let (store, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = &format!("file://{}", store.path().display());
    summary(folder.path(), &["push", url, "--all"]).await;
    let object = |number| store.path().join(format!("{}.bin", key(number)));
    let mut frame = fs::read(object(0)).unwrap();
    *frame.last_mut().unwrap() ^= 1;
    fs::write(object(0), frame).unwrap();
    let large = ["pull", url, "--max-artifact", "999"];
    let (code, pulled) = summary(fresh.path(), &large).await;
    assert_eq!((code, numbers(&pulled, ALL)), (3, [0, 0, 0, 0, 4, 0]));
    let (code, pulled) = summary(fresh.path(), &["pull", url]).await;
    assert_eq!((code, numbers(&pulled, ALL)), (1, [3, 0, 0, 1, 0, 0]));

    let keys = fresh.path().join("keys");
    fs::write(&keys, format!("{}\n{}\n", key(1), key(200))).unwrap();
    let (code, pulled) = summary(
        fresh.path(),
        &["pull", url, "--keys", keys.to_str().unwrap()],
    )
    .await;
    assert_eq!((code, numbers(&pulled, ALL)), (1, [0, 1, 1, 0, 0, 0]));

    let gone = [
        "pull",
        "http://127.0.0.1:9/artifacts",
        "--keys",
        keys.to_str().unwrap(),
    ];
    let (code, pulled) = summary(fresh.path(), &gone).await;
    assert_eq!((code, numbers(&pulled, ALL)), (1, [0, 1, 0, 0, 0, 1]));
    assert!(
        pulled["why"].as_str().unwrap().contains("unreachable"),
        "{pulled}"
    );
}

#[tokio::test]
async fn a_recorded_run_is_pulled_over_http_with_its_known_spellings() {
    let server = CacheServer::start(&[]);
    let url = &server.url("/artifacts");
    let beside = tempfile::tempdir().unwrap();
    let (run, token) = (beside.path().join("build.run"), beside.path().join("token"));
    let remote = cache_server::remote(&server, WRITER);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(remote)
        .record_run()
        .keep_aliases()
        .build();
    let scope = pipeline_cache::CompileScope::new("test 1", "none").unwrap();
    let compiled = cache
        .compile(&scope)
        .source("parser 1", "hello", |text: &bytes::Bytes| {
            let program = pipeline_cache::OpaqueProgram::new("text", text.clone());
            Ok::<_, pipeline_cache::Unkeyable>(program)
        })
        .run(|_, _| Ok(artifact(1)));
    compiled.await.unwrap();
    cache.flush().await.unwrap();
    cache
        .recorded_run()
        .await
        .unwrap()
        .save(&run)
        .await
        .unwrap();
    fs::write(&token, format!("{READER}\n")).unwrap();

    let fresh = beside.path().join("fresh");
    let to = ["pull", url, "--token-file", token.to_str().unwrap()];
    let (code, pulled) = summary(
        &fresh,
        &[&to[..], &["--run", run.to_str().unwrap()]].concat(),
    )
    .await;
    assert_eq!((code, numbers(&pulled, ALL)), (0, [2, 0, 0, 0, 0, 0]));
    let names: Vec<_> = entries(&fresh).into_iter().map(|(name, _)| name).collect();
    let aliases = names.iter().filter(|name| name.starts_with("aliases"));
    assert_eq!((names.len(), aliases.count()), (2, 1), "{names:?}");

    let output = cachectl(&fresh, &to).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("an HTTP remote cannot be listed"), "{said}");
    assert!(said.contains("--keys FILE or --run FILE"), "{said}");
}

#[tokio::test]
async fn a_pull_that_cannot_begin_is_an_error_and_makes_no_folder() {
    let beside = tempfile::tempdir().unwrap();
    let fresh = beside.path().join("fresh");
    let keys = beside.path().join("keys");
    fs::write(&keys, "no key\n").unwrap();
    let keys = keys.to_str().unwrap();
    for (arguments, told) in [
        (&["pull"][..], "<URL>"),
        (&["pull", "ftp://127.0.0.1/hunter2"], "s3://bucket/prefix"),
        (
            &["pull", "localhost:8420/artifacts"],
            "neither http:// nor https://",
        ),
        (
            &["pull", "s3://AK:hunter2@bucket"],
            "such as AWS_ACCESS_KEY_ID",
        ),
        (
            &["pull", "s3://"],
            "names no bucket: expected s3://BUCKET[/PREFIX]",
        ),
        (
            &["push", "http://user:hunter2@127.0.0.1:9/artifacts"],
            "remove it, and name a file with the token: --token-file FILE",
        ),
        (
            &["pull", "file:///x", "--token-file", keys],
            "from the environment",
        ),
        (&["pull", "file:///x", "--keys", keys], "line 1: not a key"),
        (&["pull", "file:///x", "--run", keys], "run"),
        (&["pull", "file:///x", "--concurrency", "0"], "1..=1024"),
    ] {
        let output = cachectl(&fresh, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(told) && !said.contains("hunter2"), "{said}");
    }
    assert!(!fresh.exists());
}

/// The server answers nobody before three wait, and counts how many wait at most.
#[tokio::test]
async fn as_many_go_at_once_as_it_is_told() {
    const AT_ONCE: usize = 3;
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let state = Arc::new((now, Arc::clone(&most), Barrier::new(AT_ONCE)));
    let router = Router::new().fallback(async move || {
        let (now, most, three) = &*state;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        three.wait().await;
        now.fetch_sub(1, Ordering::SeqCst);
        StatusCode::NOT_FOUND
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = &format!("http://{}/artifacts", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let lines: String = (0..30).map(|number| format!("{}\n", key(number))).collect();
    fs::write(&keys, lines).unwrap();
    let fresh = folder.path().join("fresh");
    let pull = [
        "pull",
        url,
        "--concurrency",
        "3",
        "--keys",
        keys.to_str().unwrap(),
    ];
    let (code, pulled) = summary(&fresh, &pull).await;
    assert_eq!((code, numbers(&pulled, ALL)), (1, [0, 0, 30, 0, 0, 0]));
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
}

#[tokio::test]
async fn what_is_damaged_in_the_folder_is_not_pushed_and_is_told() {
    let store = tempfile::tempdir().unwrap();
    let url = format!("file://{}", store.path().display());
    let folder = filled(0..3).await;
    let damaged = folder.path().join(format!("{}.bin", key(1)));
    let mut frame = fs::read(&damaged).unwrap();
    frame.push(0);
    fs::write(&damaged, frame).unwrap();
    let (code, pushed) = summary(folder.path(), &["push", &url, "--all"]).await;
    assert_eq!(code, 1, "{pushed}");
    assert_eq!(numbers(&pushed, ["pushed", "damaged", "gone"]), [2, 1, 0]);
}

/// Reading it whole never ends.
#[tokio::test]
async fn a_file_without_an_end_is_given_up() {
    let folder = filled(0..1).await;
    for (arguments, told) in [
        (
            &[
                "push",
                "http://127.0.0.1:9/artifacts",
                "--token-file",
                "/dev/zero",
            ][..],
            "/dev/zero is larger than 64 KiB",
        ),
        (
            &["verify", "--secret-file", "/dev/zero"],
            "/dev/zero is larger than 64 KiB",
        ),
        (
            &["pull", "file:///x", "--keys", "/dev/zero"],
            "/dev/zero, line 1: longer than 1024 bytes",
        ),
    ] {
        let output = cachectl(folder.path(), arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(told), "{said}");
    }
}

/// As some editors write them.
#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_a_token_or_of_a_key() {
    let server = CacheServer::start(&[]);
    let url = &server.url("/artifacts");
    let (folder, beside) = (filled(0..1).await, tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let file = beside.path().join(name);
        fs::write(&file, format!("\u{feff}{text}\r\n")).unwrap();
        file.into_os_string().into_string().unwrap()
    };
    let (token, keys) = (file("token", WRITER), file("keys", &key(0).to_hex()));
    let push = ["push", url, "--all", "--token-file", &token];
    let (code, pushed) = summary(folder.path(), &push).await;
    assert_eq!((code, numbers(&pushed, ["pushed"])), (0, [1]), "{pushed}");
    let fresh = beside.path().join("fresh");
    let pull = ["pull", url, "--token-file", &token, "--keys", &keys];
    let (code, pulled) = summary(&fresh, &pull).await;
    assert_eq!((code, numbers(&pulled, ["pulled"])), (0, [1]), "{pulled}");
}

#[tokio::test]
async fn a_token_that_does_not_do_is_told_by_its_file() {
    let server = CacheServer::start(&[]);
    let url = &server.url("/artifacts");
    let (folder, beside) = (filled(0..1).await, tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let file = beside.path().join(name);
        fs::write(&file, text).unwrap();
        file.into_os_string().into_string().unwrap()
    };
    let (torn, unknown) = (file("torn", "hunter2\nhunter2"), file("unknown", "hunter2"));
    let push = ["push", url, "--all"];
    let output = cachectl(
        folder.path(),
        &[&push[..], &["--token-file", &torn]].concat(),
    )
    .await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let told = format!("no header can have: the token is that of {torn}");
    assert!(said.contains(&told), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let of_file = format!("the token is that of {unknown}");
    for (token, hint) in [
        (&["--token-file", &unknown][..], &*of_file),
        (&[], "no token was sent: see --token-file"),
    ] {
        let output = cachectl(folder.path(), &[&push[..], token].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(hint), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// A server that is no cache, with one answer for everything. Its URL.
async fn no_cache(status: StatusCode, body: &'static str) -> String {
    let router = Router::new().fallback(async move || (status, body));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The hint of the program and that of the library end so.
const HINT: &str = "ends in /artifacts";

#[tokio::test]
async fn a_base_url_that_is_wrong_is_told_with_what_is_right() {
    let server = CacheServer::start(&[]);
    let (folder, beside) = (filled(0..1).await, tempfile::tempdir().unwrap());
    let (token, keys) = (beside.path().join("token"), beside.path().join("keys"));
    fs::write(&token, WRITER).unwrap();
    fs::write(&keys, key(0).to_hex()).unwrap();
    let (token, keys) = (token.to_str().unwrap(), keys.to_str().unwrap());
    let elsewhere = no_cache(StatusCode::NOT_FOUND, "").await;
    // The base of the server, a path below it, and a server of something else.
    for url in [server.url(""), server.url("/cache"), elsewhere] {
        for arguments in [
            &["push", &url, "--all"][..],
            &["pull", &url, "--keys", keys],
        ] {
            let arguments = [arguments, &["--token-file", token]].concat();
            let fresh = beside.path().join("fresh");
            let root = if arguments[0] == "pull" {
                &fresh
            } else {
                folder.path()
            };
            let output = cachectl(root, &arguments).await;
            // A cache_server does not understand the request. The other has no such artifact.
            let is_final = arguments[0] == "push" && url.starts_with(&server.url(""));
            let (code, said) = match is_final {
                true => (2, output.stderr),
                false => (1, output.stdout),
            };
            let said = String::from_utf8(said).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
            assert_eq!(said.matches(HINT).count(), 1, "{arguments:?}: {said}");
            assert!(said.trim_end().ends_with(HINT), "{arguments:?}: {said}");
        }
    }
    // A miss of a cache is no reason to doubt its URL.
    let url = server.url("/artifacts");
    let pull = ["pull", &url, "--keys", keys, "--token-file", token];
    let output = cachectl(&beside.path().join("other"), &pull).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1 not on the remote"), "{said}");
    assert!(!said.contains(HINT), "{said}");
}

/// Without the check all entries were there already, or there was nothing to do.
#[tokio::test]
async fn a_push_to_what_is_no_cache_fails() {
    let page = Box::leak("<html>".repeat(1000).into_boxed_str());
    let page = no_cache(StatusCode::OK, page).await;
    let folder = filled(0..1).await;
    let gone = "http://127.0.0.1:9/artifacts";
    for (url, told) in [
        (&*page, "says that it has an artifact that nobody has made"),
        (gone, "unreachable"),
    ] {
        let output = cachectl(folder.path(), &["push", url]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains(told), "{said}");
    }
    let output = cachectl(folder.path(), &["push", &page, "--all"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
