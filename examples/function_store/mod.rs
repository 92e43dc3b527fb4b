//! Functions that wasmtime has compiled, kept in a layered cache.
//!
//! wasmtime can ask a store for each function before it compiles it, and so compiles no more than
//! what changed in a module. It asks by a key of its own, from threads of its own, and waits.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipeline_cache::{
    Artifact, CompileScope, LayeredPipelineCache, LookupOptions, OpaqueProgram,
    PipelineFingerprint, TierSelection, Unkeyable,
};
use tokio::runtime::Handle;
use tokio::time::timeout;
use wasmtime::CacheStore;

/// What the keys of wasmtime are called in ours.
const FORMAT: &str = "wasmtime function";

/// A key is a hash. What is longer is none.
const MAX_KEY_BYTES: usize = 64;

/// The largest function that is stored.
const MAX_FUNCTION_BYTES: usize = 16 << 20;

/// How long the cache is passed by after it took so long. Without this each of the thousand
/// functions of a module would wait for a disk that hangs.
const PAUSE: Duration = Duration::from_secs(10);

/// A store of compiled functions on a layered cache, of which only the local tiers are asked.
///
/// A tier that fails is a miss: the function is compiled. One that takes longer than the deadline is a
/// miss too, and the cache is not asked for 10 s. An entry is named by the key that wasmtime
/// gives it, which holds the function and the settings of the code generator, and by the scope of
/// the compiler, which holds its build.
///
/// Its methods block the thread that they are called on, and panic on a worker of the runtime. The
/// threads of wasmtime and those of the compile pool may block; so it can be used by compiles that
/// [`run`](pipeline_cache::layered::CompileRequest::run), and not by those that `run_async`.
#[derive(Debug)]
pub(crate) struct FunctionStore {
    cache: LayeredPipelineCache,
    /// Stands for the scope, and tells functions from all else. A module has a thousand functions:
    /// to hash the scope with each would take as long as to look it up.
    scoped: [u8; PipelineFingerprint::LEN],
    options: LookupOptions,
    runtime: Handle,
    /// How long a compile waits for one function.
    deadline: Duration,
    /// Until when the cache is not asked.
    paused: Mutex<Option<Instant>>,
}

impl FunctionStore {
    /// Keeps the functions that are compiled in this scope. The tiers of the cache wait on this
    /// runtime.
    pub(crate) fn new(
        cache: LayeredPipelineCache,
        scope: &CompileScope,
        runtime: Handle,
        deadline: Duration,
    ) -> Result<Self, Unkeyable> {
        let scoped = PipelineFingerprint::of(&OpaqueProgram::new(FORMAT, ""))?.scoped(scope);
        let options = LookupOptions::new();
        Ok(Self {
            cache,
            scoped: *scoped.as_bytes(),
            options: options.tiers(TierSelection::Local).deadline(deadline),
            runtime,
            deadline,
            paused: Mutex::default(),
        })
    }

    /// Waits for the cache, unless it kept a compile waiting a short while ago.
    fn wait<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let start = Instant::now();
        if self.paused().is_some_and(|until| start < until) {
            return None;
        }
        let answer = async { timeout(self.deadline, answer).await.ok() };
        let answer = self.runtime.block_on(answer);
        if start.elapsed() >= self.deadline {
            *self.paused() = Some(Instant::now() + PAUSE);
        }
        answer
    }

    fn paused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a function is stored under. `None` where that is no key.
    fn key(&self, key: &[u8]) -> Option<PipelineFingerprint> {
        let is_key = key.len() <= MAX_KEY_BYTES;
        is_key.then(|| {
            PipelineFingerprint::from_bytes(*blake3::keyed_hash(&self.scoped, key).as_bytes())
        })
    }
}

impl CacheStore for FunctionStore {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let key = self.key(key)?;
        let lookup = self.wait(self.cache.lookup(&key, &self.options))?;
        let artifact = lookup.into_artifact()?;
        Some(Cow::Owned(artifact.payload().to_vec()))
    }

    fn insert(&self, key: &[u8], function: Vec<u8>) -> bool {
        let Some(key) = self.key(key) else {
            return false;
        };
        if function.len() > MAX_FUNCTION_BYTES {
            return false;
        }
        let put = self.cache.put(&key, Artifact::new(function));
        self.wait(put).is_some_and(|put| put.is_ok())
    }
}
