//! The object store of `--store`. Its credentials come from the environment, as those of the
//! `object_store` crate do: `AWS_ACCESS_KEY_ID` and so on.

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use pipeline_cache::{
    PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind, TrustedKeys,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use crate::http_server::console::say;

/// A store, and what is in it.
pub(crate) struct OpenStore {
    pub(crate) store: Arc<dyn PipelineCacheStore>,
    pub(crate) listing: Listing,
}

pub(crate) type Listing = BoxStream<'static, Result<PipelineFingerprint, StoreError>>;

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
    pub(crate) keys: Option<TrustedKeys>,
}

/// Connects to nothing yet.
#[cfg(feature = "object-store")]
pub(crate) fn open(settings: StoreSettings<'_>) -> Result<OpenStore> {
    use anyhow::Context as _;
    use pipeline_cache::{ObjectStoreCache, Trust};

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
    if let Some(keys) = settings.keys {
        store = store.trust(Trust::Authenticated(keys));
    }
    // The error does not repeat the URL, which may hold a secret.
    let store = store.build(settings.url).context("cannot use --store")?;
    Ok(OpenStore {
        listing: store.keys(),
        store: Arc::new(store),
    })
}

#[cfg(not(feature = "object-store"))]
pub(crate) fn open(_: StoreSettings<'_>) -> Result<OpenStore> {
    anyhow::bail!(
        "cannot use --store: this cache_server was built without object stores; build it with \
         --features object-store"
    )
}

/// Lists the store up to its first artifact, and warns where that fails. A lookup cannot tell that a
/// bucket is missing: to it, nothing is there.
pub(crate) async fn check(mut listing: Listing, wait: Duration) {
    // The listing fails by itself where nothing comes within the wait. This is for a store that holds
    // much else.
    let first = timeout(2 * wait, listing.next()).await;
    let Ok(Some(Err(error))) = first else {
        return;
    };
    let what = match error.kind() {
        StoreErrorKind::Unreachable | StoreErrorKind::TimedOut => "does not answer",
        _ => {
            "cannot be listed: check that there is such a bucket or container, and the credentials"
        }
    };
    say(format_args!(
        "the object store of --store {what}; until that is mended, its lookups are misses, and \
         uploads stay in the folder: {error:#}"
    ));
}
