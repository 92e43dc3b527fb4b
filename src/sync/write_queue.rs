//! A bounded queue of background writes: at most one job for each key and target.
//!
//! An artifact on its way is held once, whatever the number of its targets, and can be read from
//! here until its last job has ended. A job is polled once where it is submitted, if its target
//! answers quickly, and is a task after that. A job tells of its end by being dropped,
//! so that it is counted exactly once, also when its runtime is shut down.

use futures::FutureExt as _;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;

/// A write of one key to one target.
///
/// It is dropped when it has ended, before those who wait for its end are told.
pub(crate) trait WriteJob: Debug + Send + 'static {
    /// What a reader of the queue is told about the write.
    type Tag: Debug + Copy + Send;
    /// What is held until the write has ended. Its drop may run foreign code.
    type Hold: Debug + Send;

    /// Tries to write; whether it succeeded. Called once more if a submission that must be written
    /// joined the job during a try that failed.
    fn attempt(
        &mut self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> impl Future<Output = bool> + Send;

    /// Whether the submitter may poll the write once: it does no long work before it waits.
    fn begins_quickly(&self) -> bool;

    /// Told that the write is given up on purpose: its key is blocked, or the queue is aborted. A
    /// job that is dropped without this and without an attempt that ended was lost, as with its
    /// runtime.
    fn give_up(&mut self);
}

/// What the submitter of a write may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteKind {
    /// Nothing. It joins any write of the same key and target.
    BestEffort,
    /// That it is tried. It joins a write of this kind only, and not one that has failed already.
    Required,
}

/// A wish to write one artifact to some targets.
pub(crate) struct Submission<'a, J: WriteJob> {
    pub(crate) key: &'a PipelineFingerprint,
    pub(crate) artifact: &'a Artifact,
    pub(crate) kind: WriteKind,
    pub(crate) tag: J::Tag,
    /// The generation in which the artifact was found, if it was found and not put.
    pub(crate) generation: Option<Generation>,
    /// The index of each target, and what is held until the artifact is written there.
    pub(crate) targets: Vec<(usize, Vec<J::Hold>)>,
}

/// What becomes of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// At least one job was made for it.
    Queued,
    /// Jobs that were there already do all of it.
    Joined,
    /// No job was made: a bound is reached, the queue is closed, the key is blocked, the generation
    /// is over, or a job was there that the submission cannot rely on.
    Refused,
}

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteLimits {
    /// Keys on their way, at most.
    pub(crate) entries: usize,
    /// Payload bytes on their way, at most.
    pub(crate) bytes: u64,
    /// Jobs that write to one target at a time; at least one does.
    pub(crate) concurrency: usize,
}

/// The time between two blocks of any key that shares a counter with this one.
///
/// An artifact that was found in one generation is not written in a later one: the key may have
/// been removed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// Counters of generations. A block refuses the best-effort writes of one key in so many.
const GENERATIONS: usize = 64;

#[derive(Debug)]
pub(crate) struct WriteQueue<J: WriteJob> {
    limits: WriteLimits,
    /// One for each target, so that a target that hangs holds up no writes to the others.
    slots: Box<[Semaphore]>,
    state: Mutex<State<J>>,
    /// Cancelled when the writes under way are given up.
    abort: CancellationToken,
}

#[derive(Debug)]
struct State<J: WriteJob> {
    entries: HashMap<PipelineFingerprint, Entry<J>>,
    bytes: u64,
    /// Keys that may not be written, with the number of blocks on each.
    blocked: HashMap<PipelineFingerprint, usize>,
    generations: [u64; GENERATIONS],
    closed: bool,
}

/// An artifact on its way. It has at least one job.
#[derive(Debug)]
struct Entry<J: WriteJob> {
    artifact: Artifact,
    tag: J::Tag,
    jobs: Vec<Job<J>>,
}

#[derive(Debug)]
struct Job<J: WriteJob> {
    target: usize,
    kind: WriteKind,
    holds: Vec<J::Hold>,
    /// Whether a submission that must be written has joined, and is owed a try of its own.
    owes_a_try: bool,
    /// Whether a try has failed. Nobody joins it then, or else joiners could keep it from ending.
    failed: bool,
    /// Cancels the job while it waits for a slot.
    cancel: CancellationToken,
    /// Cancelled when the job has ended and is counted.
    done: CancellationToken,
}

impl<J: WriteJob> State<J> {
    fn generation(&mut self, key: &PipelineFingerprint) -> &mut u64 {
        &mut self.generations[usize::from(key.as_bytes()[0]) % GENERATIONS]
    }

    fn job(&mut self, key: &PipelineFingerprint, target: usize) -> Option<&mut Job<J>> {
        let jobs = &mut self.entries.get_mut(key)?.jobs;
        jobs.iter_mut().find(|job| job.target == target)
    }
}

impl<J: WriteJob> Job<J> {
    fn can_be_joined(&self, kind: WriteKind) -> bool {
        !self.failed && (kind == WriteKind::BestEffort || self.kind == WriteKind::Required)
    }
}

impl<J: WriteJob> WriteQueue<J> {
    pub(crate) fn new(targets: usize, limits: WriteLimits) -> Self {
        let concurrency = limits.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limits,
            slots: (0..targets).map(|_| Semaphore::new(concurrency)).collect(),
            state: Mutex::new(State {
                entries: HashMap::new(),
                bytes: 0,
                blocked: HashMap::new(),
                generations: [0; GENERATIONS],
                closed: false,
            }),
            abort: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation of a key. Take it before you look for the artifact.
    pub(crate) fn generation(&self, key: &PipelineFingerprint) -> Generation {
        Generation(*self.lock().generation(key))
    }

    /// Whether the key is not blocked now, and was not since `generation` was taken.
    pub(crate) fn is_current(&self, key: &PipelineFingerprint, generation: Generation) -> bool {
        let mut state = self.lock();
        !state.blocked.contains_key(key) && generation == Generation(*state.generation(key))
    }

    /// The artifact of a key, if it is on its way.
    pub(crate) fn peek(&self, key: &PipelineFingerprint) -> Option<(Artifact, J::Tag)> {
        let state = self.lock();
        let entry = state.entries.get(key)?;
        Some((entry.artifact.clone(), entry.tag))
    }

    /// Starts the jobs of a submission, all of them or none. Never waits.
    ///
    /// `make` makes the job for a target. It is called under the lock of the queue, for the targets
    /// to which no job writes already.
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn submit(
        self: &Arc<Self>,
        submission: Submission<'_, J>,
        make: impl FnMut(usize) -> J,
    ) -> Submitted {
        let Some((tasks, artifact)) = self.accept(submission, make) else {
            return Submitted::Refused;
        };
        if tasks.is_empty() {
            return Submitted::Joined;
        }
        // Without the lock: a task that ends here takes it, and so does one that a runtime drops
        // because it is shutting down.
        for task in tasks {
            task.start(artifact.clone());
        }
        Submitted::Queued
    }

    /// The tasks for the jobs that are new, and what they write; `None` if the submission is
    /// refused.
    fn accept(
        self: &Arc<Self>,
        submission: Submission<'_, J>,
        mut make: impl FnMut(usize) -> J,
    ) -> Option<(Vec<Task<J>>, Artifact)> {
        let (key, kind) = (*submission.key, submission.kind);
        let mut state = self.lock();
        let entry = state.entries.get(&key);
        let artifact = entry.map_or(submission.artifact, |entry| &entry.artifact);
        let artifact = artifact.clone();
        let refused = state.closed
            // A key names one artifact, but it matters whose it is: tiers judge the signer.
            || artifact.signer() != submission.artifact.signer()
            || state.blocked.contains_key(&key)
            || submission
                .generation
                .is_some_and(|generation| generation != Generation(*state.generation(&key)))
            || !self.has_room(&state, &key, submission.artifact)
            || submission.targets.iter().any(|(target, _)| {
                let job = state.job(&key, *target);
                job.is_some_and(|job| !job.can_be_joined(kind))
            });
        if refused {
            return None;
        }
        let mut tasks = Vec::new();
        for (target, holds) in submission.targets {
            if let Some(job) = state.job(&key, target) {
                job.owes_a_try |= kind == WriteKind::Required;
                job.holds.extend(holds);
                continue;
            }
            let job = Job {
                target,
                kind,
                holds,
                owes_a_try: false,
                failed: false,
                cancel: CancellationToken::new(),
                done: CancellationToken::new(),
            };
            tasks.push(Task {
                queue: Arc::clone(self),
                key,
                target,
                cancel: job.cancel.clone(),
                write: Some(make(target)),
            });
            state.insert(key, &artifact, submission.tag, job);
        }
        Some((tasks, artifact))
    }

    /// Whether a key is on its way already, or may be within the bounds.
    fn has_room(&self, state: &State<J>, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let bytes = state.bytes.saturating_add(artifact.len() as u64);
        state.entries.contains_key(key)
            || (state.entries.len() < self.limits.entries && bytes <= self.limits.bytes)
    }

    /// Waits until every job that was submitted before the call has ended.
    ///
    /// This ends if every try of a job does: the number of jobs is bounded, and so are their tries.
    pub(crate) async fn drain(&self) {
        self.wait_for(|_| true).await;
    }

    /// Waits until every job of one target has ended that was submitted before the call.
    pub(crate) async fn drain_target(&self, target: usize) {
        self.wait_for(|job| job.target == target).await;
    }

    /// Waits until every job of one key has ended that was submitted before the call.
    pub(crate) async fn drain_key(&self, key: &PipelineFingerprint) {
        let jobs: Vec<_> = {
            let state = self.lock();
            let jobs = state.entries.get(key).map_or(&[][..], |entry| &entry.jobs);
            jobs.iter().map(|job| job.done.clone()).collect()
        };
        for done in jobs {
            done.cancelled().await;
        }
    }

    async fn wait_for(&self, is_meant: impl Fn(&Job<J>) -> bool) {
        let jobs: Vec<_> = {
            let state = self.lock();
            let jobs = state.entries.values().flat_map(|entry| &entry.jobs);
            let jobs = jobs.filter(|job| is_meant(job));
            jobs.map(|job| job.done.clone()).collect()
        };
        for done in jobs {
            done.cancelled().await;
        }
    }

    /// Ends the jobs of a key and keeps others from starting until the block is dropped.
    ///
    /// A try under way is waited for and not cancelled: a dropped write may still complete on the
    /// blocking pool, after whatever the caller does next.
    pub(crate) async fn block(self: &Arc<Self>, key: &PipelineFingerprint) -> Block<J> {
        let block = Block {
            queue: Arc::clone(self),
            key: *key,
        };
        let jobs: Vec<_> = {
            let mut state = self.lock();
            *state.blocked.entry(*key).or_default() += 1;
            let jobs = state.entries.get(key).map_or(&[][..], |entry| &entry.jobs);
            jobs.iter()
                .map(|job| (job.cancel.clone(), job.done.clone()))
                .collect()
        };
        for (cancel, _) in &jobs {
            cancel.cancel();
        }
        for (_, done) in jobs {
            done.cancelled().await;
        }
        block
    }

    /// Refuses all later submissions.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Closes the queue and gives up the jobs under way; how many those were.
    pub(crate) fn abort(&self) -> u64 {
        self.close();
        let jobs = {
            let state = self.lock();
            let jobs = state.entries.values().map(|entry| entry.jobs.len() as u64);
            jobs.sum()
        };
        self.abort.cancel();
        jobs
    }

    /// After a try that failed: whether the job owes another. Nobody can join it from now on.
    fn owes_a_try(&self, key: &PipelineFingerprint, target: usize) -> bool {
        let mut state = self.lock();
        let Some(job) = state.job(key, target) else {
            return false;
        };
        job.failed = true;
        std::mem::take(&mut job.owes_a_try)
    }

    /// Takes a job out of the table; the caller drops what it held, without the lock.
    fn end(&self, key: &PipelineFingerprint, target: usize) -> Option<(Job<J>, Option<Entry<J>>)> {
        let mut state = self.lock();
        let jobs = &mut state.entries.get_mut(key)?.jobs;
        let index = jobs.iter().position(|job| job.target == target)?;
        let job = jobs.swap_remove(index);
        let entry = match jobs.is_empty() {
            true => state.entries.remove(key),
            false => None,
        };
        if let Some(entry) = &entry {
            state.bytes -= entry.artifact.len() as u64;
        }
        Some((job, entry))
    }
}

impl<J: WriteJob> State<J> {
    fn insert(&mut self, key: PipelineFingerprint, artifact: &Artifact, tag: J::Tag, job: Job<J>) {
        let bytes = &mut self.bytes;
        let entry = self.entries.entry(key).or_insert_with(|| {
            *bytes += artifact.len() as u64;
            Entry {
                artifact: artifact.clone(),
                tag,
                jobs: Vec::new(),
            }
        });
        entry.jobs.push(job);
    }
}

/// Keeps a key from being written. Dropping it ends the key's generation.
#[derive(Debug)]
pub(crate) struct Block<J: WriteJob> {
    queue: Arc<WriteQueue<J>>,
    key: PipelineFingerprint,
}

impl<J: WriteJob> Drop for Block<J> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if let Some(blocks) = state.blocked.get_mut(&self.key) {
            *blocks -= 1;
            if *blocks == 0 {
                state.blocked.remove(&self.key);
            }
        }
        *state.generation(&self.key) += 1;
    }
}

/// The task of a job. Dropping it, however that comes about, ends the job.
struct Task<J: WriteJob> {
    queue: Arc<WriteQueue<J>>,
    key: PipelineFingerprint,
    target: usize,
    cancel: CancellationToken,
    /// `None` once it is dropped.
    write: Option<J>,
}

impl<J: WriteJob> Task<J> {
    /// A write that never waits, as one to memory, is done here: no task, no other thread to wake up.
    fn start(self, artifact: Artifact) {
        let is_polled = self.write.as_ref().is_some_and(J::begins_quickly);
        let mut work = Box::pin(self.run(artifact));
        // The task polls the work again when it starts, so no wake-up can be lost.
        if !is_polled || work.as_mut().now_or_never().is_none() {
            drop(tokio::spawn(work));
        }
    }

    async fn run(mut self, artifact: Artifact) {
        let abort = self.queue.abort.clone();
        let ended = abort.run_until_cancelled(self.write(&artifact)).await;
        if let (false, Some(write)) = (ended.unwrap_or(false), &mut self.write) {
            write.give_up();
        }
    }

    /// Whether the write ended by itself. The failure of a key that was blocked meanwhile is of no
    /// interest to anybody.
    async fn write(&mut self, artifact: &Artifact) -> bool {
        let Some(write) = &mut self.write else {
            return true;
        };
        loop {
            let slot = self.queue.slots[self.target].acquire();
            let Some(_slot) = self.cancel.run_until_cancelled(slot).await else {
                return false;
            };
            if write.attempt(&self.key, artifact).await {
                return true;
            }
            if self.cancel.is_cancelled() {
                return false;
            }
            if !self.queue.owes_a_try(&self.key, self.target) {
                return true;
            }
        }
    }
}

impl<J: WriteJob> Drop for Task<J> {
    fn drop(&mut self) {
        // Counted first: whoever waits for the end reads reports that are complete.
        drop(self.write.take());
        if let Some((job, _entry)) = self.queue.end(&self.key, self.target) {
            // A panic while it drops what others made must not keep those who wait for the end.
            let _done = job.done.drop_guard();
            drop(job.holds);
        }
    }
}

#[cfg(test)]
mod tests;
