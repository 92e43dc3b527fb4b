//! Lookups: the methods of the cache that find artifacts, one key or many at a time.

use futures::stream::{self, Stream, StreamExt as _};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tracing::{Instrument as _, field};

use super::LayeredPipelineCache;
use super::group::{self, Member};
use super::lookup::{Lookup, LookupOptions, LookupSource};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::sync::blocking;

/// How many lookups of many keys are under way at a time, where each asks every tier alone.
const LOOKUPS_AT_ONCE: usize = 64;

/// What beginning a lookup costs, as bytes that are hashed in that time.
const LOOKUP_WORK: usize = 8 * 1024;

impl LayeredPipelineCache {
    /// The artifact under this key, from the first tier that answers with it.
    ///
    /// The short form of [`lookup`](Self::lookup). A failure of a tier looks like a miss here; it is
    /// counted and traced.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops this caller's wait. Other callers are not held up.
    pub async fn get(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        self.lookup(key, &LookupOptions::new())
            .await
            .into_artifact()
    }

    /// The artifact under this key, if any, and what each tier did.
    ///
    /// Never fails: the answer says what went wrong. Takes at most the shorter of the deadline of
    /// the options and the deadline of the cache. A hit in a tier that answers at once allocates
    /// nothing and starts no task.
    ///
    /// A search that has to wait runs as a task: a lookup that is not polled holds up no other.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops this caller's wait. Other callers are not held up.
    pub async fn lookup(&self, key: &PipelineFingerprint, options: &LookupOptions) -> Lookup {
        self.lookup_as(key, options, None).await
    }

    /// A lookup, alone or as a member of a group.
    async fn lookup_as(
        &self,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        member: Option<Member>,
    ) -> Lookup {
        let span = tracing::debug_span!("lookup", %key, hit = field::Empty, tier = field::Empty);
        let lookup = self.parts.search.lookup(key, options, member);
        let lookup = lookup.instrument(span.clone()).await;
        if !span.is_disabled() {
            span.record("hit", lookup.artifact().is_some());
            if let Some(LookupSource::Tier(tier)) = lookup.source() {
                span.record("tier", self.parts.tiers[tier].name());
            }
        }
        lookup
    }

    /// The artifacts under these keys, in their order.
    ///
    /// The short form of [`lookup_many`](Self::lookup_many). A failure of a tier looks like a miss here;
    /// it is counted and traced. All artifacts are in memory together: the caller bounds the number of
    /// keys.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops this caller's wait, and loses the artifacts that were found so far. What
    /// was found is promoted all the same.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint,
    /// };
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), pipeline_cache::StoreError> {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let keys = [1, 2].map(|n| PipelineFingerprint::from_bytes([n; 32]));
    /// cache.put(&keys[1], Artifact::new("code")).await?;
    /// assert_eq!(cache.get_many(&keys).await, [None, Some(Artifact::new("code"))]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many(&self, keys: &[PipelineFingerprint]) -> Vec<Option<Artifact>> {
        let lookups = self.lookups_by_key(keys, &LookupOptions::new()).await;
        let artifact = |key| lookups.get(key).and_then(Lookup::artifact).cloned();
        keys.iter().map(artifact).collect()
    }

    /// The lookup of each of these keys.
    pub(super) async fn lookups_by_key(
        &self,
        keys: &[PipelineFingerprint],
        options: &LookupOptions,
    ) -> HashMap<PipelineFingerprint, Lookup> {
        self.lookup_many(keys, options).collect().await
    }

    /// Looks up many keys. The answers come as they are ready, in any order.
    ///
    /// Each is one [`lookup`](Self::lookup): it joins others of the same key, and shares the bounds
    /// of the cache. A key that is given twice is answered once. Lookups under way go on while the
    /// stream is not polled.
    ///
    /// A network tier is asked in one call for all keys that no faster tier has, of up to 1,024 keys:
    /// see [`fetch_many`](crate::PipelineCacheStore::fetch_many). The local tiers have their head start
    /// as long as they go on answering. A key that is held up in a tier holds up no other for longer
    /// than two milliseconds. Without a network tier, 64 lookups are under way at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops this caller's wait for the lookups under way. No answer that was
    /// yielded is lost, and no further key is looked up.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use pipeline_cache::{
    ///     Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions,
    ///     PipelineFingerprint,
    /// };
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), pipeline_cache::StoreError> {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let keys = [1, 2, 3].map(|n| PipelineFingerprint::from_bytes([n; 32]));
    /// cache.put(&keys[1], Artifact::new("code")).await?;
    ///
    /// let options = LookupOptions::new();
    /// let mut answers = std::pin::pin!(cache.lookup_many(&keys, &options));
    /// let mut hits = 0;
    /// while let Some((_key, lookup)) = answers.next().await {
    ///     hits += usize::from(lookup.artifact().is_some());
    /// }
    /// assert_eq!(hits, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lookup_many<K>(
        &self,
        keys: K,
        options: &LookupOptions,
    ) -> impl Stream<Item = (PipelineFingerprint, Lookup)> + Send + use<K>
    where
        K: IntoIterator<Item: Borrow<PipelineFingerprint>>,
    {
        let mut seen = HashSet::new();
        let keys = keys.into_iter().map(|key| *key.borrow());
        let keys: Vec<_> = keys.filter(|key| seen.insert(*key)).collect();
        let (cache, options) = (self.clone(), *options);
        let at_once = match cache.parts.search.asks_for_many(&options) {
            true => group::MAX_MEMBERS,
            false => LOOKUPS_AT_ONCE,
        };
        let search = Arc::clone(&cache.parts.search);
        let groups: Vec<Vec<_>> = keys.chunks(group::MAX_MEMBERS).map(<[_]>::to_vec).collect();
        // A group begins when its first key is looked up.
        let members = stream::iter(groups).flat_map(move |keys| {
            let members = search.members(keys.len(), &options);
            stream::iter(keys.into_iter().zip(members))
        });
        let begun = members.then(|member| async {
            blocking::consume_budget(LOOKUP_WORK).await;
            member
        });
        begun
            .map(move |(key, member)| {
                let cache = cache.clone();
                async move { (key, cache.lookup_as(&key, &options, member).await) }
            })
            .buffer_unordered(at_once)
    }
}
