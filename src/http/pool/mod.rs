//! The connections to one server: how many there are, who has them and who waits.
//!
//! A place is taken before a connection is opened and is free once its socket is closed, so that
//! there never are more sockets than places. Whoever finds none that is idle waits for the first
//! that comes: one that is opened for the purpose, in a task of its own, or one that another
//! request is done with.

mod state;

use futures::future::BoxFuture;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use crate::network::RequestError;
use crate::store::StoreErrorKind;
use state::{IDLE, State, WaitResult};

/// Opens a connection that holds a place.
type Open = dyn Fn(Place) -> BoxFuture<'static, Result<Connection, RequestError>> + Send + Sync;

pub(super) struct Pool {
    open: Box<Open>,
    limits: Limits,
    state: Mutex<State>,
}

/// How many connections a pool opens, and whether it keeps them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// At a time, at least 1.
    pub(super) most: usize,
    /// Whether a connection is kept for the next request.
    pub(super) keeps: bool,
    /// Whether one connection may well do for all: then it is waited for before more are opened.
    pub(super) may_share: bool,
}

impl Pool {
    pub(super) fn new<F>(
        limits: Limits,
        open: impl Fn(Place) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = Result<Connection, RequestError>> + Send + 'static,
    {
        Arc::new(Self {
            open: Box::new(move |place| Box::pin(open(place))),
            limits,
            state: Mutex::new(State::new(limits.may_share)),
        })
    }

    /// A connection for one request, as soon as there is one.
    ///
    /// Dropping this gives up the wait. What is being opened by then is left to the next.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, RequestError> {
        let connection = match self.update(State::take) {
            Ok(connection) => connection,
            Err(result) => {
                let mut wait = Wait { pool: self, result };
                (&mut wait.result)
                    .await
                    .unwrap_or_else(|_| Err(given_up()))?
            }
        };
        Ok(Lease {
            connection,
            pool: Arc::clone(self),
        })
    }

    /// Changes the state, and opens what those who wait need then and may have.
    fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        let openings = state.begin(self.limits.most.max(1));
        let sweeps = self.limits.keeps && state.needs_a_sweep();
        let gone = mem::take(&mut state.gone);
        // A runtime that ends drops what it is given, which comes back here.
        drop(state);
        drop(gone);
        if sweeps {
            spawn(Sweeper(Arc::downgrade(self)).sweep());
        }
        for waiter in openings {
            let opening = Opening {
                pool: Arc::downgrade(self),
                waiter,
                outcome: Err(given_up()),
            };
            let open = (self.open)(Place(Arc::downgrade(self)));
            spawn(async move { opening.end(open.await) });
        }
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no connection, and none is being opened.
    pub(super) fn is_empty(&self) -> bool {
        self.state().places == 0
    }

    pub(super) const fn keeps(&self) -> bool {
        self.limits.keeps
    }

    fn come_back(self: &Arc<Self>, mut connection: Connection) {
        connection.is_used = true;
        self.update(|state| state.put(connection, self.limits.keeps));
    }
}

/// Runs a task for which nobody waits. Drops it where the runtime has ended.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(task);
    }
}

fn given_up() -> RequestError {
    RequestError::new(StoreErrorKind::Unreachable, "the connection was given up")
}

/// A wait for a connection. One that comes as it is given up goes to the next.
struct Wait<'a> {
    pool: &'a Arc<Pool>,
    result: WaitResult,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.result.close();
        if let Ok(Ok(connection)) = self.result.try_recv() {
            self.pool.come_back(connection);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("limits", &self.limits)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Who closes connections that are idle for long. When it ends early, as with its runtime, another
/// may take over.
struct Sweeper(Weak<Pool>);

impl Sweeper {
    /// Until there are none.
    async fn sweep(mut self) {
        loop {
            sleep(IDLE).await;
            let Some(pool) = self.0.upgrade() else { return };
            let is_unused = pool.update(|state| {
                state.forget_old();
                state.is_swept = !state.is_unused();
                !state.is_swept
            });
            if is_unused {
                // Another may have taken over by now.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.state().is_swept = false;
        }
    }
}

/// Room for one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Weak<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.update(|state| state.places -= 1);
        }
    }
}

/// An opening under way. However it ends, whoever waits for it is told.
struct Opening {
    pool: Weak<Pool>,
    /// For whom it was begun.
    waiter: u64,
    outcome: Result<Connection, RequestError>,
}

impl Opening {
    fn end(mut self, outcome: Result<Connection, RequestError>) {
        self.outcome = outcome;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let outcome = mem::replace(&mut self.outcome, Err(given_up()));
            pool.update(|state| state.end(self.waiter, outcome, pool.limits.keeps));
        }
    }
}

/// A connection on loan to one request. Dropped, it is closed, unless others share it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    pool: Arc<Pool>,
}

impl Lease {
    /// Leaves the connection to the next request, once it is ready for one: its answer was read.
    /// One that is not within `settling` is closed: its server does not read the rest of the
    /// request.
    pub(super) fn give_back(mut self, settling: Duration) {
        if self.connection.is_shared() || self.connection.is_closed() {
            return;
        }
        if self.connection.is_ready() {
            return self.pool.come_back(self.connection);
        }
        spawn(async move {
            if timeout(settling, self.connection.ready()).await == Ok(true) {
                self.pool.come_back(self.connection);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dial::Line;
    use crate::http::upload::RequestBody;
    use crate::network::Upload;
    use bytes::Bytes;
    use futures::FutureExt as _;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::{Notify, Semaphore, mpsc};
    use tokio::time::{Instant, advance};

    /// A pool whose connections lead here, each once it may.
    struct Peer {
        pool: Arc<Pool>,
        /// Openings that have begun.
        begun: Arc<AtomicUsize>,
        /// One for each opening that may end.
        may_open: Arc<Semaphore>,
        opened: mpsc::UnboundedReceiver<DuplexStream>,
    }

    /// What an opening comes to.
    #[derive(Clone, Copy)]
    enum Opens {
        Http1,
        Http2,
        Nothing,
    }

    const SETTLING: Duration = Duration::from_millis(250);

    const LIMITS: Limits = Limits {
        most: 2,
        keeps: true,
        may_share: false,
    };

    fn peer(limits: Limits, opens: Opens) -> Peer {
        let begun = Arc::<AtomicUsize>::default();
        let may_open = Arc::new(Semaphore::new(0));
        let (sender, opened) = mpsc::unbounded_channel();
        let (begins, may) = (Arc::clone(&begun), Arc::clone(&may_open));
        let pool = Pool::new(limits, move |place| {
            begins.fetch_add(1, Ordering::SeqCst);
            let (may, sender) = (Arc::clone(&may), sender.clone());
            async move {
                may.acquire().await.unwrap().forget();
                if matches!(opens, Opens::Nothing) {
                    return Err(RequestError::new(
                        StoreErrorKind::Unreachable,
                        "nobody there",
                    ));
                }
                let (ours, theirs) = duplex(1024);
                sender.send(theirs).unwrap();
                let line = Line {
                    stream: Box::new(TokioIo::new(ours)),
                    speaks_http2: matches!(opens, Opens::Http2),
                    is_proxied: false,
                };
                Connection::start(line, place).await
            }
        });
        Peer {
            pool,
            begun,
            may_open,
            opened,
        }
    }

    impl Peer {
        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }

        /// A connection that is opened for the purpose, and where it leads.
        async fn open(&mut self) -> (Lease, DuplexStream) {
            self.may_open.add_permits(1);
            let lease = self.pool.lease().await.unwrap();
            (lease, self.opened.recv().await.unwrap())
        }

        /// A wait that is not over yet.
        fn wait(
            &self,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Lease, RequestError>> + Send>> {
            let pool = Arc::clone(&self.pool);
            let mut wait = Box::pin(async move { pool.lease().await });
            assert!((&mut wait).now_or_never().is_none());
            wait
        }
    }

    /// Lets the other tasks run until something is so, which is soon.
    async fn until(is_so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never is");
    }

    fn request(body: RequestBody) -> Request<RequestBody> {
        let request = Request::put("/").header("host", "h");
        request.body(body).unwrap()
    }

    async fn answers(stream: &mut DuplexStream) {
        let mut buffer = [0; 256];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    }

    /// A request and its answer, and the connection given back.
    async fn ask(mut lease: Lease, stream: &mut DuplexStream) {
        let sent = lease.connection.send(request(RequestBody::default()));
        let (answer, ()) = futures::join!(sent, answers(stream));
        assert_eq!(answer.unwrap().status(), 200);
        lease.give_back(SETTLING);
    }

    async fn is_closed(stream: &mut DuplexStream) -> bool {
        matches!(stream.read(&mut [0; 256]).await, Ok(0))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_opened_than_there_may_be_and_who_waits_gets_what_comes_back() {
        let mut peer = peer(LIMITS, Opens::Http1);
        let (first, mut stream) = peer.open().await;
        let _second = peer.open().await;
        let waits = peer.wait();
        tokio::task::yield_now().await;
        assert_eq!(peer.begun(), 2);
        ask(first, &mut stream).await;
        let third = waits.await.unwrap();
        ask(third, &mut stream).await;
        assert_eq!(peer.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_is_overtaken_is_left_to_the_next() {
        let mut peer = peer(LIMITS, Opens::Http1);
        let (first, mut stream) = peer.open().await;
        let waits = peer.wait();
        assert_eq!(peer.begun(), 2);
        ask(first, &mut stream).await;
        // It gets the one that came back, while its own is still being opened.
        let _second = waits.await.unwrap();
        peer.may_open.add_permits(1);
        let third = peer.pool.lease().await.unwrap();
        let mut other = peer.opened.recv().await.unwrap();
        ask(third, &mut other).await;
        assert_eq!(peer.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_opening_to_the_next() {
        let peer = peer(LIMITS, Opens::Http1);
        drop(peer.wait());
        let waits = peer.wait();
        peer.may_open.add_permits(1);
        waits.await.unwrap();
        assert_eq!(peer.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_dropped_is_closed_before_another_takes_its_place() {
        let limits = Limits { most: 1, ..LIMITS };
        let mut peer = peer(limits, Opens::Http1);
        let (lease, mut stream) = peer.open().await;
        let waits = peer.wait();
        tokio::task::yield_now().await;
        assert_eq!(peer.begun(), 1);
        drop(lease);
        peer.may_open.add_permits(1);
        waits.await.unwrap();
        assert_eq!(peer.begun(), 2);
        assert!(is_closed(&mut stream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_server_closed_is_not_used() {
        let limits = Limits { most: 1, ..LIMITS };
        let mut peer = peer(limits, Opens::Http1);
        let (lease, mut stream) = peer.open().await;
        ask(lease, &mut stream).await;
        drop(stream);
        tokio::task::yield_now().await;
        let (lease, mut stream) = peer.open().await;
        ask(lease, &mut stream).await;
        assert_eq!(peer.begun(), 2);
    }

    /// The server closes it just then: what is asked for was not sent, and can be asked for again.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_closes_as_it_is_used_has_sent_nothing() {
        let mut peer = peer(LIMITS, Opens::Http1);
        let (lease, mut stream) = peer.open().await;
        ask(lease, &mut stream).await;
        drop(stream);
        let mut lease = peer.pool.lease().await.unwrap();
        let sent = lease.connection.send(request(RequestBody::default()));
        assert!(sent.await.unwrap_err().is_unsent);
        assert!(lease.connection.is_used);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_for_long_is_closed() {
        let mut peer = peer(LIMITS, Opens::Http1);
        let (first, mut idle) = peer.open().await;
        let (second, mut used) = peer.open().await;
        ask(first, &mut idle).await;
        advance(IDLE / 2).await;
        ask(second, &mut used).await;
        advance(IDLE / 2).await;
        let lease = peer.pool.lease().await.unwrap();
        let closing = Instant::now();
        assert!(is_closed(&mut idle).await);
        assert!(closing.elapsed() < IDLE / 10);
        ask(lease, &mut used).await;
        // And where nobody asks any more.
        let asked = Instant::now();
        assert!(is_closed(&mut used).await);
        let waited = asked.elapsed();
        assert!(waited >= IDLE && waited <= 2 * IDLE, "{waited:?}");
        assert_eq!(peer.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_kept_it_is_closed_after_its_request() {
        let limits = Limits {
            keeps: false,
            ..LIMITS
        };
        let mut peer = peer(limits, Opens::Http1);
        let (lease, mut stream) = peer.open().await;
        ask(lease, &mut stream).await;
        assert!(is_closed(&mut stream).await);
    }

    /// A server may answer before it was sent everything, and never read the rest.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_settle_is_closed() {
        let limits = Limits { most: 1, ..LIMITS };
        let mut peer = peer(limits, Opens::Http1);
        let (mut lease, mut stream) = peer.open().await;
        let upload = Upload {
            head: Bytes::new(),
            payload: vec![7; 1 << 20].into(),
        };
        let body = RequestBody::of(&(&upload, Arc::new(Notify::new())));
        let sent = lease.connection.send(request(body));
        let (answer, ()) = futures::join!(sent, answers(&mut stream));
        answer.unwrap();
        let answered = Instant::now();
        lease.give_back(SETTLING);
        let waits = peer.wait();
        peer.may_open.add_permits(1);
        waits.await.unwrap();
        let waited = answered.elapsed();
        assert!(waited >= SETTLING && waited < 2 * SETTLING, "{waited:?}");
        assert_eq!(peer.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_opening_is_told_to_who_waits_for_it() {
        let peer = peer(LIMITS, Opens::Nothing);
        let (first, second, third) = (peer.wait(), peer.wait(), peer.wait());
        assert_eq!(peer.begun(), 2);
        peer.may_open.add_permits(1);
        first.await.unwrap_err();
        // Now there is room for what the third waits for.
        assert_eq!(peer.begun(), 3);
        peer.may_open.add_permits(2);
        second.await.unwrap_err();
        third.await.unwrap_err();
        // All is free again.
        let all = [peer.wait(), peer.wait()];
        assert_eq!(peer.begun(), 5);
        drop(all);
    }

    /// Answers whatever it is asked.
    fn serve_http2(stream: DuplexStream) {
        let answer =
            |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(String::new())) };
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_does_for_all_where_it_takes_many_requests() {
        let limits = Limits {
            most: 64,
            keeps: true,
            may_share: true,
        };
        let mut peer = peer(limits, Opens::Http2);
        let waits: Vec<_> = (0..10).map(|_| peer.wait()).collect();
        tokio::task::yield_now().await;
        assert_eq!(peer.begun(), 1);
        peer.may_open.add_permits(1);
        serve_http2(peer.opened.recv().await.unwrap());
        let leases = futures::future::join_all(waits).await;
        let asked = leases.into_iter().map(|lease| async {
            let mut lease = lease.unwrap();
            let request = Request::get("http://h/").body(RequestBody::default());
            let answer = lease.connection.send(request.unwrap()).await;
            assert_eq!(answer.unwrap().status(), 200);
            lease.give_back(SETTLING);
        });
        futures::future::join_all(asked).await;
        peer.pool.lease().await.unwrap();
        assert_eq!(peer.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_opened_once_one_turns_out_not_to_do_for_all() {
        let limits = Limits {
            may_share: true,
            ..LIMITS
        };
        let peer = peer(limits, Opens::Http1);
        let (first, second) = (peer.wait(), peer.wait());
        assert_eq!(peer.begun(), 1);
        peer.may_open.add_permits(2);
        let _held = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(peer.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_try_for_themselves_once_that_for_all_cannot_be_opened() {
        let limits = Limits {
            may_share: true,
            most: 64,
            ..LIMITS
        };
        let peer = peer(limits, Opens::Nothing);
        let waits: Vec<_> = (0..10).map(|_| peer.wait()).collect();
        assert_eq!(peer.begun(), 1);
        peer.may_open.add_permits(1);
        let mut waits = waits.into_iter();
        waits.next().unwrap().await.unwrap_err();
        assert_eq!(peer.begun(), 10);
        peer.may_open.add_permits(9);
        for wait in waits {
            wait.await.unwrap_err();
        }
    }

    /// It says nothing of what would become of one that is begun now.
    #[tokio::test(start_paused = true)]
    async fn an_opening_that_fails_is_told_to_nobody_who_came_after_it() {
        let peer = peer(LIMITS, Opens::Nothing);
        drop(peer.wait());
        let mut waits = peer.wait();
        assert_eq!(peer.begun(), 1);
        peer.may_open.add_permits(1);
        until(|| peer.begun() == 2).await;
        assert!((&mut waits).now_or_never().is_none());
        peer.may_open.add_permits(1);
        waits.await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_comes_as_its_wait_is_given_up_is_left_to_the_next() {
        let mut peer = peer(LIMITS, Opens::Http1);
        let wait = peer.wait();
        peer.may_open.add_permits(1);
        let mut stream = peer.opened.recv().await.unwrap();
        until(|| peer.pool.state().waiting.is_empty()).await;
        drop(wait);
        let lease = peer.pool.lease().await.unwrap();
        ask(lease, &mut stream).await;
        assert_eq!(peer.begun(), 1);
    }

    /// It may be opened for one and go to another, who waited longer.
    #[tokio::test(start_paused = true)]
    async fn who_lost_what_was_opened_for_it_gets_another() {
        let mut state = State::new(false);
        let take = |state: &mut State| state.take().unwrap_err();
        let (first, mut second) = (take(&mut state), take(&mut state));
        assert_eq!(state.begin(2), [1, 2]);
        let (ours, _theirs) = duplex(1024);
        let line = Line {
            stream: Box::new(TokioIo::new(ours)),
            speaks_http2: false,
            is_proxied: false,
        };
        let connection = Connection::start(line, ()).await.unwrap();
        state.end(2, Ok(connection), true);
        let _held = first.await.unwrap().unwrap();
        // Nobody is told of the other, and its place is free again.
        state.end(1, Err(given_up()), true);
        state.places -= 1;
        assert!(second.try_recv().is_err());
        assert_eq!(state.begin(2), [2]);
        // What is counted as being opened is no more than what is.
        assert!(state.begin(2).is_empty());
        state.end(2, Err(given_up()), true);
        state.places -= 1;
        second.await.unwrap().unwrap_err();
        assert_eq!(state.places, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_for_all_is_not_kept_either_where_none_is() {
        let limits = Limits {
            keeps: false,
            may_share: true,
            ..LIMITS
        };
        let mut peer = peer(limits, Opens::Http2);
        let (lease, stream) = peer.open().await;
        serve_http2(stream);
        lease.give_back(SETTLING);
        until(|| peer.pool.is_empty()).await;
    }
}
