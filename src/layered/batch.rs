//! Many keys at once.

use futures::stream::{self, Stream, StreamExt as _};
use std::collections::HashSet;

use super::LayeredPipelineCache;
use super::lookup::{Lookup, LookupOptions};
use crate::key::PipelineFingerprint;

/// Lookups of one batch that are under way at a time.
const AT_A_TIME: usize = 64;

impl LayeredPipelineCache {
    /// Looks up many keys, 64 at a time; the answers come as they are ready, in any order.
    ///
    /// Each lookup is one as [`lookup`](Self::lookup) makes it: it joins others of the same key,
    /// and shares the bounds of the cache. A key that is named twice is answered once. Lookups under
    /// way go on while the stream is not polled, and hold nothing up that its reader waits for.
    ///
    /// # Panics
    ///
    /// When polled outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream gives up this caller's place in the lookups under way; no key that was
    /// yielded is lost, and no other is asked.
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
    /// let mut answers = std::pin::pin!(cache.get_many(keys, &options));
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
        K: IntoIterator<Item = PipelineFingerprint>,
    {
        let mut seen = HashSet::new();
        let keys: Vec<_> = keys.into_iter().filter(|key| seen.insert(*key)).collect();
        let cache = self.clone();
        let options = *options;
        stream::iter(keys)
            .map(move |key| {
                let cache = cache.clone();
                async move { (key, cache.lookup(&key, &options).await) }
            })
            .buffer_unordered(AT_A_TIME)
    }
}
