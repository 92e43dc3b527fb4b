//! The connection that all requests of a tier share.
//!
//! It is opened by the first request that needs it, in one task for all who wait. The replies come
//! in the order of the commands, and the client discards that of a request whose future was
//! dropped: nobody takes another's reply for its own.
//!
//! A server that hangs closes nothing. So after a request that ends without a reply the connection
//! is checked: one more command on it, which is answered after all before it. Without an answer in
//! time the connection is given up. That of a cluster serves the keys of the other nodes meanwhile:
//! it is used until another is open.

use futures::future::{BoxFuture, FutureExt as _, Shared};
use redis::{Cmd, RedisError, Value};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::connector::{Connection, Connector};
use super::reply::{ends_connection, request_error};
use crate::network::{ConnectionCounts, RequestError};
use crate::store::StoreErrorKind;
use crate::store::metrics::Counter;
use crate::sync::lock::lock;

/// A clone shares the connection.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    connector: Connector,
    connect_timeout: Duration,
    /// For the answer to a check. A request has the limit of its attempt.
    inactivity_timeout: Duration,
    state: Mutex<State>,
    repeated: Counter,
    replaced: Counter,
}

/// `None`: its runtime was shut down.
type Opening = Shared<BoxFuture<'static, Option<Opened>>>;

type Opened = Result<Arc<Open>, RequestError>;

enum State {
    Closed,
    Opening(Opening),
    Open(Arc<Open>),
}

struct Open {
    connection: Connection,
    is_being_checked: AtomicBool,
    /// A task that ends with the runtime of the connection.
    runtime: AbortOnDropHandle<()>,
}

impl Open {
    fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            is_being_checked: AtomicBool::new(false),
            runtime: AbortOnDropHandle::new(tokio::spawn(pending())),
        })
    }

    fn has_runtime(&self) -> bool {
        !self.runtime.is_finished()
    }
}

/// Why a command has no value.
pub(super) enum Failure {
    /// It got no reply.
    Way(RequestError),
    /// The reply is an error, or the connection ended before it came.
    Reply(RedisError),
}

impl Failure {
    /// Whether the key holds something that is not a string.
    pub(super) fn is_of_another_type(&self) -> bool {
        matches!(self, Self::Reply(error) if error.code() == Some("WRONGTYPE"))
    }
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Way(error) => error,
            Failure::Reply(error) => request_error(&error),
        }
    }
}

impl Link {
    pub(super) fn new(
        connector: Connector,
        connect_timeout: Duration,
        inactivity_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            connector,
            connect_timeout,
            inactivity_timeout,
            state: Mutex::new(State::Closed),
            repeated: Counter::default(),
            replaced: Counter::default(),
        }))
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            repeated: self.0.repeated.get(),
            replaced: self.0.replaced.get(),
        }
    }

    /// A replica behind Sentinels was the master a moment ago. They name another.
    pub(super) fn error_of_a_write(&self, failure: Failure) -> RequestError {
        let error = RequestError::from(failure);
        if error.kind == StoreErrorKind::ReadOnly && self.0.connector.has_sentinels() {
            let reason = format!("{error}: the Sentinels are asked for the master again");
            return RequestError::new(StoreErrorKind::Unavailable, reason);
        }
        error
    }

    /// The reply to a command about this key. Made again, once, where a connection that had served
    /// others was closed: no command of this tier does harm twice.
    pub(super) async fn send(&self, command: &Cmd, key: &str) -> Result<Value, Failure> {
        let (open, is_kept) = self.open().await.map_err(Failure::Way)?;
        match self.ask(&open, command, key).await {
            Err(Failure::Reply(error)) if is_kept && error.is_connection_dropped() => {
                self.0.repeated.increment();
                let (open, _) = self.open().await.map_err(Failure::Way)?;
                self.ask(&open, command, key).await
            }
            reply => reply,
        }
    }

    async fn ask(&self, open: &Arc<Open>, command: &Cmd, key: &str) -> Result<Value, Failure> {
        let mut unanswered = Unanswered {
            link: self,
            open,
            key: Some(key),
        };
        let reply = open.connection.send(command).await;
        unanswered.key = None;
        reply.map_err(|error| {
            // A cluster has others, and the client repairs the one.
            if ends_connection(&error) && !open.connection.is_of_a_cluster() {
                self.give_up(open);
            }
            Failure::Reply(error)
        })
    }

    /// The connection, and whether it was open before.
    async fn open(&self) -> Result<(Arc<Open>, bool), RequestError> {
        loop {
            let (opening, opener) = {
                let mut state = lock(&self.0.state);
                match &*state {
                    State::Open(open) if open.has_runtime() => {
                        return Ok((Arc::clone(open), true));
                    }
                    State::Opening(opening) => (opening.clone(), None),
                    State::Open(_) | State::Closed => {
                        let (opener, opening) = Opener::new(self);
                        *state = State::Opening(opening.clone());
                        (opening, Some(opener))
                    }
                }
            };
            let is_opener = opener.is_some();
            if let Some(opener) = opener {
                // Goes on whether or not its callers wait.
                tokio::spawn(opener.run());
            }
            match opening.await {
                Some(opened) => return opened.map(|open| (open, false)),
                // That of another caller.
                None if !is_opener => {}
                None => {
                    let reason = "the runtime of the connection was shut down";
                    return Err(RequestError::new(StoreErrorKind::Unreachable, reason));
                }
            }
        }
    }

    async fn connect(&self) -> Opened {
        let limit = self.0.connect_timeout;
        let connected = timeout(limit, self.0.connector.connect()).await;
        let late = |_| RequestError::timed_out("no connection was opened", limit);
        let connection = connected
            .map_err(late)?
            .map_err(|error| request_error(&error))?;
        Ok(Open::new(connection))
    }

    /// The next request opens another.
    fn give_up(&self, open: &Arc<Open>) {
        self.replace(open, State::Closed);
    }

    fn replace(&self, open: &Arc<Open>, next: State) {
        let mut state = lock(&self.0.state);
        if matches!(&*state, State::Open(current) if Arc::ptr_eq(current, open)) {
            *state = next;
        }
    }

    /// Gives the connection up, or replaces that of a cluster, unless it is answered, by the same node
    /// as the request about this key.
    fn check(&self, open: &Arc<Open>, key: &str) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if open.is_being_checked.swap(true, Ordering::AcqRel) {
            return;
        }
        let (link, open) = (self.clone(), Arc::clone(open));
        let mut command = redis::cmd("STRLEN");
        command.arg(key);
        runtime.spawn(async move {
            let limit = link.0.inactivity_timeout;
            let answer = timeout(limit, open.connection.send(&command)).await;
            let works = match answer {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => !ends_connection(&error),
                Err(_) => false,
            };
            if !works && open.connection.is_of_a_cluster() {
                if let Ok(other) = link.connect().await {
                    link.0.replaced.increment();
                    link.replace(&open, State::Open(other));
                }
            } else if !works {
                link.0.replaced.increment();
                link.give_up(&open);
            }
            open.is_being_checked.store(false, Ordering::Release);
        });
    }
}

/// Opens the connection for all who wait.
struct Opener {
    // Dropped first: who no longer waits finds what came of it.
    end: EndOfOpening,
    waiters: oneshot::Sender<Opened>,
}

/// Sets the state when the opening ends, however it ends.
struct EndOfOpening {
    link: Link,
    opening: Opening,
    opened: Option<Arc<Open>>,
}

impl Opener {
    fn new(link: &Link) -> (Self, Opening) {
        let (waiters, opened) = oneshot::channel();
        let opening = opened.map(Result::ok).boxed().shared();
        let end = EndOfOpening {
            link: link.clone(),
            opening: opening.clone(),
            opened: None,
        };
        (Self { end, waiters }, opening)
    }

    async fn run(self) {
        // Also where this task is dropped, the waiters are told last.
        let Self { waiters, mut end } = self;
        let opened = end.link.connect().await;
        end.opened = opened.as_ref().ok().cloned();
        drop(end);
        // Nobody may wait any more.
        let _ = waiters.send(opened);
    }
}

impl Drop for EndOfOpening {
    fn drop(&mut self) {
        let mut state = lock(&self.link.0.state);
        if matches!(&*state, State::Opening(current) if current.ptr_eq(&self.opening)) {
            *state = self.opened.take().map_or(State::Closed, State::Open);
        }
    }
}

/// A request under way. If it ends without a reply, the connection is checked.
struct Unanswered<'a> {
    link: &'a Link,
    open: &'a Arc<Open>,
    /// `None` once the reply is there.
    key: Option<&'a str>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.link.check(self.open, key);
        }
    }
}
