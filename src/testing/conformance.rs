//! The contract of a tier, as checks that any tier can be put to.

use futures::future::{join_all, poll_immediate};
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::timeout;

use crate::artifact::{Artifact, ArtifactMetadata};
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError, StoreErrorKind};

/// A promise of [`PipelineCacheStore`] that a tier does not keep.
///
/// See [`check_conformance`] for an example.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tier} breaks a promise: {promise}: {detail}")]
pub struct ConformanceError {
    /// The tier, as it names itself.
    pub tier: String,
    /// The promise.
    pub promise: &'static str,
    /// What was seen instead.
    pub detail: String,
}

/// How long any one call may take before it counts as stuck.
const STUCK: Duration = Duration::from_secs(30);

/// How much of its thread's time a poll may use. A tier that hashes [`LARGE`] on the worker uses
/// more, on any machine of today.
const LONGEST_WORK: Duration = Duration::from_millis(8);

/// How long a poll may take in all. Above what a busy machine adds, and below what a tier takes
/// that writes [`LARGE`] to a disk on the worker.
const LONGEST_POLL: Duration = Duration::from_millis(60);

/// The artifact whose calls are timed, in bytes.
const LARGE: usize = 60 << 20;

/// Checks that a tier keeps the contract of [`PipelineCacheStore`]. Needs the feature `testing`.
///
/// `new_store` makes a fresh, empty tier each time it is called. `secrets` are texts that the tier
/// was given and must never print. A read-only tier is tested only for reporting that it is read-only.
///
/// Needs a tokio runtime with its timer. Takes some seconds for a tier on a disk.
///
/// # Errors
///
/// The first promise that was found broken.
///
/// # Cancel safety
///
/// Dropping the future ends the checks; the tiers made are dropped with it.
///
/// ```
/// use pipeline_cache::testing::check_conformance;
/// use pipeline_cache::{InMemoryPipelineCache, PipelineCacheStore};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::testing::ConformanceError> {
/// // Your own tier here.
/// let new_store = || async { Arc::new(InMemoryPipelineCache::new()) as Arc<dyn PipelineCacheStore> };
/// check_conformance(new_store, &["its password"]).await
/// # }
/// ```
pub async fn check_conformance<F, S>(new_store: F, secrets: &[&str]) -> Result<(), ConformanceError>
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn PipelineCacheStore>>,
{
    let store = new_store().await;
    Check::new(&store).prints_no(secrets)?;
    if !store.is_writable() {
        return Check::new(&store).says_that_it_is_read_only().await;
    }
    Check::new(&store).returns_the_whole_artifact().await?;
    Check::new(&new_store().await).keeps_parts().await?;
    Check::new(&new_store().await).tells_keys_apart().await?;
    Check::new(&new_store().await).answers_many_keys().await?;
    Check::new(&new_store().await)
        .takes_one_key_many_times()
        .await?;
    Check::new(&new_store().await)
        .forgets_what_is_removed()
        .await?;
    Check::new(&new_store().await)
        .serves_wholes_while_it_changes()
        .await?;
    Check::new(&new_store().await)
        .survives_dropped_calls()
        .await?;
    Check::new(&new_store().await).keeps_no_thread().await?;
    Check::new(&new_store().await)
        .refuses_what_is_too_large()
        .await?;
    Check::new(&new_store().await).counts().await?;
    Check::new(&new_store().await).keeps_aliases_apart().await?;
    Check::new(&new_store().await).closes().await
}

/// One tier under examination.
struct Check<'a> {
    store: &'a Arc<dyn PipelineCacheStore>,
}

type Checked = Result<(), ConformanceError>;

fn key(n: u32) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Bytes that no shift or swap of them equals.
fn payload(n: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

impl<'a> Check<'a> {
    fn new(store: &'a Arc<dyn PipelineCacheStore>) -> Self {
        Self { store }
    }

    fn broken(&self, promise: &'static str, detail: impl fmt::Display) -> ConformanceError {
        ConformanceError {
            tier: self.store.to_string(),
            promise,
            detail: detail.to_string(),
        }
    }

    fn require(&self, holds: bool, promise: &'static str, detail: impl fmt::Display) -> Checked {
        if holds {
            Ok(())
        } else {
            Err(self.broken(promise, detail))
        }
    }

    /// A call that must succeed, and in time.
    async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ConformanceError> {
        match timeout(STUCK, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.broken("calls on a sound tier succeed", error)),
            Err(_) => Err(self.broken("every call ends", format!("{what} is stuck"))),
        }
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: &Artifact) -> Checked {
        self.call("a put", self.store.put(key, artifact.clone()))
            .await
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, ConformanceError> {
        self.call("a get", self.store.get(key)).await
    }

    fn prints_no(&self, secrets: &[&str]) -> Checked {
        const PROMISE: &str = "secrets are never printed";
        let printed = [format!("{:?}", self.store), self.store.to_string()];
        self.require(
            !printed[1].is_empty(),
            "a tier names itself",
            "Display is empty",
        )?;
        for secret in secrets {
            for text in &printed {
                self.require(
                    !text.contains(secret),
                    PROMISE,
                    "Debug or Display holds one",
                )?;
            }
        }
        Ok(())
    }

    async fn says_that_it_is_read_only(&self) -> Checked {
        const PROMISE: &str = "a tier that takes no writes says so";
        let key = key(0);
        match timeout(STUCK, self.store.put(&key, Artifact::new("x"))).await {
            Ok(Err(error)) => {
                let kind = error.kind();
                self.require(
                    kind == StoreErrorKind::ReadOnly,
                    PROMISE,
                    format!("{kind:?}"),
                )
            }
            Ok(Ok(())) => Err(self.broken(PROMISE, "a put succeeded")),
            Err(_) => Err(self.broken("every call ends", "a put is stuck")),
        }
    }

    async fn returns_the_whole_artifact(&self) -> Checked {
        const PROMISE: &str = "a get returns the whole artifact that was put";
        let metadata = ArtifactMetadata::new()
            .with_provenance("conformance")
            .with_device("d")
            .with_compile_time(Duration::from_nanos(12_345));
        for (n, len) in [0, 1, 4_095, 4_096, 65_536, 65_537, 1 << 20]
            .into_iter()
            .enumerate()
        {
            let key = key(n as u32);
            let artifact = Artifact::with_metadata(payload(n as u32, len), metadata.clone());
            self.put(&key, &artifact).await?;
            let fetched = self.call("a fetch", self.store.fetch(&key)).await?;
            for found in [self.get(&key).await?, fetched.into_artifact()] {
                let Some(found) = found else {
                    return Err(self.broken(PROMISE, format!("{len} bytes are not there")));
                };
                let same = found.payload() == artifact.payload()
                    && found.metadata() == artifact.metadata()
                    && found.digest() == artifact.digest();
                self.require(same, PROMISE, format!("{len} bytes came back changed"))?;
            }
            let peeked = self.store.peek(&key);
            let agrees = peeked.is_none_or(|peeked| peeked == artifact);
            self.require(agrees, "a peek agrees with a get", format!("{len} bytes"))?;
            let contained = self.call("a contains", self.store.contains(&key)).await?;
            self.require(
                contained,
                "contains agrees with get",
                format!("{len} bytes"),
            )?;
        }
        Ok(())
    }

    async fn keeps_parts(&self) -> Checked {
        const PROMISE: &str = "a get returns the parts that were put";
        for (n, len) in [10, 100_000].into_iter().enumerate() {
            let key = key(n as u32);
            let artifact = Artifact::builder()
                .part("code", payload(n as u32, len))
                .part("warnings", "line 1: `x` is never read")
                .part("empty", "")
                .build()
                .map_err(|error| self.broken(PROMISE, error))?;
            self.put(&key, &artifact).await?;
            let fetched = self.call("a fetch", self.store.fetch(&key)).await?;
            let found = [fetched.into_artifact(), self.get(&key).await?];
            let peeked = self.store.peek(&key).map(Some);
            for found in found.into_iter().chain(peeked) {
                let same = found.is_some_and(|found| found.parts().eq(artifact.parts()));
                self.require(
                    same,
                    PROMISE,
                    format!("parts of {len} bytes came back changed"),
                )?;
            }
        }
        Ok(())
    }

    async fn tells_keys_apart(&self) -> Checked {
        const PROMISE: &str = "a get never returns another key's artifact";
        // Keys that differ in one bit, at either end.
        let base = [0x5a; 32];
        let keys = [(0, 1), (0, 0x80), (31, 1), (31, 0x80), (16, 0)].map(|(at, flip)| {
            let mut bytes: [u8; 32] = base;
            bytes[at] ^= flip;
            PipelineFingerprint::from_bytes(bytes)
        });
        for (n, key) in keys.iter().enumerate() {
            let before = self.get(key).await?;
            self.require(
                before.is_none(),
                PROMISE,
                "a key that was not put was found",
            )?;
            self.put(key, &Artifact::new(payload(n as u32, 100)))
                .await?;
        }
        for (n, key) in keys.iter().enumerate() {
            let found = self.get(key).await?;
            let own = found.is_none_or(|found| found.payload()[..] == payload(n as u32, 100));
            self.require(own, PROMISE, "one that differs in a bit was found")?;
        }
        Ok(())
    }

    /// Also where it is asked twice for one key, for none, and where a call is dropped on its way.
    async fn answers_many_keys(&self) -> Checked {
        const PROMISE: &str = "a fetch of many keys answers each of them, in their order";
        // Some that are not there, and some that are large.
        let put = |n: u32| n % 3 != 0;
        let len = |n: u32| if n % 8 == 1 { 100_000 } else { 100 };
        for n in (0..40).filter(|&n| put(n)) {
            self.put(&key(n), &Artifact::new(payload(n, len(n))))
                .await?;
        }
        let numbers: Vec<u32> = (0..40).chain([7, 6, 7, 39]).collect();
        let keys: Vec<_> = numbers.iter().map(|&n| key(n)).collect();
        for polls in [0, 1, 2, 3, 5, 8] {
            give_up_after(polls, self.store.fetch_many(&keys)).await;
        }
        for asked in [0, 1, 2, numbers.len()] {
            let answers = timeout(STUCK, self.store.fetch_many(&keys[..asked])).await;
            let answers = answers
                .map_err(|_| self.broken("every call ends", "a fetch of many keys is stuck"))?;
            let detail = format!("{} answers to {asked} keys", answers.len());
            self.require(answers.len() == asked, PROMISE, detail)?;
            for (&n, answer) in numbers.iter().zip(answers) {
                let found = answer
                    .map_err(|error| self.broken("calls on a sound tier succeed", error))?
                    .into_artifact();
                let right = match found {
                    Some(found) => put(n) && found.payload()[..] == payload(n, len(n)),
                    None => self.get(&key(n)).await?.is_none(),
                };
                self.require(
                    right,
                    PROMISE,
                    format!("another answer than a get of key {n}"),
                )?;
            }
        }
        Ok(())
    }

    async fn takes_one_key_many_times(&self) -> Checked {
        const PROMISE: &str = "no reader locks out a writer";
        let artifact = Artifact::new(payload(1, 10_000));
        self.put(&key(1), &artifact).await?;
        let held = self.get(&key(1)).await?;
        for _ in 0..3 {
            self.put(&key(1), &artifact).await?;
        }
        let same = held.is_none_or(|held| held == artifact);
        self.require(same, PROMISE, "an artifact changed while it was held")
    }

    async fn forgets_what_is_removed(&self) -> Checked {
        const PROMISE: &str = "what was removed is gone";
        self.put(&key(1), &Artifact::new("x")).await?;
        let removed = self.call("a remove", self.store.remove(&key(1))).await?;
        self.require(removed, PROMISE, "the remove says that there was nothing")?;
        let gone = self.get(&key(1)).await?.is_none() && self.store.peek(&key(1)).is_none();
        self.require(gone, PROMISE, "it was found again")?;
        let again = self.call("a remove", self.store.remove(&key(1))).await?;
        self.require(
            !again,
            PROMISE,
            "a second remove says that there was something",
        )?;
        let contained = self
            .call("a contains", self.store.contains(&key(1)))
            .await?;
        self.require(!contained, "contains agrees with get", "after a remove")
    }

    /// Puts, removes and gets of one key at once: each get is a whole or nothing.
    async fn serves_wholes_while_it_changes(&self) -> Checked {
        const PROMISE: &str = "a get never returns a part";
        let artifact = Artifact::new(payload(7, 300_000));
        let key = key(7);
        let writers = (0..4).map(|n| {
            let (store, artifact) = (Arc::clone(self.store), artifact.clone());
            tokio::spawn(async move {
                for round in 0..25 {
                    let _ = match (n + round) % 4 {
                        0 => store.remove(&key).await.map(|_| ()),
                        _ => store.put(&key, artifact.clone()).await,
                    };
                }
            })
        });
        let readers = (0..4).map(|_| {
            let (store, artifact) = (Arc::clone(self.store), artifact.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    match store.fetch(&key).await {
                        Ok(Fetched::Hit(found)) if found.payload() != artifact.payload() => {
                            return Err("another artifact was served".to_owned());
                        }
                        Ok(Fetched::Corrupt(reason)) => return Err(reason.to_string()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
                Ok(())
            })
        });
        let (writers, readers): (Vec<_>, Vec<_>) = (writers.collect(), readers.collect());
        let all = async { (join_all(writers).await, join_all(readers).await) };
        let (writers, readers) = timeout(STUCK, all)
            .await
            .map_err(|_| self.broken("every call ends", "gets and puts of one key are stuck"))?;
        let panicked = writers.iter().any(Result::is_err);
        self.require(!panicked, "a tier never panics", "a put or remove did")?;
        for reader in readers {
            match reader {
                Ok(Ok(())) => {}
                Ok(Err(detail)) => return Err(self.broken(PROMISE, detail)),
                Err(_) => return Err(self.broken("a tier never panics", "a get did")),
            }
        }
        Ok(())
    }

    /// Drops each call after every number of polls: the tier goes on as if it had not been made,
    /// or as if it had been finished.
    async fn survives_dropped_calls(&self) -> Checked {
        const PROMISE: &str = "a dropped call leaves a whole artifact or none";
        let artifact = Artifact::new(payload(3, 200_000));
        for polls in 0..12 {
            let key = key(100 + polls);
            give_up_after(polls, self.store.put(&key, artifact.clone())).await;
            let found = self.get(&key).await?;
            let whole = found.is_none_or(|found| found.payload() == artifact.payload());
            self.require(whole, PROMISE, format!("a put dropped after {polls} polls"))?;
            self.put(&key, &artifact).await?;
            give_up_after(polls, self.store.get(&key)).await;
            give_up_after(polls, self.store.flush()).await;
            let found = self.get(&key).await?;
            let whole = found.is_none_or(|found| found.payload() == artifact.payload());
            self.require(whole, PROMISE, format!("calls dropped after {polls} polls"))?;
            give_up_after(polls, self.store.remove(&key)).await;
            self.call("a remove", self.store.remove(&key)).await?;
        }
        self.call("a flush", self.store.flush()).await
    }

    /// The longest poll of each call, at its best of some tries: a busy machine makes a poll long
    /// now and then, and a tier that blocks makes it long each time.
    async fn keeps_no_thread(&self) -> Checked {
        const PROMISE: &str = "no call keeps its thread";
        let len = LARGE.min(usize::try_from(self.store.max_artifact_bytes()).unwrap_or(LARGE));
        let artifact = Artifact::hash(payload(5, len), ArtifactMetadata::new()).await;
        let mut best = [LongestPoll::MAX; 3];
        for n in 0..5 {
            let key = key(n);
            let (put, longest_put) = timed(self.store.put(&key, artifact.clone())).await;
            let (got, longest_get) = timed(self.store.get(&key)).await;
            let (flushed, longest_flush) = timed(self.store.flush()).await;
            if let Some(error) = put.err().or(got.err()).or(flushed.err()) {
                return Err(self.broken("calls on a sound tier succeed", error));
            }
            self.call("a remove", self.store.remove(&key)).await?;
            for (best, now) in best
                .iter_mut()
                .zip([longest_put, longest_get, longest_flush])
            {
                best.work = now.work.min(best.work);
                best.time = now.time.min(best.time);
            }
        }
        for (what, longest) in ["put", "get", "flush"].into_iter().zip(best) {
            let detail = format!("a poll of a {what} of {len} bytes takes {longest:?}");
            let short = longest.work < LONGEST_WORK && longest.time < LONGEST_POLL;
            self.require(short, PROMISE, detail)?;
        }
        Ok(())
    }

    async fn refuses_what_is_too_large(&self) -> Checked {
        const PROMISE: &str = "what is too large is refused";
        let limit = self.store.max_artifact_bytes();
        // Larger than this, the check itself would take too much memory.
        let Some(len) = usize::try_from(limit).ok().filter(|len| *len <= 80 << 20) else {
            return Ok(());
        };
        let artifact = Artifact::hash(vec![1; len + 1], ArtifactMetadata::new()).await;
        match timeout(STUCK, self.store.put(&key(1), artifact)).await {
            Ok(Err(error)) => {
                let kind = error.kind();
                self.require(
                    kind == StoreErrorKind::TooLarge,
                    PROMISE,
                    format!("{kind:?}"),
                )?;
            }
            Ok(Ok(())) => return Err(self.broken(PROMISE, "a put succeeded")),
            Err(_) => return Err(self.broken("every call ends", "a put is stuck")),
        }
        let found = self.get(&key(1)).await?;
        self.require(found.is_none(), PROMISE, "it was stored all the same")
    }

    async fn counts(&self) -> Checked {
        const PROMISE: &str = "lookups are counted";
        let before = self.store.metrics();
        self.get(&key(1)).await?;
        self.put(&key(1), &Artifact::new("x")).await?;
        self.get(&key(1)).await?;
        let after = self.store.metrics();
        let lookups = after.lookups.saturating_sub(before.lookups);
        self.require(lookups == 2, PROMISE, format!("{lookups} for 2"))?;
        let sum = after
            .hits
            .saturating_add(after.misses)
            .saturating_add(after.errors);
        let detail = format!("{} lookups, {sum} answers", after.lookups);
        self.require(after.lookups == sum, PROMISE, detail)
    }

    /// A tier without stores for aliases keeps this promise.
    async fn keeps_aliases_apart(&self) -> Checked {
        const PROMISE: &str = "aliases are kept and counted apart from artifacts";
        let (artifact, alias) = (Artifact::new("artifact"), Artifact::new("alias"));
        for store in self.store.alias_stores() {
            let aliases = Check::new(&store);
            let before = self.store.metrics();
            aliases.put(&key(1), &alias).await?;
            aliases.get(&key(2)).await?;
            let after = self.store.metrics();
            let counts = |of: &PipelineCacheMetrics| (of.puts, of.lookups, of.entries);
            let detail = format!("{before} became {after}");
            self.require(counts(&before) == counts(&after), PROMISE, detail)?;
            self.put(&key(1), &artifact).await?;
            let found = (self.get(&key(1)).await?, aliases.get(&key(1)).await?);
            let apart = found == (Some(artifact.clone()), Some(alias.clone()));
            self.require(apart, PROMISE, "one replaced the other")?;
            self.call("a removal", self.store.remove(&key(1))).await?;
        }
        Ok(())
    }

    async fn closes(&self) -> Checked {
        const PROMISE: &str = "a closed tier takes no writes and harms nothing";
        let artifact = Artifact::new("x");
        self.put(&key(1), &artifact).await?;
        for _ in 0..2 {
            self.call("a close", self.store.close(STUCK)).await?;
        }
        let put = timeout(STUCK, self.store.put(&key(2), artifact.clone())).await;
        let refused = matches!(put, Ok(Err(error)) if error.kind() == StoreErrorKind::Closed);
        self.require(refused, PROMISE, "a put was not refused as closed")?;
        for aliases in self.store.alias_stores() {
            let put = timeout(STUCK, aliases.put(&key(1), artifact.clone())).await;
            let refused = matches!(put, Ok(Err(error)) if error.kind() == StoreErrorKind::Closed);
            self.require(refused, PROMISE, "an alias was not refused as closed")?;
        }
        // It may serve or refuse; it may not hang, panic or serve something else.
        match timeout(STUCK, self.store.get(&key(1))).await {
            Ok(Ok(Some(found))) => self.require(found == artifact, PROMISE, "another artifact"),
            Ok(_) => Ok(()),
            Err(_) => Err(self.broken("every call ends", "a get after a close is stuck")),
        }
    }
}

/// Polls a call so many times, with other tasks running in between, and drops it.
async fn give_up_after(polls: u32, call: impl Future) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll_immediate(&mut call).await.is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What the longest poll of a call took.
#[derive(Debug, Clone, Copy)]
struct LongestPoll {
    /// Of its thread's time.
    work: Duration,
    /// In all.
    time: Duration,
}

impl LongestPoll {
    const MAX: Self = Self {
        work: Duration::MAX,
        time: Duration::MAX,
    };
}

/// A call and what the longest of its polls took.
async fn timed<T>(call: impl Future<Output = T>) -> (T, LongestPoll) {
    Timed {
        call: Box::pin(call),
        longest: LongestPoll {
            work: Duration::ZERO,
            time: Duration::ZERO,
        },
    }
    .await
}

/// The time this thread has run so far. Elsewhere than on Unix, the time of the clock.
fn thread_time() -> Duration {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        )
    }
    #[cfg(not(unix))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

struct Timed<C> {
    call: Pin<Box<C>>,
    longest: LongestPoll,
}

impl<C: Future> Future for Timed<C> {
    type Output = (C::Output, LongestPoll);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (start, worked) = (Instant::now(), thread_time());
        let polled = self.call.as_mut().poll(context);
        let work = thread_time().saturating_sub(worked);
        self.longest.work = self.longest.work.max(work);
        self.longest.time = self.longest.time.max(start.elapsed());
        polled.map(|value| (value, self.longest))
    }
}
