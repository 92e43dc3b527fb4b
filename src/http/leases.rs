//! Compile leases of an HTTP server that grants them, such as `cache_server`.
//!
//! | request | answer |
//! |---|---|
//! | `POST <base>/leases/<64 hex digits>` with the headers `Lease-Token` and `Lease-Time-Ms` | `granted`, to this token already or now; `held` by another; `stored` |
//! | the same with `Lease-Wait-Ms` alone | once it is no longer held, or this time is over: `free`, `stored` or `held` |
//! | either with `Lease-Ignores-Entry` | as if the entry were not there: its client cannot use it |
//! | `DELETE` with `Lease-Token` | the lease is released, if this token holds it |
//!
//! The answers are text, so that the page of a server that accepts every POST is no lease. Headers
//! carry what belongs in no log.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::client::{Connection, Response};
use super::credentials::SentCredentials;
use super::server::{Ask, Server};
use crate::key::PipelineFingerprint;
use crate::network::{
    ASK_AGAIN, LeaseAnswer, LeaseBackend, LeaseRequest, LeaseWatch, RequestError, ServerSupport,
    pause_after,
};
use crate::store::StoreErrorKind;

/// The longest time to live that a server grants.
pub(super) const MAX_TIME: Duration = Duration::from_secs(600);

/// The most requests that wait at the server. Each has a connection of HTTP/1.1; who waits besides
/// asks now and then.
const MAX_WAITS: usize = 32;

/// The longest time that a request waits at the server.
const MAX_WAIT: Duration = Duration::from_secs(25);

/// Longer than any answer.
const MAX_ANSWER: u64 = 64;

const TOKEN: HeaderName = HeaderName::from_static("lease-token");
const TIME: HeaderName = HeaderName::from_static("lease-time-ms");
const WAIT: HeaderName = HeaderName::from_static("lease-wait-ms");
const IGNORES_ENTRY: HeaderName = HeaderName::from_static("lease-ignores-entry");

#[derive(Clone)]
pub(super) struct HttpLeases(Arc<Inner>);

struct Inner {
    tier: String,
    server: Server,
    /// Half of the time in which the answer must begin.
    wait: Duration,
    waits: Arc<Semaphore>,
    support: ServerSupport,
}

impl HttpLeases {
    pub(super) fn new(tier: String, server: Server, inactivity_timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            tier,
            server,
            wait: (inactivity_timeout / 2).min(MAX_WAIT),
            waits: Arc::new(Semaphore::new(MAX_WAITS)),
            support: ServerSupport::default(),
        }))
    }
}

impl LeaseBackend for HttpLeases {
    type Watch = Watch;

    fn credentials_version(&self) -> Option<u64> {
        let server = &self.0.server;
        let credentials = server.credentials.current().ok()?;
        server.version(&credentials)
    }

    async fn acquire(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        if self.0.support.is_missing() {
            return Ok(LeaseAnswer::Unsupported);
        }
        self.0.ask(lease).await
    }

    /// A server that was started again knows of no leases, and grants it anew.
    async fn renew(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        Ok(self.0.ask(lease).await? == LeaseAnswer::Granted)
    }

    async fn release(&self, lease: &LeaseRequest) -> Result<(), RequestError> {
        let headers = HeaderMap::from_iter([(TOKEN, token(lease)?)]);
        let sent = self.0.send(Method::DELETE, &lease.key, headers).await?;
        let (response, _) = sent;
        let (status, error) = (response.status(), response.status_error());
        response.drain().await;
        match status {
            // Another has it by now, or nobody.
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(error.of_a_write()),
        }
    }

    fn watch(&self, lease: &LeaseRequest) -> Watch {
        Watch {
            leases: self.clone(),
            lease: lease.clone(),
            waits: Arc::clone(&self.0.waits).try_acquire_owned().ok(),
            since: Instant::now(),
            not_before: Instant::now(),
        }
    }
}

impl Inner {
    /// Acquires a lease, or renews it.
    async fn ask(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        let mut headers = of_key(lease);
        headers.insert(TOKEN, token(lease)?);
        headers.insert(TIME, millis(lease.time));
        let (response, credentials) = self.send(Method::POST, &lease.key, headers).await?;
        let status = response.status();
        if status.is_success() {
            let answer = match response.read_short(MAX_ANSWER).await?.as_deref() {
                Some(b"granted\n") => LeaseAnswer::Granted,
                Some(b"held\n") => LeaseAnswer::Held,
                Some(b"stored\n") => LeaseAnswer::Stored,
                _ => return Err(no_lease()),
            };
            self.support.is_there();
            return Ok(answer);
        }
        let error = response.status_error();
        response.drain().await;
        let has_credentials = self.server.version(&credentials).is_some();
        if is_unsupported(status, has_credentials) {
            self.unsupported(status);
            return Ok(LeaseAnswer::Unsupported);
        }
        let error = error.of_a_read();
        Err(match error.kind {
            // It has no room for more leases, and works.
            StoreErrorKind::StorageFull => error.into_rejection(),
            _ => error,
        })
    }

    /// Waits at the server while the lease is held. Whether it still is.
    async fn wait(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        let mut headers = of_key(lease);
        headers.insert(WAIT, millis(self.wait));
        let (response, _) = self.send(Method::POST, &lease.key, headers).await?;
        if !response.status().is_success() {
            let error = response.status_error();
            response.drain().await;
            return Err(error.of_a_read());
        }
        match response.read_short(MAX_ANSWER).await?.as_deref() {
            Some(b"held\n") => Ok(true),
            Some(b"free\n" | b"stored\n") => Ok(false),
            _ => Err(no_lease()),
        }
    }

    async fn send(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        headers: HeaderMap,
    ) -> Result<(Response, SentCredentials), RequestError> {
        let credentials = self.server.credentials.current()?;
        let ask = Ask {
            method: &method,
            url: self.server.base.lease(key),
            headers,
            upload: None,
            connection: Connection::Kept,
        };
        let response = self.server.request(ask, &credentials).await?;
        Ok((response, credentials))
    }

    /// The server has answered with this status that it grants no leases.
    fn unsupported(&self, status: StatusCode) {
        if self.support.missing() {
            tracing::warn!(
                tier = self.tier, status = status.as_u16(), ask_again = ?ASK_AGAIN,
                "the server grants no compile leases: processes that share it may compile the same key. \
                 Use cache_server or a RedisCache, or remove compile_leases"
            );
        }
    }
}

/// Whether a status says that the server has no such thing as leases.
fn is_unsupported(status: StatusCode, has_credentials: bool) -> bool {
    match status.as_u16() {
        400 | 404 | 405 | 410 | 411 | 501 => true,
        // No credentials were rejected.
        401 | 403 => !has_credentials,
        _ => false,
    }
}

fn no_lease() -> RequestError {
    RequestError::new(
        StoreErrorKind::Protocol,
        "the answer to a request for a compile lease is no such answer",
    )
}

fn token(lease: &LeaseRequest) -> Result<HeaderValue, RequestError> {
    HeaderValue::from_str(&lease.token)
        .map_err(|_| RequestError::new(StoreErrorKind::Protocol, "the token is no header value"))
}

/// What is said of the key in every question about it.
fn of_key(lease: &LeaseRequest) -> HeaderMap {
    let ignores = lease.ignores_entry;
    let header = ignores.then(|| (IGNORES_ENTRY, HeaderValue::from_static("1")));
    HeaderMap::from_iter(header)
}

fn millis(time: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Waits at the server for the end of a lease.
pub(super) struct Watch {
    leases: HttpLeases,
    lease: LeaseRequest,
    /// `None` where it does not: it is not heard from, and is asked now and then.
    waits: Option<OwnedSemaphorePermit>,
    since: Instant,
    /// When the next request that waits is made: a server that says "free" of a lease and grants it to
    /// nobody is asked ever less often.
    not_before: Instant,
}

impl LeaseWatch for Watch {
    async fn changed(&mut self) {
        while self.waits.is_some() {
            sleep_until(self.not_before).await;
            let began = Instant::now();
            self.not_before = began + pause_after(began - self.since);
            match self.leases.0.wait(&self.lease).await {
                Ok(true) if began.elapsed() >= self.leases.0.wait / 2 => continue,
                Ok(false) => return,
                // It does not wait, or not now.
                Ok(true) => {}
                Err(reason) => {
                    let (tier, key) = (&self.leases.0.tier, &self.lease.key);
                    tracing::debug!(tier, %key, %reason, "wait at the server failed; asked now and then");
                }
            }
            self.waits = None;
            return;
        }
        pending().await
    }

    fn longest_wait(&self, pause: Duration) -> Duration {
        match self.waits {
            Some(_) => Duration::MAX,
            None => pause,
        }
    }
}
