//! Which artifacts a store holds: for tools, and not part of any lookup.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{Error, ObjectMeta};
use std::time::Duration;
use tokio::time::timeout;

use super::ObjectStoreCache;
use super::objects::{Objects, of_a_read};
use crate::key::PipelineFingerprint;
use crate::network::RequestError;
use crate::store::{StoreError, StoreErrorKind, StoreOperation};

impl ObjectStoreCache {
    /// The keys of all artifacts in the store, in the order of the store. Looks at names alone: a
    /// [`get`](crate::PipelineCacheStore::get) of a key may still miss. Source aliases and compile leases
    /// are left out.
    ///
    /// A store lists a thousand names in one request, those of source aliases among them. The requests
    /// pass by the circuit breaker and are not repeated.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed, or sends nothing within the
    /// [inactivity timeout](super::ObjectStoreCacheBuilder::inactivity_timeout). The stream ends with the
    /// error.
    ///
    /// # Cancel safety
    ///
    /// The stream may be dropped at any time.
    ///
    /// ```
    /// use futures::TryStreamExt as _;
    /// use pipeline_cache::{Artifact, ObjectStoreCache, PipelineCacheStore, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = ObjectStoreCache::builder().writes().build("memory:///artifacts")?;
    /// let key = PipelineFingerprint::from_bytes([7; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    /// assert_eq!(cache.keys().try_collect::<Vec<_>>().await?, [key]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keys(&self) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
        if let Err(error) = self.require_runtime(StoreOperation::List) {
            return stream::iter([Err(error)]).boxed();
        }
        let objects = self.tier.backend.clone();
        let name = self.tier.name.clone();
        let names = objects.store.list(Some(&objects.prefix));
        let listed = in_time(names, objects.inactivity);
        let keys = listed.filter_map(move |object| {
            let key = match object {
                Ok(object) => objects.key(&object.location).map(Ok),
                Err(error) => {
                    let failed = StoreError::new(error.kind, name.clone(), StoreOperation::List);
                    Some(Err(failed.with_source(error)))
                }
            };
            std::future::ready(key)
        });
        keys.boxed()
    }
}

impl Objects {
    /// The key of the artifact at this path, if it is one.
    fn key(&self, path: &Path) -> Option<PipelineFingerprint> {
        let mut parts = path.prefix_match(&self.prefix)?;
        let (name, None) = (parts.next()?, parts.next()) else {
            return None;
        };
        let hex = name.as_ref().strip_suffix(".bin")?;
        let key: PipelineFingerprint = hex.parse().ok()?;
        (key.to_hex() == hex).then_some(key)
    }
}

/// The objects until one fails, or none comes for so long.
fn in_time(
    objects: BoxStream<'static, Result<ObjectMeta, Error>>,
    limit: Duration,
) -> BoxStream<'static, Result<ObjectMeta, RequestError>> {
    let rest = stream::unfold(Some(objects), move |objects| async move {
        let mut objects = objects?;
        match timeout(limit, objects.next()).await {
            Ok(Some(Ok(object))) => Some((Ok(object), Some(objects))),
            // A folder that nobody has put anything into.
            Ok(None | Some(Err(Error::NotFound { .. }))) => None,
            Ok(Some(Err(error))) => Some((Err(of_a_read(error)), None)),
            Err(_) => {
                let silent = RequestError::new(StoreErrorKind::TimedOut, "no names in time");
                Some((Err(silent), None))
            }
        }
    });
    rest.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::store::PipelineCacheStore as _;
    use futures::TryStreamExt as _;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt as _, PutPayload};
    use std::sync::Arc;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
    /// With letters in its name.
    const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0xab; 32]);

    #[tokio::test]
    async fn the_keys_are_those_of_artifacts_below_the_prefix() {
        let store = Arc::new(InMemory::new());
        for prefix in ["", "team"] {
            let cache = ObjectStoreCache::builder()
                .writes()
                .build_on(Arc::clone(&store) as _, prefix);
            cache.put(&KEY, Artifact::new("code")).await.unwrap();
            let aliases = cache.alias_stores().remove(0);
            aliases.put(&OTHER, Artifact::new("alias")).await.unwrap();
            let others = [
                format!("{OTHER}.tmp"),
                format!("x/{OTHER}.bin"),
                format!("{}.bin", OTHER.to_hex().to_uppercase()),
            ];
            for name in others {
                let path = Path::from(format!("{prefix}/{name}"));
                store.put(&path, PutPayload::new()).await.unwrap();
            }
            let keys: Vec<_> = cache.keys().try_collect().await.unwrap();
            assert_eq!(keys, [KEY], "below {prefix:?}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_has_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/none", folder.path().display());
        let cache = ObjectStoreCache::new(url).unwrap();
        assert_eq!(cache.keys().try_collect::<Vec<_>>().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_stands_still_is_given_up() {
        let object = ObjectMeta {
            location: Path::from("x"),
            last_modified: std::time::UNIX_EPOCH.into(),
            size: 0,
            e_tag: None,
            version: None,
        };
        let objects = stream::iter([Ok(object)]).chain(stream::pending());
        let mut listed = in_time(objects.boxed(), Duration::from_secs(5));
        assert!(listed.next().await.unwrap().is_ok());
        let failed = listed.next().await.unwrap().unwrap_err();
        assert_eq!(failed.kind, StoreErrorKind::TimedOut);
        assert!(listed.next().await.is_none());
    }
}
