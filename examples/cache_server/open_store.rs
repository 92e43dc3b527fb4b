//! The object store of `--store`. Its credentials come from the environment, as those of the
//! `object_store` crate do: `AWS_ACCESS_KEY_ID` and so on.

use anyhow::Result;
use pipeline_cache::{PipelineCacheStore, SharedSecret};
use std::sync::Arc;
use std::time::Duration;

#[cfg_attr(
    not(feature = "object-store"),
    expect(dead_code, reason = "this build opens none")
)]
pub(crate) struct StoreSettings<'a> {
    pub(crate) url: &'a str,
    /// How long the store may keep silent.
    pub(crate) wait: Duration,
    pub(crate) requests: usize,
    pub(crate) max_artifact: u64,
    pub(crate) secret: Option<SharedSecret>,
}

/// Connects to nothing yet.
#[cfg(feature = "object-store")]
pub(crate) fn open(settings: StoreSettings<'_>) -> Result<Arc<dyn PipelineCacheStore>> {
    use anyhow::Context as _;
    use pipeline_cache::ObjectStoreCache;

    /// For an attempt and for a call: a large artifact over a thin line takes its time.
    const ATTEMPT: Duration = Duration::from_secs(30);
    const CALL: Duration = Duration::from_secs(60);
    const CONNECT: Duration = Duration::from_secs(2);

    let mut store = ObjectStoreCache::builder()
        .writes()
        .max_artifact_bytes(settings.max_artifact)
        .max_concurrent_requests(settings.requests)
        .connect_timeout(settings.wait.min(CONNECT))
        .inactivity_timeout(settings.wait)
        .attempt_timeout(ATTEMPT)
        .request_timeout(CALL);
    if let Some(secret) = settings.secret {
        store = store.shared_secret(secret);
    }
    // The error does not repeat the URL, which may hold a secret.
    Ok(Arc::new(
        store.build(settings.url).context("cannot use --store")?,
    ))
}

#[cfg(not(feature = "object-store"))]
pub(crate) fn open(_: StoreSettings<'_>) -> Result<Arc<dyn PipelineCacheStore>> {
    anyhow::bail!(
        "cannot use --store: this cache_server was built without object stores; build it with \
         --features object-store"
    )
}
