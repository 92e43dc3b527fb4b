//! What is compiled during an outage of a real server reaches it soon after its return, whoever was
//! killed or restarted meanwhile.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment the outage takes a minute; without, seconds.

use pipeline_cache::{
    Artifact, DiskCache, LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint,
    RemoteCache,
};
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::nginx::Nginx;

const LOCATIONS: &str = "location / {
    dav_methods PUT DELETE; create_full_put_path on; client_body_temp_path $folder/put;
}";

/// The long outage, and how soon after any all must be uploaded.
const A_MINUTE: Duration = Duration::from_secs(60);

const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";
const URL: &str = "PIPELINE_CACHE_TEST_URL";
const KEYS: &str = "PIPELINE_CACHE_TEST_KEYS";
const EXITS: &str = "PIPELINE_CACHE_TEST_EXITS";

fn outage() -> Duration {
    match std::env::var_os("PIPELINE_CACHE_LONG_TESTS") {
        Some(_) => A_MINUTE,
        None => Duration::from_secs(4),
    }
}

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn artifact(number: u64) -> Artifact {
    Artifact::new(number.to_le_bytes().repeat(100))
}

/// A compiling process: over a folder and the remote, with the defaults. It compiles these keys, says
/// so, and then exits, or goes on until it is killed.
fn process(root: &Path, url: &str, keys: std::ops::Range<u64>, exits: bool) -> Child {
    let module = module_path!().split_once("::").unwrap().1;
    let test = format!("{module}::the_compiling_process");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(URL, url)
        .env(KEYS, format!("{}-{}", keys.start, keys.end))
        .env(EXITS, if exits { "1" } else { "0" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    child.unwrap()
}

fn wait_until_compiled(child: &mut Child) {
    let output = BufReader::new(child.stdout.as_mut().unwrap());
    let mut lines = output.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("compiled all")));
}

#[test]
fn the_compiling_process() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    let (url, exits) = (variable(URL), variable(EXITS) == "1");
    let keys = variable(KEYS);
    let (start, end) = keys.split_once('-').unwrap();
    let keys = start.parse().unwrap()..end.parse::<u64>().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let remote = RemoteCache::builder().no_proxy().writes();
        let cache = LayeredPipelineCache::builder()
            .tier(DiskCache::new(PathBuf::from(root)).await.unwrap())
            .tier(remote.build(url).unwrap())
            .build();
        for number in keys {
            let compile = move || async move { Ok::<_, Infallible>(artifact(number)) };
            let compiled = cache.get_or_insert_with(&key(number), compile).await;
            assert_eq!(compiled.unwrap().artifact, artifact(number));
        }
        if !exits {
            // The artifacts are in the folder, and what the remote owes is recorded.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        println!("compiled all");
        if exits {
            let report = cache.close(Duration::from_secs(10)).await;
            println!("closed: {report:?}");
        } else {
            // Ends with the process that started this one, should that die.
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
                .await
                .unwrap()
                .unwrap();
        }
    });
}

fn killed(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn stored(url: &str, keys: std::ops::Range<u64>) -> u64 {
    let remote = RemoteCache::builder().no_proxy().build(url).unwrap();
    let mut stored = 0;
    for number in keys {
        if let Some(found) = remote.get(&key(number)).await.unwrap() {
            assert_eq!(found, artifact(number));
            stored += 1;
        }
    }
    stored
}

/// How long it takes until the remote has all of these.
async fn wait_until_stored(url: &str, keys: std::ops::Range<u64>) -> Duration {
    let start = Instant::now();
    loop {
        let there = stored(url, keys.clone()).await;
        if there == keys.end - keys.start {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < A_MINUTE,
            "{there} of {keys:?} after a minute"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the compiling process does before the server is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Exits as it should, and another is started.
    Restarts,
    /// Is killed, and another is started.
    IsKilled,
    /// Lives on.
    LivesOn,
}

async fn all_is_uploaded_soon(writer: Writer, hangs: bool) {
    let Some(mut nginx) = Nginx::start(LOCATIONS) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = nginx.url("/artifacts");
    let keys = 0..100;
    nginx.kill();
    // A server that accepts and never answers, in the place of the one that is down.
    let hung = hangs.then(|| TcpListener::bind(("127.0.0.1", nginx.port())).unwrap());
    let down = Instant::now();
    let mut child = process(
        folder.path(),
        &url,
        keys.clone(),
        writer == Writer::Restarts,
    );
    wait_until_compiled(&mut child);
    let last = match writer {
        Writer::LivesOn => child,
        Writer::Restarts => {
            assert!(child.wait().unwrap().success());
            process(folder.path(), &url, 0..0, false)
        }
        Writer::IsKilled => {
            killed(child);
            process(folder.path(), &url, 0..0, false)
        }
    };
    tokio::time::sleep(outage().saturating_sub(down.elapsed())).await;
    let lasted = down.elapsed();
    drop(hung);
    nginx.restart();
    let took = wait_until_stored(&url, keys).await;
    let how = if hangs { "hung" } else { "refused" };
    println!("{writer:?}, {how} for {lasted:.1?}: all of it stored {took:.1?} after the return");
    killed(last);
}

/// At once, because the outages take long.
async fn all_is_uploaded_soon_by(writer: Writer) {
    let both = [false, true].map(|hangs| tokio::spawn(all_is_uploaded_soon(writer, hangs)));
    for one in both {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_compiled_during_an_outage_is_on_the_server_within_a_minute_of_its_return() {
    all_is_uploaded_soon_by(Writer::LivesOn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_compiled_that_exited_during_an_outage_is_on_the_server_as_soon() {
    all_is_uploaded_soon_by(Writer::Restarts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_compiled_that_was_killed_during_an_outage_is_on_the_server_as_soon() {
    all_is_uploaded_soon_by(Writer::IsKilled).await;
}

/// The next outage begins before all is uploaded.
#[tokio::test]
async fn a_second_outage_half_way_loses_nothing() {
    let Some(mut nginx) = Nginx::start(LOCATIONS) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = nginx.url("/artifacts");
    nginx.kill();
    let mut first = process(folder.path(), &url, 0..400, false);
    wait_until_compiled(&mut first);
    killed(first);
    nginx.restart();
    let mut second = process(folder.path(), &url, 0..0, false);
    while stored(&url, 0..400).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    nginx.kill();
    killed(second);
    second = process(folder.path(), &url, 0..0, false);
    wait_until_compiled(&mut second);
    nginx.restart();
    wait_until_stored(&url, 0..400).await;
    killed(second);
}
