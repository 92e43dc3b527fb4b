//! Compile leases in an object store: `<prefix>/leases/<64 hex digits>`, made only where there is none.
//!
//! An object holds the token of its holder, how long the lease lives, and a number that differs after
//! each renewal. No clock of another machine is looked at: who waits takes the lease over once it has
//! seen the same object for that long.

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion};
use std::collections::HashMap;
use std::future::pending;
use std::str::from_utf8;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

use super::objects::{Objects, of_a_read, of_a_write, status};
use crate::key::PipelineFingerprint;
use crate::network::{
    ASK_AGAIN, Backend as _, LeaseAnswer, LeaseBackend, LeaseRequest, LeaseWatch, RequestError,
    ServerSupport, read_capped,
};
use crate::sync::lock::lock;

/// The longest time to live.
pub(super) const MAX_TIME: Duration = Duration::from_secs(600);

/// Longer than the object of any lease.
const MAX_BYTES: u64 = 256;

/// The most leases of others that are remembered.
const MAX_SEEN: usize = 4096;

/// The least time between two requests for a lease that another holds.
const MIN_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(super) struct ObjectLeases(Arc<Inner>);

struct Inner {
    tier: String,
    objects: Objects,
    support: ServerSupport,
    /// Whether it is known that the store honours a conditional put.
    honours_create: Mutex<bool>,
    seen: Mutex<HashMap<PipelineFingerprint, Seen>>,
}

/// The object of a lease, unchanged since a time of this machine's clock.
struct Seen {
    object: Bytes,
    since: Instant,
}

/// The object of a lease that is there.
struct Found {
    object: Bytes,
    version: UpdateVersion,
}

/// What has become of a lease since it was last looked at.
enum Sight {
    /// Another holds it than then. The last one may have stored the artifact.
    NewHolder,
    /// The same holds it.
    Renewed,
    /// Nobody has renewed it for its whole time.
    Expired,
}

enum Written {
    Done,
    /// Another was faster.
    Conflict,
    /// The store knows no such condition.
    Unsupported,
}

impl ObjectLeases {
    pub(super) fn new(tier: String, objects: Objects) -> Self {
        Self(Arc::new(Inner {
            tier,
            objects,
            support: ServerSupport::default(),
            honours_create: Mutex::new(false),
            seen: Mutex::default(),
        }))
    }
}

impl LeaseBackend for ObjectLeases {
    type Watch = Watch;

    fn credentials_version(&self) -> Option<u64> {
        None
    }

    async fn acquire(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        if self.0.support.is_missing() {
            return Ok(LeaseAnswer::Unsupported);
        }
        // Who waits mostly finds it held.
        if self.0.has_seen(&lease.key) {
            if let Some(found) = self.0.find(&lease.key).await? {
                return self.0.take_over(lease, found).await;
            }
        }
        self.0.create(lease).await
    }

    async fn renew(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        let Some(found) = self.0.find(&lease.key).await? else {
            return Ok(false);
        };
        if !found.is_of(lease) {
            return Ok(false);
        }
        match self.0.update(lease, found.version).await? {
            Written::Done => Ok(true),
            Written::Conflict => Ok(false),
            Written::Unsupported => {
                self.0.write(lease, PutMode::Overwrite).await?;
                Ok(true)
            }
        }
    }

    async fn release(&self, lease: &LeaseRequest) -> Result<(), RequestError> {
        match self.0.find(&lease.key).await? {
            Some(found) if found.is_of(lease) => self.0.delete(&lease.key).await,
            _ => Ok(()),
        }
    }

    fn watch(&self, _lease: &LeaseRequest) -> Watch {
        Watch
    }
}

impl Inner {
    async fn create(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        match self.write(lease, PutMode::Create).await? {
            Written::Done => {
                if !self.honours_create(lease).await? {
                    return Ok(self.unsupported());
                }
                // What the last holder stored before it released the lease is there by now.
                self.granted_unless_stored(lease).await
            }
            Written::Conflict => {
                *lock(&self.honours_create) = true;
                match self.find(&lease.key).await? {
                    Some(found) => self.take_over(lease, found).await,
                    // It was released meanwhile, and may be asked for again at once.
                    None => Ok(LeaseAnswer::Held),
                }
            }
            Written::Unsupported => Ok(self.unsupported()),
        }
    }

    /// Whether the store refuses to make an object that is there. It is tried once, with the lease
    /// that was made just now.
    async fn honours_create(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        if *lock(&self.honours_create) {
            return Ok(true);
        }
        if let Written::Conflict = self.write(lease, PutMode::Create).await? {
            *lock(&self.honours_create) = true;
            self.support.is_there();
            return Ok(true);
        }
        self.delete(&lease.key).await?;
        Ok(false)
    }

    /// Grants a lease whose object this is, or that nobody has renewed for its whole time.
    async fn take_over(
        &self,
        lease: &LeaseRequest,
        found: Found,
    ) -> Result<LeaseAnswer, RequestError> {
        if found.is_of(lease) {
            return self.granted_unless_stored(lease).await;
        }
        match self.look(lease, &found) {
            // All who wait learn it at once, and not one holder after the other.
            Sight::NewHolder if self.is_stored(lease).await? => return Ok(LeaseAnswer::Stored),
            Sight::NewHolder | Sight::Renewed => return Ok(LeaseAnswer::Held),
            Sight::Expired => {}
        }
        let written = match self.update(lease, found.version).await? {
            Written::Unsupported => {
                self.delete(&lease.key).await?;
                self.write(lease, PutMode::Create).await?
            }
            written => written,
        };
        match written {
            Written::Done => self.granted_unless_stored(lease).await,
            Written::Conflict | Written::Unsupported => Ok(LeaseAnswer::Held),
        }
    }

    async fn granted_unless_stored(
        &self,
        lease: &LeaseRequest,
    ) -> Result<LeaseAnswer, RequestError> {
        lock(&self.seen).remove(&lease.key);
        if !self.is_stored(lease).await? {
            return Ok(LeaseAnswer::Granted);
        }
        self.delete(&lease.key).await?;
        Ok(LeaseAnswer::Stored)
    }

    /// Whether there is an entry that is of use to who asks.
    async fn is_stored(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        Ok(!lease.ignores_entry && self.objects.probe(&lease.key, ()).await?)
    }

    fn has_seen(&self, key: &PipelineFingerprint) -> bool {
        lock(&self.seen).contains_key(key)
    }

    /// Remembers the object of a lease.
    fn look(&self, lease: &LeaseRequest, found: &Found) -> Sight {
        let mut seen = lock(&self.seen);
        let earlier = seen.get(&lease.key);
        if let Some(earlier) = earlier.filter(|earlier| earlier.object == found.object) {
            let time = found.time().unwrap_or(lease.time).min(MAX_TIME);
            return match earlier.since.elapsed() >= time {
                true => Sight::Expired,
                false => Sight::Renewed,
            };
        }
        let is_renewed = earlier.is_some_and(|earlier| token(&earlier.object) == found.token());
        if seen.len() >= MAX_SEEN {
            // Each is seen anew.
            seen.clear();
        }
        let now = Seen {
            object: found.object.clone(),
            since: Instant::now(),
        };
        seen.insert(lease.key, now);
        match is_renewed {
            true => Sight::Renewed,
            false => Sight::NewHolder,
        }
    }

    async fn find(&self, key: &PipelineFingerprint) -> Result<Option<Found>, RequestError> {
        let object = match self.objects.store.get(&self.path(key)).await {
            Ok(object) => object,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(of_a_read(error)),
        };
        let version = UpdateVersion {
            e_tag: object.meta.e_tag.clone(),
            version: object.meta.version.clone(),
        };
        let size = object.meta.size;
        let parts = object.into_stream().map_err(of_a_read);
        let object = read_capped(parts, Some(size), MAX_BYTES, self.objects.inactivity).await?;
        // What is no lease is taken over as one whose holder died.
        let object = object.unwrap_or_default();
        Ok(Some(Found { object, version }))
    }

    async fn update(
        &self,
        lease: &LeaseRequest,
        version: UpdateVersion,
    ) -> Result<Written, RequestError> {
        match version.e_tag.is_some() || version.version.is_some() {
            true => self.write(lease, PutMode::Update(version)).await,
            false => Ok(Written::Unsupported),
        }
    }

    async fn write(&self, lease: &LeaseRequest, mode: PutMode) -> Result<Written, RequestError> {
        let object = format!(
            "{} {} {:016x}\n",
            lease.token,
            lease.time.as_millis(),
            fastrand::u64(..)
        );
        let path = self.path(&lease.key);
        let options = PutOptions::from(mode);
        let put = self
            .objects
            .store
            .put_opts(&path, PutPayload::from(object), options);
        match put.await {
            Ok(_) => Ok(Written::Done),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Written::Conflict),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Ok(Written::Unsupported)
            }
            Err(error) if status(&error).is_some_and(|status| status.status == 501) => {
                Ok(Written::Unsupported)
            }
            Err(error) => Err(of_a_write(error)),
        }
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<(), RequestError> {
        match self.objects.store.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(of_a_write(error)),
        }
    }

    fn path(&self, key: &PipelineFingerprint) -> Path {
        let folder = self.objects.prefix.clone().join("leases");
        folder.join(key.to_hex())
    }

    fn unsupported(&self) -> LeaseAnswer {
        if self.support.missing() {
            tracing::warn!(
                tier = self.tier, ask_again = ?ASK_AGAIN,
                "the object store does not honour conditional puts, so it grants no compile leases: \
                 processes that share it may compile the same key. Use a store that does, a \
                 cache_server or a RedisCache, or remove compile_leases"
            );
        }
        LeaseAnswer::Unsupported
    }
}

impl Found {
    fn is_of(&self, lease: &LeaseRequest) -> bool {
        self.token() == Some(&*lease.token)
    }

    fn token(&self) -> Option<&str> {
        token(&self.object)
    }

    /// How long it lives without a renewal.
    fn time(&self) -> Option<Duration> {
        let millis = words(&self.object).nth(1)?.parse().ok()?;
        Some(Duration::from_millis(millis))
    }
}

fn token(object: &[u8]) -> Option<&str> {
    words(object).next()
}

fn words(object: &[u8]) -> impl Iterator<Item = &str> {
    from_utf8(object).unwrap_or_default().split_whitespace()
}

/// Nothing is announced.
pub(super) struct Watch;

impl LeaseWatch for Watch {
    async fn changed(&mut self) {
        pending().await
    }

    /// A request to an object store takes longer than one to another server, and is paid for.
    fn longest_wait(&self, pause: Duration) -> Duration {
        (2 * pause).max(MIN_PAUSE)
    }
}
