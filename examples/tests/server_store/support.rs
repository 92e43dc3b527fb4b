//! Servers on a store, and the stores that the library's own tests start.

use std::path::Path;

use crate::cache_server::CacheServer;

#[path = "../../../tests/network/support/real_server.rs"]
pub(crate) mod real_server;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../../../tests/network/support/seaweed.rs"]
pub(crate) mod seaweed;
#[path = "../../../tests/network/support/signals.rs"]
pub(crate) mod signals;

pub(crate) const S3: &str = "s3://artifacts/team";

/// A server with a folder of its own, on the S3 server at this endpoint.
pub(crate) fn on_s3(endpoint: &str, arguments: &[&str]) -> CacheServer {
    on_bucket(S3, endpoint, arguments)
}

pub(crate) fn on_bucket(url: &str, endpoint: &str, arguments: &[&str]) -> CacheServer {
    let variables = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", seaweed::ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", seaweed::SECRET_KEY),
    ];
    let store = ["--store", url];
    CacheServer::start_with(&variables, &[&store, arguments].concat())
}

/// A server with a folder of its own, on a folder as the store.
pub(crate) fn on_folder(store: &Path, arguments: &[&str]) -> CacheServer {
    let url = format!("file://{}", store.display());
    CacheServer::start(&[&["--store", &url], arguments].concat())
}

/// Waits until this many artifacts have gone to the store.
pub(crate) async fn wait_for_uploads(server: &CacheServer, uploads: u64) {
    server
        .wait_for("cache_server_store_puts_total", |puts| puts >= uploads)
        .await;
}
