//! The cache to share with others: an HTTP server, or an object store.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use pipeline_cache::{PipelineCacheStore, RemoteCache};

use crate::site::PROVENANCE;

/// The variable that holds the token for an HTTP server. An object store takes what it needs from
/// variables of its own, such as `AWS_ACCESS_KEY_ID`.
const TOKEN: &str = "COMPILE_SERVER_REMOTE_TOKEN";

/// Connects to nothing yet.
pub(crate) fn open(url: &str) -> Result<Arc<dyn PipelineCacheStore>> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if matches!(scheme, "http" | "https") {
        let mut remote = RemoteCache::builder()
            .require_provenance(PROVENANCE)
            .writes();
        if let Ok(token) = std::env::var(TOKEN) {
            remote = remote.bearer_token(token);
        }
        // It does not repeat the URL, which may hold a secret.
        let remote = remote.build(url).context("cannot use the remote")?;
        return Ok(Arc::new(remote));
    }
    object_store(url)
}

#[cfg(feature = "object-store")]
fn object_store(url: &str) -> Result<Arc<dyn PipelineCacheStore>> {
    let store = pipeline_cache::ObjectStoreCache::builder()
        .require_provenance(PROVENANCE)
        .writes();
    let store = store.build(url).context("cannot use the remote")?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "object-store"))]
fn object_store(_url: &str) -> Result<Arc<dyn PipelineCacheStore>> {
    anyhow::bail!(
        "cannot use the remote: neither http:// nor https://, and object stores need a build with \
         the feature object-store"
    )
}
