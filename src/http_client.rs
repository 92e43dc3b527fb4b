//! What all `reqwest` clients of the crate have in common.

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, redirect};
use std::time::Duration;

/// Below the 60 to 75 seconds after which most servers close an idle connection, so that a request
/// rarely runs into a connection that is just closing.
pub(crate) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Follows no redirect, and requests bodies as they were stored, whatever features of reqwest another
/// crate switches on: a frame is verified as stored, so it must not be transformed on its way.
pub(crate) fn client_builder() -> ClientBuilder {
    let identity = HeaderValue::from_static("identity");
    Client::builder()
        .user_agent(concat!("pipeline-cache/", env!("CARGO_PKG_VERSION")))
        .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, identity)]))
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .redirect(redirect::Policy::none())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
}
