//! Lookups: the methods of the cache that find artifacts, one key or many at a time.

use futures::stream::{self, Stream, StreamExt as _};
use std::borrow::Borrow;
use std::collections::HashSet;
use tracing::{Instrument as _, field};

use super::LayeredPipelineCache;
use super::lookup::{Lookup, LookupOptions, LookupSource};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;

/// Lookups of one batch that are under way at a time.
const BATCH_CONCURRENCY: usize = 64;

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
        let span = tracing::debug_span!("lookup", %key, hit = field::Empty, tier = field::Empty);
        let lookup = self.parts.search.lookup(key, options);
        let lookup = lookup.instrument(span.clone()).await;
        if !span.is_disabled() {
            span.record("hit", lookup.artifact().is_some());
            if let Some(LookupSource::Tier(tier)) = lookup.source() {
                span.record("tier", self.parts.tiers[tier].name());
            }
        }
        lookup
    }

    /// Looks up many keys, 64 at a time. The answers come as they are ready, in any order.
    ///
    /// Each is one [`lookup`](Self::lookup): it joins others of the same key, and shares the bounds
    /// of the cache. A key that is given twice is answered once. Lookups under way go on while the
    /// stream is not polled.
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
    /// let mut answers = std::pin::pin!(cache.get_many(&keys, &options));
    /// let mut hits = 0;
    /// while let Some((_key, lookup)) = answers.next().await {
    ///     hits += usize::from(lookup.artifact().is_some());
    /// }
    /// assert_eq!(hits, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_many<K>(
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
        stream::iter(keys)
            .map(move |key| {
                let cache = cache.clone();
                async move { (key, cache.lookup(&key, &options).await) }
            })
            .buffer_unordered(BATCH_CONCURRENCY)
    }
}
