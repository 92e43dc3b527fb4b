//! Compile leases, in the memory of the server: one client at a time compiles a key, and the others
//! wait here for its artifact.
//!
//! A lease ends when its holder releases it, or when its time is over by the clock of the server. A
//! server that is started again has none. A holder renews its lease by asking for it again, and so
//! has it again then, unless another was faster.

use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use pipeline_cache::{PipelineCacheStore as _, PipelineFingerprint};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::http_error::{HttpError, failed};
use crate::http_server::counters::{Counter, Gauge};

const TOKEN: &str = "lease-token";
const TIME: &str = "lease-time-ms";
const WAIT: &str = "lease-wait-ms";
const IGNORES_ENTRY: &str = "lease-ignores-entry";

const MAX_TOKEN: usize = 64;

/// What a lease may live for.
const MIN_TIME: Duration = Duration::from_millis(100);
const MAX_TIME: Duration = Duration::from_secs(600);

/// The longest time that a request waits here.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The most requests that wait for one lease.
const MAX_WAITS_PER_KEY: usize = 64;

/// How often a full table is searched for leases whose time is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Leases {
    table: Mutex<Table>,
    most: usize,
    waits: Semaphore,
    stopping: CancellationToken,
    pub(crate) metrics: LeaseMetrics,
}

struct Table {
    leases: HashMap<PipelineFingerprint, Lease>,
    swept: Instant,
}

struct Lease {
    token: Box<str>,
    until: Instant,
    /// Wakes those who wait: by a value when the artifact is stored, by its drop when the lease ends.
    stored: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(crate) struct LeaseMetrics {
    pub(crate) granted: Counter,
    pub(crate) held: Counter,
    pub(crate) stored: Counter,
    /// Not granted, because there are as many as there may be.
    pub(crate) refused: Counter,
    pub(crate) released: Counter,
    pub(crate) expired: Counter,
    pub(crate) waiting: Gauge,
}

/// What became of a request for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Granted,
    /// To the token that has it already.
    Renewed,
    Held,
    TableFull,
}

impl Leases {
    /// At most so many leases, and so many requests that wait.
    pub(crate) fn new(most: usize, waits: usize) -> Self {
        Self {
            table: Mutex::new(Table {
                leases: HashMap::new(),
                swept: Instant::now(),
            }),
            most,
            waits: Semaphore::new(waits),
            stopping: CancellationToken::new(),
            metrics: LeaseMetrics::default(),
        }
    }

    /// Whether a request would wait, which takes no request permit: the number of these is bounded
    /// here.
    pub(crate) fn is_wait(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::POST && headers.contains_key(WAIT)
    }

    pub(crate) async fn answer(
        &self,
        method: &Method,
        name: &str,
        headers: &HeaderMap,
        artifacts: &Artifacts,
    ) -> Result<Response, HttpError> {
        let key = key(name)?;
        // A client that cannot use the entry asks as if it were not there.
        let ignores_entry = headers.contains_key(IGNORES_ENTRY);
        let entry = (!ignores_entry).then_some(artifacts);
        match method.as_str() {
            "POST" if headers.contains_key(WAIT) => {
                let limit = millis(headers, WAIT)?.min(MAX_WAIT);
                self.wait(&key, limit, entry).await
            }
            "POST" => {
                let time = millis(headers, TIME)?;
                if !(MIN_TIME..=MAX_TIME).contains(&time) {
                    return Err(HttpError::BadLease);
                }
                self.acquire(&key, token(headers)?, time, entry).await
            }
            "DELETE" => match self.release(&key, token(headers)?) {
                true => Ok(StatusCode::NO_CONTENT.into_response()),
                false => Err(HttpError::NotFound),
            },
            _ => Err(HttpError::MethodNotAllowed("POST, DELETE")),
        }
    }

    /// Wakes those who wait for this artifact.
    pub(crate) fn stored(&self, key: &PipelineFingerprint) {
        if let Some(lease) = self.table().leases.get(key) {
            lease.stored.send_replace(());
        }
    }

    /// Nobody waits here any more.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        let mut table = self.table();
        self.sweep(&mut table);
        table.leases.len() as u64
    }

    async fn acquire(
        &self,
        key: &PipelineFingerprint,
        token: &str,
        time: Duration,
        entry: Option<&Artifacts>,
    ) -> Result<Response, HttpError> {
        let asked = self.ask(key, token, time);
        // Looked for only now: what the last holder stored before it released the lease is there.
        let is_new = matches!(asked, Asked::Granted | Asked::Held);
        if is_new && is_stored(entry, key).await? {
            if asked == Asked::Granted {
                self.release(key, token);
            }
            self.metrics.stored.increment();
            return Ok((StatusCode::OK, "stored\n").into_response());
        }
        match asked {
            Asked::Granted | Asked::Renewed => {
                Ok((StatusCode::CREATED, "granted\n").into_response())
            }
            Asked::Held => {
                self.metrics.held.increment();
                Ok((StatusCode::ACCEPTED, "held\n").into_response())
            }
            Asked::TableFull => {
                self.metrics.refused.increment();
                Err(HttpError::TooManyLeases)
            }
        }
    }

    fn ask(&self, key: &PipelineFingerprint, token: &str, time: Duration) -> Asked {
        let now = Instant::now();
        let mut table = self.table();
        if let Some(lease) = table.leases.get_mut(key) {
            // Also where its time was over: nobody else has it.
            if *lease.token == *token {
                lease.until = now + time;
                return Asked::Renewed;
            }
            if lease.until > now {
                return Asked::Held;
            }
            table.leases.remove(key);
            self.metrics.expired.increment();
        }
        if table.leases.len() >= self.most {
            self.sweep(&mut table);
        }
        if table.leases.len() >= self.most {
            return Asked::TableFull;
        }
        let lease = Lease {
            token: token.into(),
            until: now + time,
            stored: watch::Sender::new(()),
        };
        table.leases.insert(*key, lease);
        self.metrics.granted.increment();
        Asked::Granted
    }

    /// Whether this token had it.
    fn release(&self, key: &PipelineFingerprint, token: &str) -> bool {
        let mut table = self.table();
        let holds = |lease: &Lease| *lease.token == *token;
        let is_held = table.leases.get(key).is_some_and(holds);
        if is_held {
            table.leases.remove(key);
            self.metrics.released.increment();
        }
        is_held
    }

    /// Waits until the lease is free or the artifact is stored.
    async fn wait(
        &self,
        key: &PipelineFingerprint,
        limit: Duration,
        entry: Option<&Artifacts>,
    ) -> Result<Response, HttpError> {
        let _one_of_all = self.waits.try_acquire().map_err(|_| HttpError::Busy)?;
        let _counted = self.metrics.waiting.enter();
        let deadline = Instant::now() + limit;
        loop {
            // Watched before the artifact is looked for: what is stored in between is noticed.
            let held = self.watch(key)?;
            if is_stored(entry, key).await? {
                return Ok("stored\n".into_response());
            }
            let Some((mut stored, until)) = held else {
                return Ok("free\n".into_response());
            };
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Err(HttpError::Busy),
                changed = stored.changed() => {
                    if entry.is_none() && changed.is_ok() {
                        return Ok("stored\n".into_response());
                    }
                }
                () = sleep_until(until.min(deadline)) => {
                    if Instant::now() >= deadline {
                        return Ok((StatusCode::ACCEPTED, "held\n").into_response());
                    }
                }
            }
        }
    }

    /// A lease that is held, and until when, unless it is renewed.
    fn watch(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<(watch::Receiver<()>, Instant)>, HttpError> {
        let table = self.table();
        let held = |lease: &&Lease| lease.until > Instant::now();
        let Some(lease) = table.leases.get(key).filter(held) else {
            return Ok(None);
        };
        if lease.stored.receiver_count() >= MAX_WAITS_PER_KEY {
            return Err(HttpError::Busy);
        }
        Ok(Some((lease.stored.subscribe(), lease.until)))
    }

    /// Removes those whose time is over, now and then.
    fn sweep(&self, table: &mut Table) {
        let now = Instant::now();
        if now < table.swept + SWEEP_INTERVAL {
            return;
        }
        table.swept = now;
        let before = table.leases.len();
        table.leases.retain(|_, lease| lease.until > now);
        let expired = before - table.leases.len();
        self.metrics.expired.add(expired as u64);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_stored(
    entry: Option<&Artifacts>,
    key: &PipelineFingerprint,
) -> Result<bool, HttpError> {
    let Some(artifacts) = entry else {
        return Ok(false);
    };
    let found = artifacts.disk.contains(key).await;
    found.map_err(|error| failed(&error))
}

/// The key in a path. Only its one spelling is taken.
fn key(name: &str) -> Result<PipelineFingerprint, HttpError> {
    let key = PipelineFingerprint::from_str(name).map_err(|_| HttpError::BadPath)?;
    match key.to_hex() == name {
        true => Ok(key),
        false => Err(HttpError::BadPath),
    }
}

fn token(headers: &HeaderMap) -> Result<&str, HttpError> {
    let token = headers.get(TOKEN).and_then(|token| token.to_str().ok());
    let token = token.filter(|token| (1..=MAX_TOKEN).contains(&token.len()));
    token.ok_or(HttpError::BadLease)
}

fn millis(headers: &HeaderMap, name: &str) -> Result<Duration, HttpError> {
    let millis = headers.get(name).and_then(|millis| millis.to_str().ok());
    let millis = millis.and_then(|millis| millis.parse().ok());
    millis.map(Duration::from_millis).ok_or(HttpError::BadLease)
}
