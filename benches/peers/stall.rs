//! No stall: the longest poll on a worker while large artifacts come and go.

use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::measure::{Plan, quantile};
use crate::memory::{key, payload};
use crate::report::Report;
use crate::runtime::Tokio;

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    let case = "runtime_stall, gets and puts of 64 MiB";
    if !plan.wants(case) {
        return;
    }
    let tokio = Tokio::multi();
    let polls = Arc::new(Mutex::new(Vec::new()));
    let rounds = plan.count(50);
    let folder = tempfile::tempdir().expect("a folder");
    let (root, recorded) = (folder.path().to_owned(), Arc::clone(&polls));
    tokio.run(async move {
        // The memory tier has room for one, so that the disk is read and written.
        let memory = InMemoryPipelineCache::with_limits(10, 65 << 20);
        let disk = DiskCache::new(root).await.expect("a cache");
        let cache = Arc::new(
            LayeredPipelineCache::builder()
                .tier(memory)
                .tier(disk)
                .write_policy(pipeline_cache::WritePolicy::Through)
                .build(),
        );
        let bytes = payload(1, 64 << 20);
        for round in 0..rounds {
            let cache = Arc::clone(&cache);
            let bytes = bytes.clone();
            let one = async move {
                let artifact = Artifact::hash(bytes, Default::default()).await;
                cache.put(&key(round % 4), artifact).await.expect("a put");
                assert!(cache.get(&key((round + 1) % 4)).await.is_ok());
            };
            let recorded = Arc::clone(&recorded);
            tokio::spawn(Timed {
                future: Box::pin(one),
                recorded,
            })
            .await
            .expect("a task");
        }
        cache.flush().await.expect("a flush");
    });
    let polls = polls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let at = |of: fn(&Timing) -> Duration, share| {
        let mut times: Vec<_> = polls.iter().map(of).collect();
        times.sort();
        quantile(&times, share).as_secs_f64() * 1e3
    };
    let (wall, worked) = (|poll: &Timing| poll.wall, |poll: &Timing| poll.worked);
    report.line(&format!(
        "\n{case}: {} polls, median {:.3} ms, longest {:.3} ms, of which at most {:.3} ms at work",
        polls.len(),
        at(wall, 0.5),
        at(wall, 1.0),
        at(worked, 1.0),
    ));
    report.bound(case, "p99.9 of the polls, ms", at(wall, 0.999), None);
    let most = (!plan.is_quick() && cfg!(unix)).then_some(1.0);
    report.bound(case, "p99.9 of their work, ms", at(worked, 0.999), most);
}

/// How long a poll took by the clock on the wall, and for how much of that its thread had a core:
/// the rest the machine gave to others.
#[derive(Clone, Copy)]
struct Timing {
    wall: Duration,
    worked: Duration,
}

/// The time for which this thread has had a core.
#[cfg(unix)]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

#[cfg(not(unix))]
fn thread_time() -> Duration {
    Duration::ZERO
}

/// A future whose polls are timed.
struct Timed<F> {
    future: Pin<Box<F>>,
    recorded: Arc<Mutex<Vec<Timing>>>,
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let (start, worked) = (Instant::now(), thread_time());
        let polled = self.future.as_mut().poll(context);
        let poll = Timing {
            wall: start.elapsed(),
            worked: thread_time().saturating_sub(worked),
        };
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.push(poll);
        polled
    }
}
