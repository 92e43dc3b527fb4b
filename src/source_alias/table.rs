//! The table of known spellings: what it knows, and how it learns.

use futures::FutureExt as _;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::known::{KeptAlias, Known, SignedAlias};
use crate::artifact::Artifact;
#[cfg(feature = "signatures")]
use crate::artifact::SigningKey;
use crate::key::{PipelineFingerprint, Unkeyable};
use crate::store::metrics::Counter;
use crate::store::{Locality, PipelineCacheStore};
use crate::sync::single_flight::panic_message;

/// Aliases that are written to one store at a time. More are not kept there, and counted.
pub(super) const MAX_WRITES: u32 = 64;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) known: moka::sync::Cache<PipelineFingerprint, Known>,
    pub(super) stores: Stores,
    pub(super) counters: Arc<AliasCounters>,
    /// Signs the aliases that are written.
    #[cfg(feature = "signatures")]
    pub(super) signing_key: Option<SigningKey>,
}

/// The stores that aliases are kept in: those on this machine first.
#[derive(Debug, Clone, Default)]
pub(super) struct Stores {
    pub(super) local: Vec<AliasStore>,
    pub(super) network: Vec<AliasStore>,
}

/// A store that aliases are kept in.
#[derive(Debug, Clone)]
pub(super) struct AliasStore {
    pub(super) store: Arc<dyn PipelineCacheStore>,
    /// A permit for each write to it that may be under way: one that hangs takes none from the others.
    pub(super) writes: Arc<Semaphore>,
}

impl Stores {
    pub(super) fn add(&mut self, store: Arc<dyn PipelineCacheStore>) {
        let locality = store.locality();
        let writes = Arc::new(Semaphore::new(MAX_WRITES as usize));
        let store = AliasStore { store, writes };
        match locality {
            Locality::Local => self.local.push(store),
            Locality::Network => self.network.push(store),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AliasStore> {
        self.local.iter().chain(&self.network)
    }
}

/// What those who wait for a flight can tell it.
#[derive(Debug, Default)]
pub(crate) struct FlightState {
    /// Cancelled when an urgent caller has joined.
    pub(crate) urgent: CancellationToken,
    /// Cancelled when a caller has joined who does not wait for network stores.
    pub(super) skip_network: CancellationToken,
}

/// How long a caller waits for network stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkWait {
    /// It asks none.
    Never,
    Within(Duration),
    /// As long as it takes.
    Always,
}

#[derive(Debug, Default)]
pub(super) struct AliasCounters {
    pub(super) hits: Counter,
    pub(super) kept_hits: Counter,
    pub(super) misses: Counter,
    pub(super) parse_errors: Counter,
    pub(super) joins: Counter,
    pub(super) puts: Counter,
    pub(super) put_errors: Counter,
}

/// The fingerprint of a source, or why its program has none; and what was made on the way to it.
pub(crate) struct Resolved<V> {
    pub(crate) fingerprint: Result<PipelineFingerprint, Unkeyable>,
    /// What the parse made, for the first who takes it. `None` for a known source.
    pub(crate) made: Option<Arc<Mutex<Option<V>>>>,
    pub(crate) times: SourceTimes,
}

/// How long it took to look for a source in the stores of aliases, to get a place for its parse, to
/// parse it, and to make its key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SourceTimes {
    pub(crate) search: Duration,
    pub(crate) queue: Duration,
    pub(crate) parse: Duration,
    pub(crate) key: Duration,
}

/// What a parse yields.
pub(crate) struct Parsed<V> {
    pub(crate) fingerprint: Result<PipelineFingerprint, Unkeyable>,
    pub(crate) made: V,
    pub(crate) times: SourceTimes,
}

/// Why a source was not resolved.
pub(crate) enum Unresolved<E: ?Sized> {
    Failed(Arc<E>),
    Panicked(Arc<str>),
    /// The runtime was shut down.
    Interrupted,
}

pub(super) type SharedAny = Arc<dyn Any + Send + Sync>;

/// The outcome of a flight. Its types are those of its leader.
pub(super) type Flown = Result<FlownSource, Unresolved<dyn Any + Send + Sync>>;

#[derive(Clone)]
pub(super) struct FlownSource {
    pub(super) fingerprint: Result<PipelineFingerprint, Unkeyable>,
    pub(super) made: Option<SharedAny>,
    pub(super) times: SourceTimes,
    signed: Option<SignedAlias>,
}

impl Clone for Unresolved<dyn Any + Send + Sync> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::Interrupted => Self::Interrupted,
        }
    }
}

impl FlownSource {
    /// Whether the signer of its alias is still accepted, if it has one.
    pub(super) fn is_trusted(&self) -> bool {
        let signed = self.signed.as_ref();
        signed.is_none_or(SignedAlias::is_accepted)
    }
}

impl<V: Send + 'static> Resolved<V> {
    pub(super) fn of(source: FlownSource) -> Self {
        Self {
            fingerprint: source.fingerprint,
            made: source.made.and_then(|made| made.downcast().ok()),
            times: source.times,
        }
    }
}

impl Table {
    /// What is known in memory.
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Known> {
        self.known.get(key).filter(Known::is_trusted)
    }

    /// What is known in memory. Counted as a hit.
    pub(super) fn known(&self, key: &PipelineFingerprint) -> Option<FlownSource> {
        let known = self.peek(key)?;
        self.counters.hits.increment();
        Some(FlownSource {
            fingerprint: Ok(known.fingerprint),
            made: known.made.upgrade(),
            times: SourceTimes::default(),
            signed: known.signed,
        })
    }

    /// The work of a flight.
    pub(super) async fn resolve<V, E>(
        self: Arc<Self>,
        key: PipelineFingerprint,
        wait: NetworkWait,
        state: &FlightState,
        parse: impl Future<Output = Result<Result<Parsed<V>, E>, Arc<str>>> + Send,
    ) -> Flown
    where
        V: Send + 'static,
        E: Send + Sync + 'static,
    {
        // An earlier flight may have ended since the caller looked.
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let start = Instant::now();
        let kept = self.kept_in_any(&key, wait, state).await;
        let search = match self.stores.iter().next() {
            Some(_) => start.elapsed(),
            None => Duration::ZERO,
        };
        if let Some(known) = kept {
            self.counters.kept_hits.increment();
            self.known.insert(key, known.clone());
            return Ok(FlownSource {
                fingerprint: Ok(known.fingerprint),
                made: None,
                times: SourceTimes {
                    search,
                    ..SourceTimes::default()
                },
                signed: known.signed,
            });
        }
        self.counters.misses.increment();
        match parse.await {
            Ok(Ok(parsed)) => {
                let made: SharedAny = Arc::new(Mutex::new(Some(parsed.made)));
                if let Ok(fingerprint) = parsed.fingerprint {
                    let made = Arc::downgrade(&made);
                    self.learn(&key, Known::parsed(fingerprint, made));
                }
                Ok(FlownSource {
                    fingerprint: parsed.fingerprint,
                    made: Some(made),
                    times: SourceTimes {
                        search,
                        ..parsed.times
                    },
                    signed: None,
                })
            }
            Ok(Err(error)) => {
                self.counters.parse_errors.increment();
                Err(Unresolved::Failed(Arc::new(error)))
            }
            Err(message) => {
                self.counters.parse_errors.increment();
                Err(Unresolved::Panicked(message))
            }
        }
    }

    /// The alias in the first store that has it. From a trusted store it is written to those before it,
    /// in the background.
    async fn kept_in_any(
        &self,
        key: &PipelineFingerprint,
        wait: NetworkWait,
        state: &FlightState,
    ) -> Option<Known> {
        let Stores { local, network } = &self.stores;
        if let Some((at, kept)) = self.first_of(local, key).await {
            let store = &local[at].store;
            if store.is_trusted_source() {
                self.copy(key, &kept.stored, &local[..at]);
            }
            return Some(Known::kept(store, &kept));
        }
        let asked = async {
            match wait {
                NetworkWait::Never => None,
                NetworkWait::Always => self.first_of(network, key).await,
                NetworkWait::Within(budget) => {
                    let asked = timeout(budget, self.first_of(network, key));
                    asked.await.ok().flatten()
                }
            }
        };
        let (at, kept) = tokio::select! {
            biased;
            found = asked => found?,
            () = state.skip_network.cancelled() => return None,
        };
        let store = &network[at].store;
        if store.is_trusted_source() {
            self.copy(key, &kept.stored, local.iter().chain(&network[..at]));
        }
        Some(Known::kept(store, &kept))
    }

    /// The first of these stores that has the alias, and the alias.
    async fn first_of(
        &self,
        stores: &[AliasStore],
        key: &PipelineFingerprint,
    ) -> Option<(usize, KeptAlias)> {
        for (at, AliasStore { store, .. }) in stores.iter().enumerate() {
            // A store that panics costs the parse.
            let kept = AssertUnwindSafe(self.kept(store, key)).catch_unwind();
            let kept = kept.await.unwrap_or_else(|panic| {
                let message = panic_message(&*panic);
                tracing::error!(%key, %message, "the store of source aliases panicked; the source is parsed instead");
                None
            });
            if let Some(kept) = kept {
                return Some((at, kept));
            }
        }
        None
    }

    /// The alias in the store. A payload that is not a whole fingerprint is ignored.
    async fn kept(
        &self,
        store: &Arc<dyn PipelineCacheStore>,
        key: &PipelineFingerprint,
    ) -> Option<KeptAlias> {
        let stored = match store.get(key).await {
            Ok(artifact) => artifact?,
            Err(error) => {
                tracing::debug!(%key, error = %format_args!("{error:#}"), "cannot read a source alias from its store; the source is parsed instead");
                return None;
            }
        };
        let fingerprint = stored.payload()[..].try_into().ok();
        if fingerprint.is_none() {
            tracing::warn!(%key, bytes = stored.len(), "ignored a source alias whose payload is not a fingerprint of 32 bytes");
        }
        let fingerprint = PipelineFingerprint::from_bytes(fingerprint?);
        Some(KeptAlias {
            fingerprint,
            stored,
        })
    }

    /// Remembers an alias, and writes it to the stores in the background.
    pub(super) fn learn(&self, key: &PipelineFingerprint, known: Known) {
        let fingerprint = known.fingerprint;
        self.known.insert(*key, known);
        let alias = self.alias(key, fingerprint);
        self.write(key, &alias, Was::Missing, self.stores.iter());
    }

    /// Remembers an alias that the stores have otherwise.
    pub(super) fn correct(&self, key: &PipelineFingerprint, fingerprint: PipelineFingerprint) {
        let known = Known::parsed(fingerprint, Weak::<()>::new());
        self.known.insert(*key, known);
        let alias = self.alias(key, fingerprint);
        self.write(key, &alias, Was::Wrong, self.stores.iter());
    }

    /// An alias as it is stored, by this process.
    fn alias(&self, key: &PipelineFingerprint, fingerprint: PipelineFingerprint) -> Artifact {
        let alias = Artifact::new(fingerprint.as_bytes().to_vec());
        #[cfg(feature = "signatures")]
        if let Some(signing_key) = &self.signing_key {
            return alias.signed(key, signing_key);
        }
        let _ = key;
        alias
    }

    /// Writes an alias of another store to those of these stores that would serve it.
    fn copy<'a>(
        &self,
        key: &PipelineFingerprint,
        alias: &Artifact,
        stores: impl IntoIterator<Item = &'a AliasStore>,
    ) {
        let stores = stores.into_iter();
        let stores = stores.filter(|kept| kept.store.accepts_maker(alias));
        self.write(key, alias, Was::Missing, stores);
    }

    /// Writes an alias in the background, to those of the stores that take writes.
    fn write<'a>(
        &self,
        key: &PipelineFingerprint,
        alias: &Artifact,
        was: Was,
        stores: impl IntoIterator<Item = &'a AliasStore>,
    ) {
        let stores = stores.into_iter().filter(|kept| kept.store.is_writable());
        let stores: Vec<_> = stores.collect();
        if stores.is_empty() {
            return;
        }
        let write = Arc::new(Write {
            missing: AtomicUsize::new(stores.len()),
            counters: Arc::clone(&self.counters),
        });
        for AliasStore { store, writes } in stores {
            let Ok(permit) = Arc::clone(writes).try_acquire_owned() else {
                continue;
            };
            let (key, store, alias) = (*key, Arc::clone(store), alias.clone());
            let write = Arc::clone(&write);
            // Detached: it ends by itself, and a flush waits for its permit.
            drop(tokio::spawn(async move {
                let _permit = permit;
                if was == Was::Wrong {
                    // A put does not replace an entry that is whole. Where this fails, so may the put.
                    // What this store does not serve is somebody else's.
                    if let Ok(Some(_)) = store.get(&key).await {
                        let _ = store.remove(&key).await;
                    }
                }
                match store.put(&key, alias).await {
                    Ok(()) => write.stored(),
                    Err(error) => {
                        tracing::debug!(%key, error = %format_args!("{error:#}"), "cannot write a source alias to its store; the next process parses the source");
                    }
                }
                // Before the permit: whoever waits for that reads counters that are complete.
                drop(write);
            }));
        }
    }
}

/// What the stores have under the key of an alias before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Missing,
    /// Another program's fingerprint.
    Wrong,
}

/// The write of one alias to several stores. Its drop is the end of it, and counts it.
#[derive(Debug)]
struct Write {
    /// Stores that do not have it yet.
    missing: AtomicUsize,
    counters: Arc<AliasCounters>,
}

impl Write {
    fn stored(&self) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        match *self.missing.get_mut() {
            0 => self.counters.puts.increment(),
            _ => self.counters.put_errors.increment(),
        }
    }
}
