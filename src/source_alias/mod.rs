//! Known spellings: from the hash of a source to the fingerprint of the program it spells.

mod known;
mod prefetch;
mod table;

pub(crate) use prefetch::PrefetchedAlias;
pub(crate) use table::{FlightState, NetworkWait, Parsed, Resolved, SourceTimes, Unresolved};

use bytes::Bytes;
use futures::future::join_all;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use table::{AliasStore, Flown, MAX_WRITES, Stores, Table};

#[cfg(feature = "signatures")]
use crate::artifact::SigningKey;
use crate::key::PipelineFingerprint;
use crate::key::{Program, Unkeyable, WIRE_VERSION, WireWriter};
use crate::store::{PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::blocking;
use crate::sync::single_flight::{Outcome, SingleFlight};

/// The context of the hash of a source; part of the format of kept aliases.
const CONTEXT: &str = "pipeline-cache 2026-11 alias of a source v1";

/// A bounded table of sources whose fingerprint is known, so that a source seen before costs one
/// hash instead of a parse and a canonical form.
///
/// A source is known by BLAKE3 over its bytes, the build of the front end that reads it, and the
/// domain and schema of the program. Any other spelling, even by a space, is another source: it is
/// parsed and canonicalized once, and then finds the same artifacts. Sources that fail to parse or
/// have no key are not remembered.
///
/// `front_end` must name all that decides what a source means: the parser's build and every option
/// it reads the source with (includes, defines, the language's version). Two front ends that share
/// a name share aliases.
///
/// Every [`LayeredPipelineCache`](crate::LayeredPipelineCache) has such a table, which its
/// [compile requests](crate::layered::CompileRequest::source) use. Give it one of your own to set its
/// size or to keep aliases in a store:
///
/// ```
/// use pipeline_cache::{
///     Artifact, CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
///     OpaqueProgram, SourceAliases, Unkeyable,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let known_spellings = DiskCache::new(folder.path()).await?;
/// let cache = LayeredPipelineCache::builder()
///     .tier(InMemoryPipelineCache::new())
///     .source_aliases(SourceAliases::with_capacity(100_000).kept_in(known_spellings))
///     .build();
/// let scope = CompileScope::new("compiler 1.0", "x86_64")?;
/// let parse = |source: &bytes::Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("ast", source.clone()));
///
/// let compiled = cache
///     .compile(&scope)
///     .source("parser 1.0", "a + b", parse)
///     .run(|input, _cx| Ok(Artifact::new(input.into_canonical()?.bytes().to_ascii_uppercase())))
///     .await?;
/// assert_eq!(&compiled.artifact.payload()[..], b"A + B");
/// cache.flush().await?; // aliases are kept now as well
/// # Ok(())
/// # }
/// ```
pub struct SourceAliases {
    table: Arc<Table>,
    /// The sources that are looked up in the store, or parsed.
    flights: SingleFlight<PipelineFingerprint, Arc<FlightState>, Flown>,
}

/// What a table of aliases has done, apart from what a cache has done with artifacts.
///
/// See [`LayeredMetrics`](crate::layered::LayeredMetrics) for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct AliasMetrics {
    /// Sources whose fingerprint the table knew.
    pub hits: u64,
    /// Sources whose fingerprint a store knew.
    pub kept_hits: u64,
    /// Sources that were parsed, or failed to parse.
    pub misses: u64,
    /// Of these, those that failed to parse, or whose parse panicked in a compile request.
    pub parse_errors: u64,
    /// Callers that waited for another caller with the same source.
    pub joins: u64,
    /// Aliases written to the stores. One that several stores take counts once.
    pub puts: u64,
    /// Aliases that a store could not take, or that were not written, because too many writes were under way.
    pub put_errors: u64,
    /// Sources that the table knows now.
    pub entries: u64,
}

impl SourceAliases {
    /// The number of sources in a table made by [`new`](Self::new).
    pub const DEFAULT_CAPACITY: u64 = 16_384;

    /// An empty table for [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) sources.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// An empty table for at most `sources` sources; frequently used ones stay.
    #[must_use]
    pub fn with_capacity(sources: u64) -> Self {
        Self::over(sources, Stores::default())
    }

    fn over(sources: u64, stores: Stores) -> Self {
        Self {
            table: Arc::new(Table {
                known: moka::sync::Cache::new(sources),
                stores,
                counters: Arc::default(),
                #[cfg(feature = "signatures")]
                signing_key: None,
            }),
            flights: SingleFlight::new(),
        }
    }

    /// An empty table of the same size that keeps its aliases in `store` too, each as an artifact of
    /// 32 bytes under a key of its own, so that the next process or machine knows them. It also keeps
    /// the stores that were given before.
    ///
    /// The store may be one that keeps artifacts: aliases stand in a place of their own there, such as
    /// the folder `aliases`, and are counted apart. See
    /// [`alias_stores`](PipelineCacheStore::alias_stores): a store that offers none counts aliases among
    /// its artifacts. To keep aliases in all tiers of a cache, see
    /// [`keep_aliases`](crate::LayeredPipelineCacheBuilder::keep_aliases).
    ///
    /// A writer of the store decides what a source compiles to: use a store that you would also take
    /// binaries from. Before a source is compiled under a kept alias, the alias is checked.
    /// An alias is not copied from a store whose hits may not be
    /// [promoted](PipelineCacheStore::is_trusted_source).
    ///
    /// The stores on this machine are asked first, then those across a network. Where they fail, the
    /// source is parsed. A compile request waits for network stores no longer than its network budget,
    /// and one that asks [local tiers](crate::TierSelection::Local) alone asks none of them. Aliases are
    /// written in the background, to the stores that take writes, 64 at a time to each;
    /// [`LayeredPipelineCache::flush`](crate::LayeredPipelineCache::flush) waits for them.
    #[must_use]
    pub fn kept_in(self, store: impl PipelineCacheStore + 'static) -> Self {
        let apart = store.alias_stores();
        match apart.is_empty() {
            true => self.kept_in_all([Arc::new(store) as _]),
            false => self.kept_in_all(apart),
        }
    }

    pub(crate) fn kept_in_all(
        self,
        stores: impl IntoIterator<Item = Arc<dyn PipelineCacheStore>>,
    ) -> Self {
        let mut all = self.table.stores.clone();
        stores.into_iter().for_each(|store| all.add(store));
        self.anew(all)
    }

    /// An empty table with the other settings of this one.
    fn anew(&self, stores: Stores) -> Self {
        let sources = self.table.known.policy().max_capacity();
        let anew = Self::over(sources.unwrap_or(Self::DEFAULT_CAPACITY), stores);
        #[cfg(feature = "signatures")]
        if let Some(signing_key) = &self.table.signing_key {
            return anew.signed_by(signing_key.clone());
        }
        anew
    }

    /// The same table, but it signs the aliases it writes, for stores that
    /// demand signatures. An alias that is copied from one store to another keeps its own signature.
    ///
    /// The aliases of a cache that [keeps](crate::LayeredPipelineCacheBuilder::keep_aliases) them in its
    /// tiers are signed with the cache's own
    /// [`signing_key`](crate::LayeredPipelineCacheBuilder::signing_key).
    ///
    /// ```
    /// use pipeline_cache::SourceAliases;
    /// use pipeline_cache::signatures::SigningKey;
    ///
    /// let aliases = SourceAliases::new().signed_by(SigningKey::from_seed([7; 32]));
    /// ```
    #[cfg(feature = "signatures")]
    #[must_use]
    pub fn signed_by(self, signing_key: SigningKey) -> Self {
        let table = Table {
            known: self.table.known.clone(),
            stores: self.table.stores.clone(),
            counters: Arc::clone(&self.table.counters),
            signing_key: Some(signing_key),
        };
        Self {
            table: Arc::new(table),
            flights: self.flights,
        }
    }

    /// The fingerprint of a source that the table knows. Hashes the source on the calling thread,
    /// which takes a millisecond for a few megabytes, and does not look into the store.
    #[must_use]
    pub fn peek<P: Program>(&self, front_end: &str, source: &[u8]) -> Option<PipelineFingerprint> {
        let known = self.table.peek(&alias_key::<P>(front_end, source))?;
        Some(known.fingerprint)
    }

    /// The fingerprint of the program that `source` spells: from the table, from a store, or by
    /// `parse` and [`PipelineFingerprint::of`] on the blocking pool. All three give the same answer.
    ///
    /// For tools that need the fingerprint alone. To compile, use
    /// [`CompileRequest::source`](crate::layered::CompileRequest::source). Concurrent callers with one
    /// new source parse it once. An alias is written before this returns.
    ///
    /// # Errors
    ///
    /// What `parse` fails with, or the [`Unkeyable`] of the canonical form.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing. A parse that has begun runs to its end, and its alias is
    /// remembered.
    ///
    /// # Panics
    ///
    /// Where `parse` does, and outside of a tokio runtime.
    pub async fn fingerprint<P, E>(
        &self,
        front_end: &str,
        source: &Bytes,
        parse: impl Fn(&Bytes) -> Result<P, E> + Send + Sync + 'static,
    ) -> Result<PipelineFingerprint, Arc<E>>
    where
        P: Program,
        E: From<Unkeyable> + Send + Sync + 'static,
    {
        let key = alias_key_async::<P>(front_end, source).await;
        let parse = Arc::new(parse);
        let resolved = self.resolve(key, NetworkWait::Always, false, |_state| {
            let (parse, source) = (Arc::clone(&parse), source.clone());
            async move {
                let parsed = blocking::blocking(move || {
                    let program = parse(&source)?;
                    Ok(Parsed {
                        fingerprint: PipelineFingerprint::of(&program),
                        made: (),
                        times: SourceTimes::default(),
                    })
                });
                Ok(parsed.await)
            }
        });
        match resolved.await {
            Ok(resolved) => {
                self.written().await;
                resolved
                    .fingerprint
                    .map_err(|reason| Arc::new(E::from(reason)))
            }
            Err(Unresolved::Failed(error)) => Err(error),
            Err(Unresolved::Panicked(message)) => resume_unwind(Box::new(message.to_string())),
            Err(Unresolved::Interrupted) => std::future::pending().await,
        }
    }

    /// What the table has done so far.
    #[must_use]
    pub fn metrics(&self) -> AliasMetrics {
        let counters = &self.table.counters;
        AliasMetrics {
            hits: counters.hits.get(),
            kept_hits: counters.kept_hits.get(),
            misses: counters.misses.get(),
            parse_errors: counters.parse_errors.get(),
            joins: counters.joins.get(),
            puts: counters.puts.get(),
            put_errors: counters.put_errors.get(),
            entries: self.table.known.entry_count(),
        }
    }

    /// Waits for the aliases that are being written, and flushes the stores. The first error.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.written().await;
        let flushed = join_all(self.table.stores.iter().map(|kept| kept.store.flush())).await;
        flushed.into_iter().collect()
    }

    /// As [`flush`](Self::flush), given up at the deadline.
    pub(crate) async fn flush_within(&self, deadline: Duration) -> Result<(), StoreError> {
        let Some(AliasStore { store, .. }) = self.table.stores.iter().next() else {
            return Ok(());
        };
        match timeout(deadline, self.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(StoreError::new(
                StoreErrorKind::TimedOut,
                store.to_string(),
                StoreOperation::Flush,
            )),
        }
    }

    /// Waits for the aliases that are being written.
    pub(crate) async fn written(&self) {
        for AliasStore { writes, .. } in self.table.stores.iter() {
            // Nobody closes the semaphore.
            drop(writes.acquire_many(MAX_WRITES).await);
        }
    }

    /// Whether any store keeps aliases.
    pub(crate) fn are_kept(&self) -> bool {
        self.table.stores.iter().next().is_some()
    }

    /// Whether a source that the table does not know may be looked up across a network.
    pub(crate) fn are_kept_in_network(&self) -> bool {
        !self.table.stores.network.is_empty()
    }

    /// Replaces what is known of a source. `None` if what it spells has no key.
    pub(crate) fn correct(&self, key: &PipelineFingerprint, right: Option<PipelineFingerprint>) {
        match right {
            Some(right) => {
                tracing::warn!(alias = %key, "a kept source alias named another program; it is replaced");
                self.table.correct(key, right);
            }
            None => {
                tracing::debug!(alias = %key, "the program of a source has no key; its alias is forgotten");
                self.table.known.invalidate(key);
            }
        }
    }

    /// The fingerprint of a source: from the table, or else from the stores or by `parse`, once for
    /// all who ask at the same time. That work goes on when they have gone.
    ///
    /// `parse` is called again only if another caller's parse failed with an error of another type.
    pub(crate) async fn resolve<V, E, W>(
        &self,
        key: PipelineFingerprint,
        wait: NetworkWait,
        is_urgent: bool,
        parse: impl Fn(&FlightState) -> W,
    ) -> Result<Resolved<V>, Unresolved<E>>
    where
        V: Send + 'static,
        E: Send + Sync + 'static,
        W: Future<Output = Result<Result<Parsed<V>, E>, Arc<str>>> + Send + 'static,
    {
        if let Some(known) = self.table.known(&key) {
            return Ok(Resolved::of(known));
        }
        loop {
            let table = &self.table;
            let waiter = self.flights.join_kept(key, || {
                let state = Arc::new(FlightState::default());
                let parse = parse(&state);
                let (table, of_flight) = (Arc::clone(table), Arc::clone(&state));
                let work = async move { table.resolve(key, wait, &of_flight, parse).await };
                (state, work)
            });
            let is_leader = waiter.is_leader;
            if !is_leader {
                table.counters.joins.increment();
                let state = waiter.progress();
                if is_urgent {
                    state.urgent.cancel();
                }
                if wait == NetworkWait::Never {
                    state.skip_network.cancel();
                }
            }
            let flown = match waiter.await {
                Outcome::Done(flown) => flown,
                Outcome::Panicked(message) => Err(Unresolved::Panicked(message)),
                Outcome::Aborted if is_leader => Err(Unresolved::Interrupted),
                // The runtime of the leader was shut down, and that of this caller was not.
                Outcome::Aborted => continue,
            };
            return match flown {
                // The signer of the alias was revoked, and this caller may have come after that.
                Ok(source) if !is_leader && !source.is_trusted() => continue,
                Ok(source) => Ok(Resolved::of(source)),
                Err(Unresolved::Failed(error)) => match error.downcast() {
                    Ok(error) => Err(Unresolved::Failed(error)),
                    Err(_) => continue,
                },
                Err(Unresolved::Panicked(message)) => Err(Unresolved::Panicked(message)),
                Err(Unresolved::Interrupted) => Err(Unresolved::Interrupted),
            };
        }
    }
}

impl Default for SourceAliases {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SourceAliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceAliases")
            .field("sources", &self.table.known.entry_count())
            .field("stores", &self.table.stores)
            .finish()
    }
}

/// The key of an alias: the source, and all that decides what fingerprint it has.
pub(crate) fn alias_key<P: Program>(front_end: &str, source: &[u8]) -> PipelineFingerprint {
    let mut wire = WireWriter::hashing_with(blake3::Hasher::new_derive_key(CONTEXT));
    wire.u16(WIRE_VERSION);
    wire.str(P::DOMAIN);
    wire.u32(P::SCHEMA);
    wire.str(front_end);
    wire.bytes(source);
    PipelineFingerprint::from_bytes(wire.into_digest())
}

/// The same, for large sources on the blocking pool.
pub(crate) async fn alias_key_async<P: Program>(
    front_end: &str,
    source: &Bytes,
) -> PipelineFingerprint {
    if source.len() <= blocking::INLINE_BYTES {
        return alias_key::<P>(front_end, source);
    }
    let (front_end, source) = (front_end.to_owned(), source.clone());
    blocking::blocking(move || alias_key::<P>(&front_end, &source)).await
}
