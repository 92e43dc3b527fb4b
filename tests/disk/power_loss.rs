//! Power fails at any moment: what a flush has acknowledged is there, and nothing wrong is served.
//!
//! Every write, sync and rename of a process that puts and flushes is recorded with strace, and
//! replayed into a model of a file system that is cut off after each of them, in several ways:
//! all that was not synced is dropped, or only the data, only the names, or some of either. Each
//! outcome is opened as a cache. See `support/recording.rs` for what that cannot show.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment there are more entries, and 40 times a
//! chance of what is lost after each step instead of one.

use crate::support::recording::{self, Loss, Model, Step};
use crate::support::{
    ROLE, ROOT, artifact, block_on, child, folder, is_child, is_long, key, open, skip, temporaries,
};
use pipeline_cache::{DiskCache, PipelineCacheStore};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROUNDS: &str = "PIPELINE_CACHE_TEST_ROUNDS";

/// Puts of one round, at once.
const BATCH: u64 = 4;

fn len_of(number: u64) -> usize {
    (number * 37 % 400) as usize
}

/// Faults are counted for each thread by itself, so that with one they come in order.
fn run_on<T>(threads: usize, future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.max_blocking_threads(threads);
    runtime.build().unwrap().block_on(future)
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{what}").unwrap();
    out.flush().unwrap();
}

/// The recorded process.
async fn put_and_flush() {
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let rounds: u64 = std::env::var(ROUNDS).unwrap().parse().unwrap();
    let cache = open(root.join("new/cache")).await;
    for round in 0..rounds {
        let numbers = round * BATCH..(round + 1) * BATCH;
        let puts = numbers.clone().map(|number| put(&cache, number));
        futures::future::join_all(puts).await;
        flush(&cache, numbers.end).await;
        // What is durable may be put again, by one who does not flush.
        put(&cache, numbers.start).await;
        if round % 3 == 1 {
            let removed = numbers.start - 1;
            say(&format!("removes {removed}"));
            cache.remove(&key(removed)).await.unwrap();
        }
        if round % 3 == 2 {
            // A new entry in the place of one that was durable, whole both before and after.
            let again = numbers.start - 2;
            say(&format!("removes {again}"));
            cache.remove(&key(again)).await.unwrap();
            put(&cache, again).await;
            flush(&cache, numbers.end).await;
            say(&format!("has {again}"));
        }
    }
    put(&cache, u64::MAX).await;
    // As a process ends that nobody asked to close its cache.
}

async fn put(cache: &DiskCache, number: u64) {
    let artifact = artifact(len_of(number % 1000));
    cache.put(&key(number), artifact).await.unwrap();
}

/// Flushes until it succeeds, and says so.
async fn flush(cache: &DiskCache, end: u64) {
    let mut failures = 0;
    while cache.flush().await.is_err() {
        failures += 1;
        assert!(failures < 100);
    }
    assert!(cache.durability_report().durable);
    say(&format!("flushed {end} after {failures} failures"));
}

/// The log of the test's other process, with some system calls made to fail; and what it
/// recorded.
fn record(test: &str, root: &Path, rounds: u64, faults: &[&str]) -> Option<String> {
    let logs = folder();
    let log = logs.path().join("log");
    let test = child(module_path!(), test);
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-xx", "-s", "1000000", "-o"])
        .arg(&log);
    traced.args(["-e", &format!("trace={}", recording::CALLS)]);
    for fault in faults {
        traced.args(["-e", &format!("inject={fault}")]);
    }
    traced.arg(test.get_program()).args(test.get_args());
    traced.env(ROLE, "child").env(ROOT, root);
    traced.env(ROUNDS, rounds.to_string());
    if !crate::support::can_trace() {
        return None;
    }
    crate::support::assert_success(&traced.output().unwrap());
    Some(fs::read_to_string(log).unwrap())
}

/// What the process has promised so far.
#[derive(Default)]
struct Promised {
    /// All numbers before this, except those removed.
    end: u64,
    removed: BTreeSet<u64>,
    failures: u64,
}

impl Promised {
    fn hear(&mut self, said: &str) {
        let words: Vec<_> = said.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let number = || words[at + 1].parse().unwrap();
            match *word {
                "flushed" => {
                    self.end = number();
                    self.failures += words[at + 3].parse::<u64>().unwrap();
                }
                "removes" => drop(self.removed.insert(number())),
                "has" => drop(self.removed.remove(&number())),
                _ => {}
            }
        }
    }

    async fn check(&self, root: &Path, all: u64, when: &str) {
        let root = root.join("new/cache");
        if self.end == 0 && !root.exists() {
            return;
        }
        let cache = open(&root).await;
        assert_eq!(temporaries(&root), [""; 0], "{when}");
        for number in (0..all).chain([u64::MAX]) {
            let got = cache.get(&key(number)).await.unwrap();
            match got {
                Some(got) => assert_eq!(got, artifact(len_of(number % 1000)), "{when}: {number}"),
                None => {
                    let may_lack = number >= self.end || self.removed.contains(&number);
                    assert!(may_lack, "{when}: {number} was flushed and is gone");
                }
            }
        }
    }
}

/// Records, and cuts off everywhere; how many failures of a flush there were.
fn survives(test: &str, faults: &[&str]) -> Option<u64> {
    let parent = folder();
    let root = parent.path().canonicalize().unwrap();
    let rounds = if is_long() { 12 } else { 3 };
    let chances = if is_long() { 40 } else { 1 };
    let log = record(test, &root, rounds, faults)?;
    let calls = recording::read(&log);
    let mut model = Model::new(&root);
    let mut promised = Promised::default();
    let mut cuts = 0;
    block_on(async {
        for (moment, step) in recording::steps(&calls).iter().enumerate() {
            if let Step::Says(said) = step {
                promised.hear(said);
            } else if !model.apply(&calls, step) {
                continue;
            }
            let chances = (0..chances).map(|chance| Loss::Some(moment as u64 * 1000 + chance + 1));
            let losses = [Loss::Everything, Loss::Data, Loss::Names, Loss::Nothing];
            for loss in losses.into_iter().chain(chances) {
                let after = folder();
                model.after(loss, after.path());
                let when = format!("{loss:?} lost after {step:?}");
                promised.check(after.path(), rounds * BATCH, &when).await;
                cuts += 1;
            }
        }
    });
    assert_eq!(promised.end, rounds * BATCH, "the recording is whole");
    println!(
        "{} calls, {cuts} outcomes, {} failed flushes",
        calls.len(),
        promised.failures
    );
    Some(promised.failures)
}

/// Of two threads: the second has the number of a file that the first is not yet seen to have
/// closed, as happens where the recorder is slow.
#[test]
fn a_recording_has_the_files_of_two_threads_apart() {
    let hex =
        |text: &str| -> String { text.bytes().map(|byte| format!("\\x{byte:02x}")).collect() };
    let (old, new) = (hex("/root/new/old"), hex("/root/new/file"));
    let log = [
        &format!("1 mkdir(\"{}\", 0777 <unfinished ...>", hex("/root/new")),
        &format!("2 openat(AT_FDCWD, \"{old}\", O_WRONLY|O_CREAT, 0666) = 7"),
        "1 <... mkdir resumed>) = 0",
        "1 close(7 <unfinished ...>",
        &format!("2 openat(AT_FDCWD, \"{new}\", O_WRONLY|O_CREAT, 0666) = 7"),
        "1 <... close resumed>) = 0",
        &format!("2 write(7, \"{}\", 4) = 4", hex("data")),
        "2 fdatasync(7) = 0",
    ];
    let calls = recording::read(&log.join("\n"));
    let mut model = Model::new(Path::new("/root"));
    for step in recording::steps(&calls) {
        model.apply(&calls, &step);
    }
    let after = folder();
    // Names are there, and of files what was synced.
    model.after(Loss::Data, after.path());
    assert_eq!(fs::read(after.path().join("new/file")).unwrap(), b"data");
    assert_eq!(fs::read(after.path().join("new/old")).unwrap(), b"");
}

#[test]
fn what_was_flushed_survives_a_power_loss_at_any_moment() {
    const TEST: &str = "what_was_flushed_survives_a_power_loss_at_any_moment";
    if is_child() {
        return block_on(put_and_flush());
    }
    match survives(TEST, &[]) {
        Some(failures) => assert_eq!(failures, 0),
        None => skip("no strace"),
    }
}

/// A sync that failed has lost what it was to save, and the next one does not know.
#[test]
fn it_does_after_failed_syncs_of_data() {
    const TEST: &str = "it_does_after_failed_syncs_of_data";
    if is_child() {
        return run_on(1, put_and_flush());
    }
    match survives(TEST, &["fdatasync:error=EIO:when=2+5"]) {
        Some(failures) => assert!(failures > 0),
        None => skip("no strace"),
    }
}

#[test]
fn it_does_after_failed_syncs_of_names() {
    const TEST: &str = "it_does_after_failed_syncs_of_names";
    if is_child() {
        return run_on(1, put_and_flush());
    }
    match survives(TEST, &["fsync:error=EIO:when=4+3"]) {
        Some(failures) => assert!(failures > 0),
        None => skip("no strace"),
    }
}
