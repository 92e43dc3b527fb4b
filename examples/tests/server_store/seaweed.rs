//! A real S3 server: SeaweedFS.

use crate::cache_server::{KEY, OTHER, READER, WRITER, artifact, builder, remote};
use crate::support::seaweed::{Single, TURN};
use crate::support::{on_bucket, on_s3, wait_for_uploads};
use pipeline_cache::{Fetched, PipelineCacheStore as _, PipelineFingerprint};
use std::time::{Duration, Instant};

const THIRD: PipelineFingerprint = PipelineFingerprint::from_bytes([0x33; 32]);

#[tokio::test]
async fn servers_on_one_bucket_share_it_and_outlive_it() {
    let _turn = TURN.lock().await;
    let Some(mut store) = Single::start() else {
        return;
    };
    let endpoint = store.endpoint();
    let misspelt = on_bucket("s3://misspelt/team", &endpoint, &[]);
    misspelt
        .wait_until_said("that there is such a bucket")
        .await;
    let [one, two] = [(); 2].map(|()| on_s3(&endpoint, &[]));
    let (writer, reader) = (remote(&one, WRITER), remote(&two, READER));
    writer.put(&KEY, artifact(3_000_000)).await.unwrap();
    wait_for_uploads(&one, 1).await;
    assert_eq!(reader.get(&KEY).await.unwrap(), Some(artifact(3_000_000)));

    for server in [&one, &two] {
        assert!(!server.said().contains("of --store"), "{}", server.said());
    }

    store.kill();
    assert!(writer.get(&KEY).await.unwrap().is_some());
    assert!(reader.get(&KEY).await.unwrap().is_some());
    let began = Instant::now();
    let patient = builder(READER).inactivity_timeout(Duration::from_secs(60));
    let patient = patient.attempt_timeout(Duration::from_secs(60));
    let patient = patient.build(two.url("/artifacts")).unwrap();
    assert_eq!(patient.fetch(&OTHER).await.unwrap(), Fetched::Miss);
    // Three seconds by default; the rest is for a machine that does much else.
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    writer.put(&OTHER, artifact(1000)).await.unwrap();
    writer.put(&THIRD, artifact(1000)).await.unwrap();
    assert!(writer.get(&OTHER).await.unwrap().is_some());

    store.restart();
    wait_for_uploads(&one, 3).await;
    // Its breaker may be open for a moment.
    two.wait_for(
        "cache_server_store_breaker_open{requests=\"reads\"}",
        |open| open == 0,
    )
    .await;
    for key in [OTHER, THIRD] {
        assert_eq!(reader.get(&key).await.unwrap(), Some(artifact(1000)));
    }
}
