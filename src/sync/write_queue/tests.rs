//! What the queue promises.

use super::*;
use futures::poll;
use std::pin::pin;
use tokio::sync::Semaphore as Gate;

/// What the jobs of a test have come to, in order.
type Log = Arc<Mutex<Vec<(usize, End)>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Written,
    Failed,
    GivenUp,
    Lost,
}

#[derive(Debug)]
struct Write {
    target: usize,
    /// Each try takes a permit.
    gate: Arc<Gate>,
    /// How many tries fail.
    failures: usize,
    end: End,
    log: Log,
}

impl WriteJob for Write {
    type Tag = ();
    type Hold = Arc<()>;

    async fn attempt(&mut self, _: &PipelineFingerprint, _: &Artifact) -> bool {
        self.gate.acquire().await.unwrap().forget();
        let fails = self.failures > 0;
        self.failures = self.failures.saturating_sub(1);
        self.end = if fails { End::Failed } else { End::Written };
        !fails
    }

    /// Target 1 is quick.
    fn begins_quickly(&self) -> bool {
        self.target == 1
    }

    fn give_up(&mut self) {
        self.end = End::GivenUp;
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        self.log.lock().unwrap().push((self.target, self.end));
    }
}

struct Fixture {
    queue: Arc<WriteQueue<Write>>,
    gate: Arc<Gate>,
    log: Log,
    /// How many jobs were made.
    made: std::cell::Cell<usize>,
}

impl Fixture {
    fn new(limits: WriteLimits) -> Self {
        Self {
            queue: Arc::new(WriteQueue::new(2, limits)),
            gate: Arc::new(Gate::new(0)),
            log: Log::default(),
            made: std::cell::Cell::new(0),
        }
    }

    fn small() -> Self {
        Self::new(WriteLimits {
            entries: 2,
            bytes: 10,
            concurrency: 1,
        })
    }

    fn submit(&self, key: u8, len: usize, kind: WriteKind, targets: &[usize]) -> Submitted {
        self.submit_failing(key, len, kind, targets, 0)
    }

    fn submit_failing(
        &self,
        key: u8,
        len: usize,
        kind: WriteKind,
        targets: &[usize],
        failures: usize,
    ) -> Submitted {
        let submission = Submission {
            key: &self::key(key),
            artifact: &Artifact::new(vec![key; len]),
            kind,
            tag: (),
            generation: None,
            targets: targets.iter().map(|&target| (target, Vec::new())).collect(),
        };
        self.queue.submit(submission, |target| {
            self.made.set(self.made.get() + 1);
            Write {
                target,
                gate: Arc::clone(&self.gate),
                failures,
                end: End::Lost,
                log: Arc::clone(&self.log),
            }
        })
    }

    fn ends(&self) -> Vec<(usize, End)> {
        self.log.lock().unwrap().clone()
    }

    fn is_empty(&self) -> bool {
        let state = self.queue.lock();
        state.entries.is_empty() && state.bytes == 0 && state.blocked.is_empty()
    }
}

fn key(n: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([n; 32])
}

use Submitted::{Joined, Queued, Refused};
use WriteKind::{BestEffort, Required};

#[tokio::test]
async fn a_quick_write_that_need_not_wait_is_done_when_it_is_submitted() {
    let fixture = Fixture::small();
    fixture.gate.add_permits(2);
    assert_eq!(fixture.submit(1, 1, BestEffort, &[0, 1]), Queued);
    assert_eq!(fixture.ends(), [(1, End::Written)]);
    fixture.queue.drain().await;
    assert_eq!(fixture.ends(), [(1, End::Written), (0, End::Written)]);
    // One that has to wait goes on as a task.
    assert_eq!(fixture.submit(1, 1, BestEffort, &[1]), Queued);
    assert_eq!(fixture.ends().len(), 2);
    fixture.gate.add_permits(1);
    fixture.queue.drain().await;
    assert_eq!(fixture.ends().len(), 3);
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn entries_and_bytes_are_bounded_until_writes_have_ended() {
    let fixture = Fixture::small();
    assert_eq!(fixture.submit(1, 11, Required, &[0]), Refused);
    assert_eq!(fixture.submit(1, 8, Required, &[0, 1]), Queued);
    assert_eq!(fixture.submit(2, 3, Required, &[0]), Refused);
    assert_eq!(fixture.submit(2, 2, Required, &[0]), Queued);
    assert_eq!(fixture.submit(3, 0, Required, &[0]), Refused);
    assert_eq!(fixture.queue.peek(&key(1)).unwrap().0.len(), 8);
    fixture.gate.add_permits(3);
    fixture.queue.drain().await;
    assert!(fixture.is_empty() && fixture.queue.peek(&key(1)).is_none());
    assert_eq!(fixture.submit(3, 10, Required, &[0]), Queued);
    fixture.gate.add_permits(1);
    fixture.queue.drain().await;
    assert_eq!(fixture.ends().len(), 4);
}

#[tokio::test]
async fn a_key_has_one_job_for_each_target() {
    let fixture = Fixture::small();
    assert_eq!(fixture.submit(1, 1, Required, &[0]), Queued);
    assert_eq!(fixture.submit(1, 1, Required, &[0]), Joined);
    assert_eq!(fixture.submit(1, 1, BestEffort, &[0, 1]), Queued);
    // Nobody may rely on the write of a promotion; and it is all or nothing.
    assert_eq!(fixture.submit(1, 1, Required, &[0, 1]), Refused);
    assert_eq!(fixture.made.get(), 2);
    fixture.gate.add_permits(2);
    fixture.queue.drain().await;
    let mut ends = fixture.ends();
    ends.sort_by_key(|(target, _)| *target);
    assert_eq!(ends, [(0, End::Written), (1, End::Written)]);
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn a_write_that_failed_is_tried_again_only_for_those_that_joined_it() {
    for (joins, end) in [(false, End::Failed), (true, End::Written)] {
        let fixture = Fixture::small();
        assert_eq!(fixture.submit_failing(1, 1, Required, &[0], 1), Queued);
        if joins {
            assert_eq!(fixture.submit(1, 1, Required, &[0]), Joined);
        }
        fixture.gate.add_permits(2);
        fixture.queue.drain().await;
        assert_eq!(fixture.ends(), [(0, end)]);
        assert!(fixture.is_empty());
    }
}

#[tokio::test]
async fn a_block_ends_the_jobs_of_its_key_alone() {
    let fixture = Fixture::small();
    // The first holds the slot, the second waits for it.
    assert_eq!(fixture.submit(1, 1, Required, &[0]), Queued);
    tokio::task::yield_now().await;
    assert_eq!(fixture.submit(2, 1, Required, &[0]), Queued);
    let before = fixture.queue.generation(&key(2));
    let block = fixture.queue.block(&key(2)).await;
    assert_eq!(fixture.ends(), [(0, End::GivenUp)]);
    assert_eq!(fixture.submit(2, 1, Required, &[0]), Refused);
    drop(block);
    assert_ne!(fixture.queue.generation(&key(2)), before);
    assert_eq!(fixture.submit(2, 1, Required, &[0]), Queued);
    fixture.gate.add_permits(2);
    fixture.queue.drain().await;
    assert_eq!(fixture.ends()[1..], [(0, End::Written); 2]);
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn a_block_waits_for_a_try_under_way_whose_failure_then_counts_as_given_up() {
    let fixture = Fixture::small();
    assert_eq!(fixture.submit_failing(1, 1, Required, &[0], 2), Queued);
    assert_eq!(fixture.submit(1, 1, Required, &[0]), Joined);
    tokio::task::yield_now().await;
    let key = key(1);
    let mut block = pin!(fixture.queue.block(&key));
    assert!(poll!(&mut block).is_pending());
    fixture.gate.add_permits(2);
    drop(block.await);
    assert_eq!(fixture.ends(), [(0, End::GivenUp)]);
    assert_eq!(fixture.gate.available_permits(), 1);
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn a_drain_returns_once_ended_jobs_are_counted_and_what_they_held_is_free() {
    let fixture = Fixture::small();
    let hold = Arc::new(());
    let submission = Submission {
        key: &key(1),
        artifact: &Artifact::new("code"),
        kind: Required,
        tag: (),
        generation: None,
        targets: vec![(0, vec![Arc::clone(&hold)])],
    };
    let (gate, log) = (Arc::clone(&fixture.gate), Arc::clone(&fixture.log));
    let submitted = fixture.queue.submit(submission, |target| Write {
        target,
        gate: Arc::clone(&gate),
        failures: 0,
        end: End::Lost,
        log: Arc::clone(&log),
    });
    assert_eq!(submitted, Queued);
    let mut drain = pin!(fixture.queue.drain());
    assert!(poll!(&mut drain).is_pending());
    assert_eq!(Arc::strong_count(&hold), 2);
    // Not one that is submitted later.
    assert_eq!(fixture.submit(2, 1, Required, &[0]), Queued);
    fixture.gate.add_permits(1);
    drain.await;
    assert_eq!(fixture.ends(), [(0, End::Written)]);
    assert_eq!(Arc::strong_count(&hold), 1);
    fixture.gate.add_permits(1);
    fixture.queue.drain().await;
}

#[tokio::test]
async fn an_abort_gives_up_what_is_under_way_and_takes_no_more() {
    let fixture = Fixture::small();
    assert_eq!(fixture.submit(1, 1, Required, &[0, 1]), Queued);
    tokio::task::yield_now().await;
    assert_eq!(fixture.queue.abort(), 2);
    fixture.queue.drain().await;
    assert_eq!(fixture.ends().len(), 2);
    assert!(fixture.ends().iter().all(|(_, end)| *end == End::GivenUp));
    assert_eq!(fixture.submit(2, 1, Required, &[0]), Refused);
    assert!(fixture.is_empty());
}

/// Also those that never ran, and those that are submitted while it shuts down.
#[test]
fn a_job_that_goes_down_with_its_runtime_ends_once_and_as_lost() {
    let fixture = Fixture::small();
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.build().unwrap()
    };
    runtime().block_on(async {
        assert_eq!(fixture.submit(1, 1, Required, &[0, 1]), Queued);
        tokio::task::yield_now().await;
        assert_eq!(fixture.submit(2, 1, Required, &[0]), Queued);
    });
    assert_eq!(fixture.ends().len(), 3);
    assert!(fixture.ends().iter().all(|(_, end)| *end == End::Lost));
    assert!(fixture.is_empty());
    runtime().block_on(async {
        assert_eq!(fixture.submit(1, 1, Required, &[0]), Queued);
        fixture.gate.add_permits(1);
        fixture.queue.drain().await;
    });
    assert_eq!(fixture.ends()[3..], [(0, End::Written)]);
}
