//! Whatever is done to a cache and its folder, in whatever order, it answers as a map would, or
//! says why it cannot.
//!
//! Faults are real ones: a file system without room, a folder without permissions, limits of open
//! files and of their sizes, reads and syncs that the kernel is made to fail (by strace), bits that
//! rot, folders that are removed, links in place of files. They come and go between operations. The
//! test runs as a user without rights, since nothing is denied to root.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment it does 100,000 operations; without, a
//! share of that, in a few seconds.

use crate::support::{
    Mount, ROLE, ROOT, Random, artifact_of, child, entry, folder, is_child, is_long, key, open,
    skip, temporaries,
};
use futures::TryStreamExt as _;
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, StoreError, StoreErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const KEYS: u64 = 40;

/// A user and a group without rights.
const NOBODY: u32 = 65534;

fn artifact_under(number: u64) -> Artifact {
    artifact_of(number, (number * 7919 % 5000) as usize)
}

/// What the model holds under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Whole,
    Damaged,
    /// A symbolic link.
    Unsafe,
}

/// What is wrong during one operation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// No more files can be opened.
    NoFiles,
    /// No file can be written beyond its hundredth byte.
    NoSize,
    /// Nothing can be created or removed in the folder.
    ReadOnly,
    /// Nothing in the folder can be reached.
    Closed,
}

/// Makes an operation fail until it is dropped.
struct Suffering<'a>(Fault, &'a Path);

impl<'a> Suffering<'a> {
    fn begin(fault: Fault, root: &'a Path) -> Self {
        let suffering = Self(fault, root);
        suffering.set(true);
        suffering
    }

    fn set(&self, suffers: bool) {
        let limit = |resource, low| {
            let Rlimit { maximum, .. } = getrlimit(resource);
            let current = if suffers { Some(low) } else { maximum };
            setrlimit(resource, Rlimit { current, maximum }).unwrap();
        };
        let mode = |low| {
            let mode = if suffers { low } else { 0o700 };
            fs::set_permissions(self.1, Permissions::from_mode(mode)).unwrap();
        };
        match self.0 {
            Fault::NoFiles => limit(Resource::Nofile, 1),
            Fault::NoSize => limit(Resource::Fsize, 100),
            Fault::ReadOnly => mode(0o500),
            Fault::Closed => mode(0o000),
        }
    }
}

impl Drop for Suffering<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What a file system that is full is full of.
struct Ballast(PathBuf);

impl Ballast {
    fn load(&self) {
        let mut file = File::create(&self.0).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn is_loaded(&self) -> bool {
        self.0.exists()
    }

    fn shed(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A cache, its folder, and what a map would hold.
struct Model {
    cache: DiskCache,
    root: PathBuf,
    ballast: Ballast,
    held: BTreeMap<u64, Held>,
    random: Random,
    /// How often an operation failed, by what it said.
    failures: BTreeMap<String, u64>,
}

impl Model {
    async fn new(parent: &Path) -> Self {
        let root = parent.join("cache");
        Self {
            cache: open(&root).await,
            ballast: Ballast(parent.join("ballast")),
            root,
            held: BTreeMap::new(),
            random: Random(3),
            failures: BTreeMap::new(),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        entry(&self.root, &key(number))
    }

    fn is_there(&self, number: u64) -> bool {
        self.path(number).symlink_metadata().is_ok()
    }

    /// A failure that the faults there are can explain.
    fn explain(&mut self, fault: Option<Fault>, error: &StoreError) {
        use StoreErrorKind::{Io, PermissionDenied, StorageFull};
        let kind = error.kind();
        let explained = match kind {
            StorageFull => self.ballast.is_loaded(),
            PermissionDenied => matches!(fault, Some(Fault::ReadOnly | Fault::Closed)),
            // A read or a sync may fail at any time.
            Io => true,
            _ => false,
        };
        assert!(explained, "{fault:?}: {error}");
        let what = match fault {
            Some(fault) => format!("{}: {kind} ({fault:?})", error.operation()),
            None => format!("{}: {kind}", error.operation()),
        };
        *self.failures.entry(what).or_default() += 1;
    }

    async fn step(&mut self) {
        let number = self.random.below(KEYS);
        let fault = match self.random.below(40) {
            0 => Some(Fault::NoFiles),
            1 => Some(Fault::NoSize),
            2 => Some(Fault::ReadOnly),
            3 => Some(Fault::Closed),
            _ => None,
        };
        match self.random.below(100) {
            0..30 => self.put(number, fault).await,
            30..64 => self.get(number, fault).await,
            64..70 => self.contains(number, fault).await,
            70..79 => self.remove(number, fault).await,
            79..83 => self.flush().await,
            83..87 => self.rot(number),
            87 => self.tidy(number),
            88..90 => self.link(number),
            90 if self.random.below(20) == 0 => self.remove_folder(),
            91 => self.reopen().await,
            92 if self.random.below(5) == 0 => self.verify().await,
            93 if self.random.below(5) == 0 => self.trim().await,
            94 if self.random.below(20) == 0 => self.clear().await,
            95 if self.random.below(2) == 0 => self.ballast.load(),
            96..98 => self.ballast.shed(),
            _ => {}
        }
    }

    /// Runs an operation while something is wrong.
    async fn suffer<T>(
        &self,
        fault: Option<Fault>,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let _suffering = fault.map(|fault| Suffering::begin(fault, &self.root));
        operation.await
    }

    async fn put(&mut self, number: u64, fault: Option<Fault>) {
        let (key, artifact) = (key(number), artifact_under(number));
        match self.suffer(fault, self.cache.put(&key, artifact)).await {
            Ok(()) => drop(self.held.insert(number, Held::Whole)),
            // And nothing has changed, as the next look will tell.
            Err(error) => self.explain(fault, &error),
        }
    }

    async fn get(&mut self, number: u64, fault: Option<Fault>) {
        let key = key(number);
        let held = self.held.get(&number).copied();
        match (held, self.suffer(fault, self.cache.get(&key)).await) {
            (Some(Held::Whole), Ok(Some(got))) => assert_eq!(got, artifact_under(number)),
            (Some(Held::Damaged), Ok(None)) => {
                // Set aside, unless that was denied.
                if !self.is_there(number) {
                    self.held.remove(&number);
                } else {
                    assert!(fault.is_some(), "{number} was not set aside");
                }
            }
            (None, Ok(None)) => {}
            (Some(Held::Unsafe), Err(error)) if error.kind() == StoreErrorKind::UnsafeEntry => {}
            (_, Err(error)) => self.explain(fault, &error),
            (held, got) => panic!("{held:?}, {fault:?}, and got {got:?}"),
        }
    }

    async fn contains(&mut self, number: u64, fault: Option<Fault>) {
        let key = key(number);
        let held = self.held.get(&number).copied();
        match (held, self.suffer(fault, self.cache.contains(&key)).await) {
            (Some(Held::Whole | Held::Damaged), Ok(true)) | (None, Ok(false)) => {}
            (Some(Held::Unsafe), Err(error)) if error.kind() == StoreErrorKind::UnsafeEntry => {}
            (_, Err(error)) => self.explain(fault, &error),
            (held, got) => panic!("{held:?}, {fault:?}, and contains {got:?}"),
        }
    }

    async fn remove(&mut self, number: u64, fault: Option<Fault>) {
        let key = key(number);
        let held = self.held.get(&number).copied();
        match (held, self.suffer(fault, self.cache.remove(&key)).await) {
            (Some(Held::Whole | Held::Damaged), Ok(true)) => drop(self.held.remove(&number)),
            (None, Ok(false)) => {}
            (Some(Held::Unsafe), Err(error)) if error.kind() == StoreErrorKind::UnsafeEntry => {}
            (_, Err(error)) => self.explain(fault, &error),
            (held, got) => panic!("{held:?}, {fault:?}, and removed {got:?}"),
        }
    }

    async fn flush(&mut self) {
        match self.cache.flush().await {
            Ok(()) => assert!(self.cache.durability_report().durable),
            Err(error) => {
                // What was found damaged before it was durable is lost, and awaits nothing.
                let is_loss = format!("{error:#}").contains("was lost");
                assert!(is_loss || !self.cache.durability_report().durable);
                self.explain(None, &error);
            }
        }
        // What a flush has to write anew it reads; what it cannot, it sets aside.
        self.look_for_the_damaged();
    }

    /// Some damaged entries may have been found and set aside.
    fn look_for_the_damaged(&mut self) {
        let root = self.root.clone();
        self.held.retain(|number, held| {
            *held != Held::Damaged || entry(&root, &key(*number)).symlink_metadata().is_ok()
        });
    }

    fn rot(&mut self, number: u64) {
        if self.held.get(&number) != Some(&Held::Whole) {
            return;
        }
        let path = self.path(number);
        // Reads may fail here as well.
        let mut frame = (0..100).find_map(|_| fs::read(&path).ok()).unwrap();
        let bit = self.random.below(frame.len() as u64 * 8);
        frame[bit as usize / 8] ^= 1 << (bit % 8);
        fs::write(&path, frame).unwrap();
        self.held.insert(number, Held::Damaged);
    }

    fn tidy(&mut self, number: u64) {
        let _ = fs::remove_file(self.path(number));
        self.held.remove(&number);
    }

    fn link(&mut self, number: u64) {
        self.tidy(number);
        symlink("nowhere", self.path(number)).unwrap();
        self.held.insert(number, Held::Unsafe);
    }

    fn remove_folder(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
        fs::create_dir(&self.root).unwrap();
        self.held.clear();
    }

    async fn reopen(&mut self) {
        if let Err(error) = self.cache.close(Duration::from_secs(60)).await {
            self.explain(None, &error);
        }
        self.look_for_the_damaged();
        self.cache = open(&self.root).await;
        assert_eq!(temporaries(&self.root), [""; 0]);
    }

    async fn verify(&mut self) {
        let checks: Vec<_> = self.cache.verify().try_collect().await.unwrap();
        assert_eq!(checks.len(), self.held.len());
        for check in checks {
            let number = (0..KEYS).find(|number| key(*number) == check.key).unwrap();
            match (self.held[&number], check.health) {
                (Held::Whole, DiskCacheHealth::Whole) => {}
                (Held::Unsafe, DiskCacheHealth::Unsafe) => {}
                (Held::Damaged, DiskCacheHealth::Corrupt(_)) => drop(self.held.remove(&number)),
                (_, DiskCacheHealth::Unreadable(error)) => self.explain(None, &error),
                (held, health) => panic!("{held:?}, and found {health:?}"),
            }
        }
    }

    /// How many files of entries there are.
    fn files(&self) -> u64 {
        let files = self.held.values().filter(|held| **held != Held::Unsafe);
        files.count() as u64
    }

    async fn trim(&mut self) {
        let bounded = DiskCache::builder().root(&self.root).max_entries(KEYS / 2);
        let report = bounded.open().await.unwrap().trim().await.unwrap();
        assert_eq!(report.scanned, self.files());
        let left = report.scanned - report.removed;
        assert_eq!(left, report.scanned.min(KEYS / 2));
        for number in 0..KEYS {
            if !self.is_there(number) {
                self.held.remove(&number);
            }
        }
        assert_eq!(self.files(), left, "nothing but what was trimmed is gone");
    }

    async fn clear(&mut self) {
        assert_eq!(self.cache.clear().await.unwrap(), self.files());
        self.held.retain(|_, held| *held == Held::Unsafe);
    }
}

async fn work(parent: &Path) {
    let operations = if is_long() { 100_000 } else { 4000 };
    let start = Instant::now();
    let mut model = Model::new(parent).await;
    for _ in 0..operations {
        model.step().await;
    }
    println!("{operations} operations in {:?}", start.elapsed());
    for (what, times) in &model.failures {
        println!("{times} times {what}");
    }
    for what in [
        "put: no space left",
        "put: permission denied (ReadOnly)",
        "remove: permission denied (ReadOnly)",
        "get: permission denied (Closed)",
        "put: I/O error (NoSize)",
        "get: I/O error (NoFiles)",
        "get: I/O error",
        "flush: I/O error",
    ] {
        assert!(model.failures.contains_key(what), "no {what}");
    }
    // Nothing is wrong any more, but for reads and syncs now and then.
    model.ballast.shed();
    for number in 0..KEYS {
        while !model.held.contains_key(&number) || !model.is_there(number) {
            model.put(number, None).await;
        }
        model.get(number, None).await;
    }
    model.reopen().await;
}

/// In order, and in as few threads as can be: faults are counted for each by itself.
fn run(parent: &Path) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1);
    runtime.build().unwrap().block_on(work(parent));
}

#[test]
fn every_operation_answers_as_a_map_would() {
    const TEST: &str = "every_operation_answers_as_a_map_would";
    if is_child() {
        return run(Path::new(&std::env::var_os(ROOT).unwrap()));
    }
    let folder = folder();
    let readable = Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), readable).unwrap();
    let parent = folder.path().join("parent");
    fs::create_dir(&parent).unwrap();
    let options = format!("size=1m,uid={NOBODY},gid={NOBODY},mode=0700");
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", &options, "faults"], &parent) else {
        return skip("no tmpfs");
    };
    if !crate::support::can_trace() {
        return skip("no strace");
    }
    // Where nobody may look, they cannot start a program.
    let program = folder.path().join("program");
    let test = child(module_path!(), TEST);
    fs::copy(test.get_program(), &program).unwrap();

    // What is too large for a limit is an error, and no signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
    command.args(["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=read,fdatasync"]);
    command.args(["-e", "inject=read:error=EIO:when=20+31"]);
    command.args(["-e", "inject=fdatasync:error=EIO:when=20+41"]);
    for number in 0..KEYS {
        let path = entry(parent.join("cache"), &key(number));
        command.arg("-P").arg(path);
    }
    command.arg(&program).args(test.get_args());
    command.env(ROLE, "child").env(ROOT, &parent);
    command.current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    crate::support::assert_success(&output);
}
