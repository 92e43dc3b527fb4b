use super::super::backend::CredentialsVersion;
use super::*;
use crate::key::PipelineFingerprint;
use crate::network::BreakerState;
use crate::network::caller::Caller;
use crate::store::StoreOperation;
use futures::FutureExt as _;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{advance, timeout};
use tokio_util::sync::CancellationToken;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

struct NoCredentials;

impl CredentialsVersion for NoCredentials {
    fn version(&self) -> Result<Option<u64>, RequestError> {
        Ok(None)
    }
}

/// One request at a time and no retries.
fn policy(min_calls: u64) -> CallPolicy {
    CallPolicy::new(Limits {
        concurrent_requests: 1,
        retry: RetryPolicy::default().attempts(1),
        breaker: BreakerPolicy::default().min_calls(min_calls),
        ..Limits::default()
    })
}

async fn run_for<F>(
    caller: &Caller,
    operation: StoreOperation,
    policy: &CallPolicy,
    request: impl Fn(AnswerProgress) -> F + Send,
) -> Option<Result<(), RequestError>>
where
    F: Future<Output = Result<(), RequestError>> + Send,
{
    let call = Call {
        tier: "t",
        operation,
        key: &KEY,
        credentials: &NoCredentials,
        caller,
        single_request: None,
    };
    policy.run(call, request).await
}

/// A lookup whose caller waits.
async fn run<F>(policy: &CallPolicy, request: impl Fn() -> F + Send) -> Result<(), RequestError>
where
    F: Future<Output = Result<(), RequestError>> + Send,
{
    let stays = Caller::default();
    let ended = run_for(&stays, StoreOperation::Get, policy, move |_| request()).await;
    ended.expect("its caller stays")
}

fn unavailable() -> Result<(), RequestError> {
    Err(RequestError::new(StoreErrorKind::Unavailable, "503"))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_permit_of_the_call_that_opens_the_breaker_sends_nothing() {
    let (policy, requests) = (policy(1), AtomicUsize::new(0));
    let fails = run(&policy, || async {
        tokio::task::yield_now().await;
        unavailable()
    });
    let waits = run(&policy, || {
        requests.fetch_add(1, Ordering::SeqCst);
        ready(Ok(()))
    });
    let (failed, waited) = tokio::join!(fails, waits);
    assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(waited.unwrap_err().kind, StoreErrorKind::BreakerOpen);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(policy.of(Access::Read).short_circuited.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_permit_of_a_call_that_is_dropped_late_sends_nothing() {
    let (policy, requests) = (policy(1), AtomicUsize::new(0));
    let mut hangs = Box::pin(run(&policy, pending));
    assert!((&mut hangs).now_or_never().is_none());
    let mut waits = Box::pin(run(&policy, || {
        requests.fetch_add(1, Ordering::SeqCst);
        ready(Ok(()))
    }));
    assert!((&mut waits).now_or_never().is_none());
    advance(Duration::from_secs(2)).await;
    drop(hangs);
    let waited = waits.now_or_never().unwrap();
    assert_eq!(waited.unwrap_err().kind, StoreErrorKind::BreakerOpen);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

/// The calls that hold the permits are under way, and count when they end.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_permit_is_not_counted_against_the_server() {
    let policy = policy(2);
    let mut slow = Box::pin(run(&policy, || async {
        sleep(Duration::from_secs(9)).await;
        Ok(())
    }));
    assert!((&mut slow).now_or_never().is_none());
    for _ in 0..4 {
        let given_up = timeout(Duration::from_secs(2), run(&policy, || ready(Ok(())))).await;
        assert!(given_up.is_err());
    }
    slow.await.unwrap();
    assert_eq!(
        policy.of(Access::Read).breaker.state(),
        BreakerState::Closed
    );
    run(&policy, || ready(Ok(()))).await.unwrap();
}

/// The state of the reads after this many lookups whose callers left after this many
/// milliseconds, each of which then ended so.
async fn after_abandoned<F>(
    lookups: usize,
    leaves_after: u64,
    request: impl Fn(AnswerProgress) -> F + Send + Sync,
) -> BreakerState
where
    F: Future<Output = Result<(), RequestError>> + Send,
{
    let policy = policy(5);
    for _ in 0..lookups {
        let caller = Caller::default();
        let leaves = async {
            sleep(Duration::from_millis(leaves_after)).await;
            caller.leave();
        };
        let call = run_for(&caller, StoreOperation::Get, &policy, &request);
        let (ended, ()) = tokio::join!(call, leaves);
        assert!(ended.is_none());
        assert_eq!(policy.permits.available_permits(), 1);
        assert_eq!(policy.of(Access::Read).abandoned.available_permits(), 16);
    }
    policy.of(Access::Read).breaker.state()
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_has_left_counts_when_its_answer_begins_fails_or_is_late() {
    let late = |_| pending();
    assert_eq!(after_abandoned(5, 50, late).await, BreakerState::Open);
    let fails = |_| async {
        sleep(Duration::from_millis(100)).await;
        unavailable()
    };
    assert_eq!(after_abandoned(5, 50, fails).await, BreakerState::Open);
    let succeeds = |_| async {
        sleep(Duration::from_millis(100)).await;
        Ok(())
    };
    assert_eq!(
        after_abandoned(50, 50, succeeds).await,
        BreakerState::Closed
    );
    // However long the body takes.
    let begins = |answer: AnswerProgress| async move {
        sleep(Duration::from_millis(100)).await;
        answer.signal();
        pending().await
    };
    assert_eq!(after_abandoned(50, 50, begins).await, BreakerState::Closed);
}

/// Each part of the body is news.
#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_is_a_success_and_one_that_stands_still_a_failure() {
    let goes_on = |answer: AnswerProgress| async move {
        loop {
            sleep(Duration::from_millis(500)).await;
            answer.signal();
        }
    };
    let stands_still = |answer: AnswerProgress| async move {
        answer.signal();
        pending().await
    };
    for leaves_after in [50, 900, 3000] {
        let state = after_abandoned(50, leaves_after, goes_on).await;
        assert_eq!(state, BreakerState::Closed, "{leaves_after}");
        let state = after_abandoned(5, leaves_after, stands_still).await;
        assert_eq!(state, BreakerState::Open, "{leaves_after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_also_where_its_caller_leaves_before_the_retry() {
    let policy = CallPolicy::new(Limits {
        breaker: BreakerPolicy::default().min_calls(5),
        ..Limits::default()
    });
    for _ in 0..5 {
        assert_eq!(
            policy.of(Access::Read).breaker.state(),
            BreakerState::Closed
        );
        let caller = Caller::default();
        let call = run_for(&caller, StoreOperation::Get, &policy, |_| {
            let mut busy = RequestError::new(StoreErrorKind::Unavailable, "503");
            busy.retry_after = Some(Duration::from_secs(1));
            ready(Err(busy))
        });
        let leaves = async {
            sleep(Duration::from_millis(50)).await;
            caller.leave();
        };
        assert!(tokio::join!(call, leaves).0.is_none());
    }
    assert_eq!(policy.of(Access::Read).breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_also_where_its_caller_leaves_in_the_wait_for_another_permit() {
    let policy = CallPolicy::new(Limits {
        concurrent_requests: 1,
        breaker: BreakerPolicy::default().min_calls(1),
        ..Limits::default()
    });
    let (leaver, stays) = (Caller::default(), Caller::default());
    let call = run_for(&leaver, StoreOperation::Get, &policy, |_| {
        let mut busy = RequestError::new(StoreErrorKind::Unavailable, "503");
        busy.retry_after = Some(Duration::from_secs(1));
        ready(Err(busy))
    });
    let others = async {
        sleep(Duration::from_millis(500)).await;
        let mut holds = Box::pin(run_for(&stays, StoreOperation::Get, &policy, |_| pending()));
        assert!((&mut holds).now_or_never().is_none());
        sleep(Duration::from_millis(700)).await;
        assert_eq!(
            policy.of(Access::Read).breaker.state(),
            BreakerState::Closed
        );
        leaver.leave();
        tokio::task::yield_now().await;
        assert_eq!(policy.of(Access::Read).breaker.state(), BreakerState::Open);
    };
    assert!(tokio::join!(call, others).0.is_none());
}

/// How the others end is not known, and their answers went well so far.
#[tokio::test(start_paused = true)]
async fn answers_that_go_on_count_as_nothing_beyond_the_bound_of_abandoned_requests() {
    let policy = CallPolicy::new(Limits {
        abandoned_requests: 0,
        breaker: BreakerPolicy::default().min_calls(1),
        ..Limits::default()
    });
    let caller = Caller::default();
    let call = run_for(&caller, StoreOperation::Get, &policy, |answer| async move {
        loop {
            sleep(Duration::from_millis(500)).await;
            answer.signal();
        }
    });
    let leaves = async {
        sleep(Duration::from_secs(3)).await;
        caller.leave();
    };
    assert!(tokio::join!(call, leaves).0.is_none());
    assert_eq!(
        policy.of(Access::Read).breaker.state(),
        BreakerState::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn abandoned_requests_are_bounded_and_hold_no_permit() {
    let policy = policy(100);
    let callers: Vec<_> = (0..20).map(|_| Caller::default()).collect();
    let mut calls = Vec::new();
    for caller in &callers {
        let mut call = Box::pin(run_for(caller, StoreOperation::Get, &policy, |_| pending()));
        assert!((&mut call).now_or_never().is_none());
        caller.leave();
        let ended = (&mut call).now_or_never();
        assert_eq!(ended.is_some(), calls.len() >= 16, "{}", calls.len());
        calls.push(call);
        run(&policy, || ready(Ok(()))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_left_while_it_waited_for_a_permit_sends_nothing() {
    let (policy, caller) = (policy(1), Caller::default());
    let mut holds = Box::pin(run(&policy, pending));
    assert!((&mut holds).now_or_never().is_none());
    let waits = run_for(&caller, StoreOperation::Get, &policy, |_| async {
        panic!("sent")
    });
    let mut waits = Box::pin(waits);
    assert!((&mut waits).now_or_never().is_none());
    caller.leave();
    drop(holds);
    assert!(waits.now_or_never().unwrap().is_none());
}

/// Neither the breaker nor the budget of retries.
#[tokio::test(start_paused = true)]
async fn failing_writes_take_nothing_from_reads() {
    let policy = CallPolicy::new(Limits::default());
    let stays = Caller::default();
    for _ in 0..100 {
        let put = run_for(&stays, StoreOperation::Put, &policy, |_| {
            ready(unavailable())
        });
        put.await.unwrap().unwrap_err();
    }
    assert_eq!(policy.of(Access::Write).breaker.state(), BreakerState::Open);
    let tried = AtomicUsize::new(0);
    let second_time = || match tried.fetch_add(1, Ordering::SeqCst) {
        0 => ready(unavailable()),
        _ => ready(Ok(())),
    };
    run(&policy, second_time).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writes_that_hang_leave_permits_to_reads() {
    let policy = CallPolicy::new(Limits {
        concurrent_requests: 2,
        ..Limits::default()
    });
    let stays = Caller::default();
    let mut puts = Vec::new();
    for _ in 0..5 {
        let mut put = Box::pin(run_for(&stays, StoreOperation::Put, &policy, |_| pending()));
        assert!((&mut put).now_or_never().is_none());
        puts.push(put);
    }
    let read = run(&policy, || ready(Ok(()))).now_or_never();
    read.expect("no permit is free").unwrap();
}

/// Nobody's calls take at most half of the requests, and one that becomes a user's takes any.
#[tokio::test(start_paused = true)]
async fn calls_that_no_user_waits_for_leave_requests_to_users() {
    let policy = CallPolicy::new(Limits {
        concurrent_requests: 4,
        ..Limits::default()
    });
    let sent = AtomicUsize::new(0);
    let hang = || {
        sent.fetch_add(1, Ordering::SeqCst);
        pending()
    };
    let urgent: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
    let mut background: Vec<_> = urgent
        .iter()
        .map(|urgent| Box::pin(urgency::in_background(urgent.clone(), run(&policy, hang))))
        .collect();
    for call in &mut background {
        assert!(call.now_or_never().is_none());
    }
    assert_eq!(sent.load(Ordering::SeqCst), 2);
    run(&policy, || ready(Ok(())))
        .now_or_never()
        .unwrap()
        .unwrap();

    urgent[2].cancel();
    assert!((&mut background[2]).now_or_never().is_none());
    assert_eq!(sent.load(Ordering::SeqCst), 3);
    run(&policy, || ready(Ok(())))
        .now_or_never()
        .unwrap()
        .unwrap();
}
