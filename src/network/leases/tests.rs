use super::*;
use crate::network::RetryPolicy;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Mutex;
use tokio::sync::Notify;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
const TIME: Duration = Duration::from_secs(10);

/// What becomes of a request for a lease.
#[derive(Clone, Copy)]
enum Reply {
    Is(LeaseAnswer),
    IsLost,
    /// As from a proxy that has waited for the server long enough.
    IsUnavailable,
    Fails,
    Hangs,
}

/// A server that answers as it was told to, and grants what it was not told about.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    replies: Mutex<VecDeque<Reply>>,
    said: Mutex<Vec<String>>,
    tokens: Mutex<Vec<Arc<str>>>,
    changed: Notify,
}

struct Watch(Server);

impl LeaseWatch for Watch {
    async fn changed(&mut self) {
        self.0.0.changed.notified().await;
    }
}

impl Server {
    fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let server = Self::default();
        server.0.replies.lock().unwrap().extend(replies);
        server
    }

    fn is_told(&self, what: &str, lease: &LeaseRequest) {
        self.0.said.lock().unwrap().push(what.to_owned());
        self.0.tokens.lock().unwrap().push(Arc::clone(&lease.token));
    }

    fn was_told(&self) -> Vec<String> {
        self.0.said.lock().unwrap().clone()
    }
}

impl LeaseBackend for Server {
    type Watch = Watch;

    fn credentials_version(&self) -> Option<u64> {
        None
    }

    async fn acquire(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        self.is_told("acquire", lease);
        let reply = self.0.replies.lock().unwrap().pop_front();
        match reply.unwrap_or(Reply::Is(LeaseAnswer::Granted)) {
            Reply::Is(answer) => Ok(answer),
            Reply::IsLost => Err(RequestError::new(StoreErrorKind::Unreachable, "closed")),
            Reply::IsUnavailable => Err(RequestError::new(StoreErrorKind::Unavailable, "504")),
            Reply::Fails => Err(RequestError::new(StoreErrorKind::StorageFull, "OOM")),
            Reply::Hangs => pending().await,
        }
    }

    async fn renew(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        self.is_told("renew", lease);
        Ok(true)
    }

    async fn release(&self, lease: &LeaseRequest) -> Result<(), RequestError> {
        self.is_told("release", lease);
        Ok(())
    }

    fn watch(&self, _: &LeaseRequest) -> Watch {
        Watch(self.clone())
    }
}

fn leases_of(server: &Server) -> NetworkLeases<Server> {
    let limits = Limits {
        retry: RetryPolicy::default().attempts(2),
        ..Limits::default()
    };
    NetworkLeases::new("t".to_owned(), server.clone(), TIME, limits)
}

/// All that was begun is done.
async fn settled(leases: &NetworkLeases<Server>) {
    let mut ending = leases.0.ending.subscribe();
    ending.wait_for(|ending| *ending == 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_while_its_lease_is_waited_for_costs_one_short_request() {
    let held = Reply::Is(LeaseAnswer::Held);
    let server = Server::replying([held, held, Reply::Hangs, Reply::Hangs]);
    let leases = leases_of(&server);
    let began = Instant::now();
    let error = leases.acquire(&KEY, false).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut);
    let took = began.elapsed();
    assert!(took < ASKING_AGAIN + MAX_PAUSE, "{took:?}");
    let asked = server.was_told();
    let asked = asked.iter().filter(|what| *what == "acquire");
    assert_eq!(asked.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_reply_was_lost_is_released_by_its_own_token() {
    for lost in [
        [Reply::IsLost; 2],
        [Reply::Hangs; 2],
        [Reply::IsUnavailable; 2],
        [Reply::IsLost, Reply::Fails],
    ] {
        let server = Server::replying(lost);
        let leases = leases_of(&server);
        leases.acquire(&KEY, false).await.unwrap_err();
        settled(&leases).await;
        assert_eq!(server.was_told(), ["acquire", "acquire", "release"]);
        let tokens = server.0.tokens.lock().unwrap();
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_its_caller_no_longer_waits_for_is_released() {
    let server = Server::replying([Reply::Hangs]);
    let leases = leases_of(&server);
    let left = timeout(Duration::from_millis(250), leases.acquire(&KEY, false)).await;
    assert!(left.is_err());
    sleep(TIME).await;
    settled(&leases).await;
    assert_eq!(server.was_told(), ["acquire", "release"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_at_the_second_try_is_kept_and_one_that_was_refused_is_not_released() {
    let server = Server::replying([Reply::IsLost, Reply::Is(LeaseAnswer::Granted), Reply::Fails]);
    let leases = leases_of(&server);
    let lease = leases.acquire(&KEY, false).await.unwrap();
    leases.acquire(&KEY, false).await.unwrap_err();
    sleep(TIME / 2).await;
    settled(&leases).await;
    assert_eq!(
        server.was_told(),
        ["acquire", "acquire", "acquire", "renew"]
    );
    drop(lease);
    settled(&leases).await;
    assert_eq!(server.was_told().last().unwrap(), "release");
}

#[test]
fn a_lease_that_outlives_its_runtime_holds_up_nobody() {
    let server = Server::default();
    let leases = leases_of(&server);
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap()
    };
    let first = runtime();
    let acquired = async { leases.acquire(&KEY, false).await.unwrap() };
    let (kept, dropped) =
        first.block_on(async { (acquired.await, leases.acquire(&KEY, false).await) });
    let hanging = Server::replying([Reply::Hangs]);
    let of_hanging = leases_of(&hanging);
    first.block_on(async {
        let left = timeout(Duration::from_millis(1), of_hanging.acquire(&KEY, false));
        left.await.unwrap_err();
        // Its task has not heard of that yet.
        drop(dropped);
    });
    drop(first);
    drop(kept);
    let began = std::time::Instant::now();
    runtime().block_on(async {
        let before = Instant::now();
        let next = leases.acquire(&KEY, false).await.unwrap();
        drop(next);
        leases.close(TIME).await;
        of_hanging.close(TIME).await;
        assert!(before.elapsed() < TIME, "nobody is waited for");
    });
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(Arc::strong_count(&leases.0), 1);
    assert_eq!(Arc::strong_count(&of_hanging.0), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_lease_is_bounded() {
    for (time, expected) in [
        (Duration::ZERO, MIN_TIME),
        (TIME, TIME),
        (Duration::MAX, Duration::from_secs(24 * 60 * 60)),
    ] {
        let leases = NetworkLeases::new("t".to_owned(), Server::default(), time, Limits::default());
        assert_eq!(leases.0.time, expected);
    }
}
