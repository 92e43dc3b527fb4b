//! What the tests of the disk tier share. No promise is tested here.

#[cfg(target_os = "linux")]
pub(crate) mod recording;

use pipeline_cache::{Artifact, ArtifactMetadata, DiskCache, PipelineFingerprint};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A key of its own for each number, spread as real keys are.
pub(crate) fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// An artifact of so many bytes, none of them like their neighbours.
pub(crate) fn artifact(len: usize) -> Artifact {
    let mut payload = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut payload);
    Artifact::with_metadata(payload, ArtifactMetadata::new().with_provenance("test"))
}

/// The artifact of a number: what is served under another, or in part, shows.
pub(crate) fn artifact_of(number: u64, len: usize) -> Artifact {
    let mut payload = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::new(payload)
}

/// Numbers that are the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Whether the long tests are to run whole.
pub(crate) fn is_long() -> bool {
    std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.build().unwrap().block_on(future)
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) async fn open(root: impl Into<PathBuf>) -> DiskCache {
    DiskCache::new(root).await.unwrap()
}

pub(crate) fn entry(root: impl AsRef<Path>, key: &PipelineFingerprint) -> PathBuf {
    root.as_ref().join(format!("{key}.bin"))
}

/// The names in a folder, in order, but those of the folder for temporary files and of the count.
pub(crate) fn names(root: impl AsRef<Path>) -> Vec<String> {
    let files = fs::read_dir(root).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != STAGING && name != USAGE);
    names.sort();
    names
}

/// Where temporary files and locks are.
pub(crate) const STAGING: &str = ".staging";

/// Where the caches count what the folder holds.
pub(crate) const USAGE: &str = ".usage";

/// The temporary files of a cache.
pub(crate) fn temporaries(root: impl AsRef<Path>) -> Vec<String> {
    let staging = root.as_ref().join(STAGING);
    let mut names = if staging.exists() {
        names(staging)
    } else {
        Vec::new()
    };
    names.retain(|name| name.ends_with(".tmp"));
    names
}

/// Says that this machine cannot run a test; where that is not acceptable, fails it.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "must not be skipped in CI: {why}"
    );
    println!("skipped: {why}");
}

/// Runs a command; whether it succeeded.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Whether the system calls of another process can be recorded and made to fail.
pub(crate) fn can_trace() -> bool {
    run("strace", &["-qq", "-o", "/dev/null", "true"])
}

/// A mounted file system, unmounted at the end.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts; `None` where that is not permitted.
    pub(crate) fn new(arguments: &[&str], at: &Path) -> Option<Self> {
        let at_text = at.to_str().unwrap();
        let arguments = [arguments, &[at_text]].concat();
        run("mount", &arguments).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// Tells another process of the folder it is to use.
pub(crate) const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";

/// In which of the processes of a test this is: the variable is set in the other one.
pub(crate) const ROLE: &str = "PIPELINE_CACHE_TEST_ROLE";

pub(crate) fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// A command that runs one test of this binary in another process. `module` is what
/// `module_path!()` says beside the test.
pub(crate) fn child(module: &str, test: &str) -> Command {
    let (_, module) = module.split_once("::").unwrap();
    let test = format!("{module}::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(ROLE, "child");
    command
}

pub(crate) fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Calls `end` when it is dropped, also by a panic.
pub(crate) fn on_drop(end: impl FnMut()) -> impl Drop {
    struct End<F: FnMut()>(F);
    impl<F: FnMut()> Drop for End<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    End(end)
}
