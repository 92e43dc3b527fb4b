//! Servers that share an object store.

use super::operation::share;
use super::seaweed::{ACCESS_KEY, BUCKET, SECRET_KEY, Single, TURN};
use super::support::folder;

#[tokio::test]
async fn servers_share_a_folder() {
    let shared = folder();
    let url = format!("file://{}", shared.path().display());
    share(&url, &[], "objects").await;
}

/// On a real store. Its network budget is long: the first request opens a connection, on a machine that
/// may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn servers_share_a_bucket() {
    let _turn = TURN.lock().await;
    let Some(store) = tokio::task::spawn_blocking(Single::start).await.unwrap() else {
        return;
    };
    let variables = [
        ("AWS_ENDPOINT", store.endpoint()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    share(&format!("s3://{BUCKET}/shaders"), &variables, "objects").await;
}
