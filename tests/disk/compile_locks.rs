//! Processes that share a folder compile once what none of them has, and none waits for ever for
//! another.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment they race for 10,007 keys instead of 307.

use crate::support::{
    Mount, ROLE, ROOT, STAGING, artifact, block_on, child, folder, is_child, is_long, key, names,
    open, skip,
};
use futures::StreamExt as _;
use pipeline_cache::layered::Abandoned;
use pipeline_cache::{
    CompileLeases as _, CompileScope, CompileSource, DiskCache, InMemoryPipelineCache,
    LayeredPipelineCache, WritePolicy,
};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::Semaphore;

const WAIT: &str = "PIPELINE_CACHE_TEST_WAIT_MS";

/// Longer than any test waits for anything.
const FOR_EVER: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

async fn layered(root: impl AsRef<Path>, wait: Duration) -> LayeredPipelineCache {
    let disk = DiskCache::builder().root(root.as_ref()).compile_locks();
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(disk.open().await.unwrap())
        .write_policy(WritePolicy::Behind)
        .max_compile_wait(wait)
        .compile_places(16)
        .build()
}

/// The files of compile locks that are held, or were left behind.
fn lock_files(root: impl AsRef<Path>) -> Vec<String> {
    let mut names = names(root.as_ref().join(STAGING));
    names.retain(|name| name.ends_with(".compile"));
    names
}

fn awaited(cache: &LayeredPipelineCache) -> u64 {
    cache.layered_metrics().tiers[1].store.awaited_compiles
}

/// Waits until it holds; there is no other way to be told.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Another process: it compiles when it is told to, and tells what comes of it.
struct Process {
    child: Child,
    commands: ChildStdin,
    said: Receiver<String>,
}

impl Process {
    fn start(test: &str, root: &Path, wait: Duration) -> Self {
        Self::spawn(&mut child(module_path!(), test), root, wait)
    }

    fn spawn(command: &mut Command, root: &Path, wait: Duration) -> Self {
        command
            .env(ROOT, root)
            .env(WAIT, wait.as_millis().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(said) = line.strip_prefix('@') {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let commands = child.stdin.take().unwrap();
        Self {
            child,
            commands,
            said,
        }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// The next it says, however long that takes within reason.
    fn says(&self) -> String {
        let said = self.said.recv_timeout(PATIENCE);
        said.expect("the other process has something to say")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{what}\n").unwrap();
    out.flush().unwrap();
}

/// What the other process does, until it is told nothing more.
fn obey() {
    let root = std::env::var_os(ROOT).unwrap();
    let wait = Duration::from_millis(std::env::var(WAIT).unwrap().parse().unwrap());
    block_on(async {
        let cache = layered(Path::new(&root), wait).await;
        let gates = Gates::default();
        let mut commands = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Some(command) = commands.next_line().await.unwrap() {
            let (verb, number) = command.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            match verb {
                "compile" => drop(tokio::spawn(compile(cache.clone(), gates.clone(), number))),
                "finish" => gates.of(number).add_permits(1),
                "race" => say(&format!("compiled {}", race(&cache, number).await)),
                "close" => {
                    let report = cache.close(PATIENCE).await;
                    assert!(report.is_clean(), "{report:?}");
                    let unshared = cache.layered_metrics().unshared_compiles;
                    say(&format!("unshared {unshared}"));
                }
                other => panic!("{other}"),
            }
        }
    });
}

/// Lets compiles end.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<u64, Arc<Semaphore>>>>);

impl Gates {
    fn of(&self, number: u64) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap();
        let gate = gates
            .entry(number)
            .or_insert_with(|| Arc::new(Semaphore::new(0)));
        Arc::clone(gate)
    }
}

/// Says that it waits, that it compiles, and what came of it.
async fn compile(cache: LayeredPipelineCache, gates: Gates, number: u64) {
    let before = awaited(&cache);
    let watch = cache.clone();
    let waiting = tokio::spawn(async move {
        eventually("a wait", || awaited(&watch) > before).await;
        say(&format!("waiting {number}"));
    });
    let key = key(number);
    let compiled = cache.get_or_insert_with(&key, move || async move {
        say(&format!("compiling {number}"));
        gates.of(number).acquire().await.unwrap().forget();
        Ok::<_, Infallible>(artifact(1000))
    });
    let compiled = compiled.await.unwrap();
    waiting.abort();
    let how = match compiled.source {
        CompileSource::Compiled => "compiled",
        CompileSource::Cache(_) => "cached",
        other => panic!("{other:?}"),
    };
    assert_eq!(compiled.artifact, artifact(1000));
    say(&format!("{how} {number}"));
}

/// Asks for so many keys in an order of its own; how many of them it compiled.
async fn race(cache: &LayeredPipelineCache, keys: u64) -> u64 {
    let stride = [7919, 104_729, 1_299_709][std::process::id() as usize % 3];
    let compiles = AtomicU64::new(0);
    let compiles = &Arc::new(compiles);
    let order = (0..keys).map(|number| number * stride % keys);
    futures::stream::iter(order)
        .for_each_concurrent(8, |number| async move {
            let counted = Arc::clone(compiles);
            let compile = move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(artifact(100))
            };
            let key = key(number);
            let compiled = cache.get_or_insert_with(&key, compile);
            assert_eq!(compiled.await.unwrap().artifact, artifact(100));
        })
        .await;
    compiles.load(Ordering::SeqCst)
}

#[test]
fn two_processes_compile_once() {
    const TEST: &str = "two_processes_compile_once";
    if is_child() {
        return obey();
    }
    let folder = folder();
    let mut one = Process::start(TEST, folder.path(), FOR_EVER);
    let mut two = Process::start(TEST, folder.path(), FOR_EVER);
    one.tell("compile 1");
    assert_eq!(one.says(), "compiling 1");
    two.tell("compile 1");
    assert_eq!(two.says(), "waiting 1");
    // Other keys are none of their business.
    two.tell("compile 2");
    assert_eq!(two.says(), "compiling 2");
    two.tell("finish 2");
    assert_eq!(two.says(), "compiled 2");

    one.tell("finish 1");
    assert_eq!(one.says(), "compiled 1");
    assert_eq!(two.says(), "cached 1");
    for process in [&mut one, &mut two] {
        process.tell("close 0");
        assert_eq!(process.says(), "unshared 0");
    }
    assert_eq!(lock_files(folder.path()), [""; 0]);
}

#[test]
fn a_race_for_many_keys_compiles_each_once() {
    const TEST: &str = "a_race_for_many_keys_compiles_each_once";
    if is_child() {
        return obey();
    }
    let keys = if is_long() { 10_007 } else { 307 };
    let folder = folder();
    let start = || Process::start(TEST, folder.path(), FOR_EVER);
    let mut processes = [start(), start(), start(), start()];
    for process in &mut processes {
        process.tell(&format!("race {keys}"));
    }
    let compiled = processes.each_ref().map(|process| {
        let said = process.said.recv_timeout(PATIENCE * 10).unwrap();
        said.strip_prefix("compiled ")
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    println!("of {keys} keys the processes compiled {compiled:?}");
    assert_eq!(compiled.iter().sum::<u64>(), keys);
    for process in &mut processes {
        process.tell("close 0");
        assert_eq!(process.says(), "unshared 0");
    }
    assert_eq!(lock_files(folder.path()), [""; 0]);
}

#[test]
fn when_the_one_dies_the_other_goes_on() {
    const TEST: &str = "when_the_one_dies_the_other_goes_on";
    if is_child() {
        return obey();
    }
    let folder = folder();
    let mut one = Process::start(TEST, folder.path(), FOR_EVER);
    let mut two = Process::start(TEST, folder.path(), FOR_EVER);
    one.tell("compile 1");
    assert_eq!(one.says(), "compiling 1");
    one.tell("compile 2");
    assert_eq!(one.says(), "compiling 2");
    two.tell("compile 1");
    assert_eq!(two.says(), "waiting 1");
    one.signal(Signal::KILL);
    assert_eq!(two.says(), "compiling 1");
    two.tell("finish 1");
    assert_eq!(two.says(), "compiled 1");
    two.tell("close 0");
    assert_eq!(two.says(), "unshared 0");

    // What nobody asked for again is swept by whoever opens the folder next.
    assert_eq!(lock_files(folder.path()), [format!("{}.compile", key(2))]);
    block_on(async {
        let (first, second) = (open(folder.path()).await, open(folder.path()).await);
        assert_eq!(lock_files(folder.path()), [""; 0]);
        drop((first, second));
    });
}

#[test]
fn one_that_stands_still_is_waited_for_so_long_and_no_longer() {
    const TEST: &str = "one_that_stands_still_is_waited_for_so_long_and_no_longer";
    if is_child() {
        return obey();
    }
    let folder = folder();
    let mut one = Process::start(TEST, folder.path(), FOR_EVER);
    let mut two = Process::start(TEST, folder.path(), Duration::from_millis(300));
    one.tell("compile 1");
    assert_eq!(one.says(), "compiling 1");
    one.signal(Signal::STOP);
    two.tell("compile 1");
    assert_eq!(two.says(), "waiting 1");
    assert_eq!(two.says(), "compiling 1");
    two.tell("finish 1");
    assert_eq!(two.says(), "compiled 1");
    two.tell("close 0");
    assert_eq!(two.says(), "unshared 1");
    // Whoever opens the folder leaves the lock of the living alone.
    block_on(async { drop(open(folder.path()).await) });
    assert_eq!(lock_files(folder.path()), [format!("{}.compile", key(1))]);

    one.signal(Signal::CONT);
    one.tell("finish 1");
    assert_eq!(one.says(), "compiled 1");
    one.tell("close 0");
    assert_eq!(one.says(), "unshared 0");
    assert_eq!(lock_files(folder.path()), [""; 0]);
}

/// A lock is of one opening of its file, so two caches of one process stand for two processes.
#[tokio::test]
async fn a_dropped_wait_frees_its_place_in_the_queue() {
    let folder = folder();
    let caches = [
        layered(folder.path(), FOR_EVER).await,
        layered(folder.path(), FOR_EVER).await,
    ];
    let gate = Arc::new(Semaphore::new(0));
    let ask = |cache: &LayeredPipelineCache| {
        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
        async move {
            let compile = move || async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(artifact(10))
            };
            let scope = CompileScope::new("cc 1", "x86_64").unwrap();
            let request = cache.compile(&scope).key(key(1));
            let request = request.when_abandoned(Abandoned::Cancel);
            let compiled = request.run_async(|(), _cx| compile());
            compiled.await.unwrap().source
        }
    };
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let compiling = tokio::spawn(ask(&caches[0]));
    eventually("a compile", || caches[0].layered_metrics().compiles == 1).await;
    let before = tasks();

    let waiting = tokio::spawn(ask(&caches[1]));
    eventually("a wait", || awaited(&caches[1]) == 1).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    eventually("no task", || tasks() == before).await;
    assert_eq!(lock_files(folder.path()).len(), 1, "the other one's");

    // The one that compiles leaves, too: then nobody does.
    compiling.abort();
    assert!(compiling.await.unwrap_err().is_cancelled());
    eventually("no lock", || lock_files(folder.path()).is_empty()).await;
    let again = tokio::spawn(ask(&caches[1]));
    eventually("a compile", || caches[1].layered_metrics().compiles == 1).await;
    gate.add_permits(1);
    assert_eq!(again.await.unwrap(), CompileSource::Compiled);
    caches[1].flush().await.unwrap();
    eventually("no lock", || lock_files(folder.path()).is_empty()).await;
}

/// However the one who leaves and those who come next meet at the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_two_hold_the_compile_lock_of_a_key() {
    let folder = folder();
    let leading = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let disk = DiskCache::builder().root(folder.path());
        let disk = disk.compile_locks().open().await.unwrap();
        let leading = Arc::clone(&leading);
        tasks.spawn(async move {
            for _ in 0..500 {
                let lease = disk.compile_lease(&key(1)).await.unwrap();
                assert!(lease.is_some());
                assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                leading.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_compile_that_fails_lets_the_next_one_try() {
    let folder = folder();
    for cache in [
        layered(folder.path(), FOR_EVER).await,
        layered(folder.path(), FOR_EVER).await,
    ] {
        let failing = || async { Err("does not compile") };
        let failed = cache.get_or_insert_with(&key(1), failing).await;
        assert_eq!(
            failed.unwrap_err().failed().copied(),
            Some("does not compile")
        );
    }
    eventually("no lock", || lock_files(folder.path()).is_empty()).await;
}

async fn compiles_unshared(root: &Path, number: u64) {
    let cache = layered(root, FOR_EVER).await;
    let compile = || async { Ok::<_, Infallible>(artifact(10)) };
    let key = key(number);
    let compiled = cache.get_or_insert_with(&key, compile);
    assert_eq!(compiled.await.unwrap().source, CompileSource::Compiled);
    assert_eq!(cache.layered_metrics().unshared_compiles, 1);
    assert_eq!(awaited(&cache), 0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_compiled_for_without() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "ro", "ro"], folder.path()) else {
        return skip("no tmpfs");
    };
    compiles_unshared(folder.path(), 1).await;
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_lock_is_not_touched() {
    let folder = folder();
    let staging = folder.path().join(STAGING);
    fs::create_dir(&staging).unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let flight = |number| staging.join(format!("{}.compile", key(number)));
    std::os::unix::fs::symlink(&precious, flight(1)).unwrap();
    assert!(crate::support::run(
        "mkfifo",
        &[flight(2).to_str().unwrap()]
    ));
    for number in [1, 2] {
        compiles_unshared(folder.path(), number).await;
        assert!(!flight(number).symlink_metadata().unwrap().is_file());
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

/// Some network file systems have no locks. The kernel is made to say so.
#[test]
fn a_file_system_without_locks_is_compiled_for_without() {
    const TEST: &str = "a_file_system_without_locks_is_compiled_for_without";
    if is_child() {
        let root = std::env::var_os(ROOT).unwrap();
        return block_on(compiles_unshared(Path::new(&root), 1));
    }
    let folder = folder();
    let test = child(module_path!(), TEST);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=flock", "-o", "/dev/null"]);
    traced.args(["-e", "inject=flock:error=ENOLCK"]);
    traced.arg(test.get_program()).args(test.get_args());
    traced.env(ROLE, "child").env(ROOT, folder.path());
    match traced.output() {
        Ok(output) if crate::support::can_trace() => crate::support::assert_success(&output),
        _ => skip("no strace"),
    }
}

/// What is on the disk is there for others, however long the network takes.
#[cfg(feature = "testing")]
#[tokio::test]
async fn a_slow_network_keeps_no_other_process_waiting() {
    use pipeline_cache::testing::{Fault, FaultyStore};
    use pipeline_cache::{LookupSource, StoreOperation};

    let folder = folder();
    let remote = Arc::new(FaultyStore::new("remote").network());
    remote.set(StoreOperation::Put, Fault::Gate);
    let disk = DiskCache::builder().root(folder.path());
    let cache = LayeredPipelineCache::builder()
        .tier(disk.compile_locks().open().await.unwrap())
        .tier(Arc::clone(&remote))
        .write_policy(WritePolicy::Behind)
        .build();
    let compile = || async { Ok::<_, Infallible>(artifact(1)) };
    cache.get_or_insert_with(&key(1), compile).await.unwrap();

    // Its upload hangs, and the other has the artifact from the disk.
    let other = layered(folder.path(), FOR_EVER).await;
    let compiled = other.get_or_insert_with(&key(1), compile).await.unwrap();
    let from_disk = CompileSource::Cache(LookupSource::Tier(1));
    assert_eq!(compiled.source, from_disk);
    eventually("no lock", || lock_files(folder.path()).is_empty()).await;
    remote.open(StoreOperation::Put, 1);
    cache.flush().await.unwrap();
}
