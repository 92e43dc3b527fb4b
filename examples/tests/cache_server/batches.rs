//! Many artifacts in one answer of the real server.

use super::support::{CacheServer, READER, WRITER, artifact, builder, client, frame, path, remote};
use pipeline_cache::testing::check_conformance;
use pipeline_cache::{Artifact, Fetched, FrameError, PipelineCacheStore, PipelineFingerprint};
use reqwest::{Method, StatusCode};
use std::sync::{Arc, Mutex};

const BATCH: &str = "/artifacts/batch";
const MAGIC: &[u8] = b"\x89pcb\r\n\x1a\n";

fn key(number: u32) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<PipelineFingerprint> {
    numbers.into_iter().map(key).collect()
}

/// The body of a request.
fn body(keys: &[PipelineFingerprint]) -> Vec<u8> {
    let keys = keys.iter().map(PipelineFingerprint::as_bytes);
    keys.copied().collect::<Vec<_>>().concat()
}

async fn ask(server: &CacheServer, token: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let request = client().post(server.url(BATCH)).bearer_auth(token);
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status();
    (status, answer.bytes().await.unwrap().to_vec())
}

/// Posts that the server has counted with this class of status.
async fn posts(server: &CacheServer, class: &str) -> u64 {
    let name = "cache_server_requests_total";
    let labels = format!("{{area=\"artifacts\",method=\"POST\",status=\"{class}\"}}");
    server.metric(&format!("{name}{labels}")).await
}

/// The format, byte by byte.
#[tokio::test]
async fn an_answer_has_each_frame_as_it_is_stored_with_its_length() {
    let server = CacheServer::start(&[]);
    let small = frame(&key(0), artifact(100)).await;
    let large = frame(&key(2), artifact(1_000_000)).await;
    for (number, frame) in [(0, &small), (2, &large)] {
        assert!(
            server
                .put(&path(&key(number)), frame.clone())
                .await
                .is_success()
        );
    }
    // To those who may read, in the order of the request, as often as it names them.
    let asked = keys([2, 1, 0, 2]);
    let (status, answer) = ask(&server, READER, body(&asked)).await;
    assert_eq!(status, StatusCode::OK);
    let entry = |frame: &[u8]| [&(frame.len() as u32).to_le_bytes(), frame].concat();
    let expected = [
        MAGIC.to_vec(),
        entry(&large),
        entry(&[]),
        entry(&small),
        entry(&large),
    ];
    assert!(answer == expected.concat());
    assert_eq!(server.metric("cache_server_artifact_hits_total").await, 3);
    assert_eq!(server.metric("cache_server_artifact_misses_total").await, 1);
    // It counts and logs what it has answered a moment later.
    let line = format!("reader POST {BATCH} 200 {}", answer.len());
    server.wait_until_said(&line).await;
    assert_eq!(posts(&server, "2xx").await, 1);
}

#[tokio::test]
async fn what_is_no_batch_is_refused() {
    let server = CacheServer::start(&[]);
    let most = body(&keys(0..1024));
    assert_eq!(ask(&server, READER, most.clone()).await.0, StatusCode::OK);
    let too_many = [most.clone(), vec![0; 32]].concat();
    for body in [
        vec![],
        vec![0; 31],
        vec![0; 33],
        most[1..].to_vec(),
        too_many,
        vec![0; 1 << 20],
    ] {
        let (status, _) = ask(&server, READER, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    let (status, _) = ask(&server, "not-a-token-0123456789", most.clone()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let request = client()
            .request(method, server.url(BATCH))
            .bearer_auth(WRITER);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    // The right to read many artifacts is no right to post anything else.
    for elsewhere in [path(&key(0)), "/ccache/batch".into(), "/batch".into()] {
        let request = client().post(server.url(&elsewhere)).bearer_auth(READER);
        let status = request.body(most.clone()).send().await.unwrap().status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{elsewhere}");
    }
}

#[tokio::test]
async fn a_remote_cache_gets_a_thousand_artifacts_with_one_request() {
    let server = CacheServer::start(&[]);
    let writer = remote(&server, WRITER);
    let large = |number: u32| if number % 100 == 1 { 200_000 } else { 64 };
    for number in (1..1000).step_by(2) {
        let artifact = artifact(large(number));
        writer.put(&key(number), artifact).await.unwrap();
    }
    let reader = remote(&server, READER);
    let answers = reader.fetch_many(&keys(0..1000)).await;
    for (number, answer) in (0..).zip(answers) {
        match answer {
            Ok(Fetched::Hit(found)) => {
                assert!(
                    number % 2 == 1 && found == artifact(large(number)),
                    "{number}"
                );
            }
            Ok(Fetched::Miss) => assert_eq!(number % 2, 0),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(posts(&server, "2xx").await, 1);
    let metrics = reader.metrics();
    assert_eq!((metrics.hits, metrics.misses), (500, 500));

    // Source aliases stand in a folder of their own, with a request of their own.
    let aliases = writer.alias_stores().remove(0);
    aliases.put(&key(1), Artifact::new("alias")).await.unwrap();
    let answers = aliases.fetch_many(&keys(0..2)).await;
    assert!(matches!(&answers[1], Ok(Fetched::Hit(found)) if found.payload() == "alias"));
    assert_eq!(posts(&server, "2xx").await, 2);
}

/// 64 MiB of frames: what does not fit is asked for again, and what never fits is asked for alone.
#[tokio::test]
async fn an_answer_has_a_bound_and_nothing_is_missing() {
    let server = CacheServer::start(&["--max-artifact", "100M"]);
    let builder = || builder(WRITER).max_artifact_bytes(100 << 20);
    let writer = builder().build(server.url("/artifacts")).unwrap();
    let sizes = [30 << 20, 70 << 20, 30 << 20, 30 << 20, 10];
    for (number, size) in (0..).zip(sizes) {
        let artifact = Artifact::new(vec![number as u8; size]);
        writer.put(&key(number), artifact).await.unwrap();
    }
    let reader = builder().build(server.url("/artifacts")).unwrap();
    let answers = reader.fetch_many(&keys(0..6)).await;
    for (number, size) in (0..).zip(sizes) {
        let answer = &answers[number];
        let Ok(Fetched::Hit(found)) = answer else {
            panic!("{number}: {answer:?}");
        };
        assert_eq!((found.len(), found.payload()[0]), (size, number as u8));
    }
    assert!(matches!(answers[5], Ok(Fetched::Miss)));
    // Two, then the third of 30 MiB, then none: the one of 70 MiB comes alone.
    let get = "cache_server_requests_total{area=\"artifacts\",method=\"GET\",status=\"2xx\"}";
    assert_eq!(
        (posts(&server, "2xx").await, server.metric(get).await),
        (2, 1)
    );
}

#[tokio::test]
async fn what_cannot_be_served_stands_beside_what_can() {
    let server = CacheServer::start(&[]);
    let ours = builder(WRITER).require_provenance("ci");
    let ours = ours.build(server.url("/artifacts")).unwrap();
    for number in 0..6 {
        ours.put(&key(number), artifact(100)).await.unwrap();
    }
    // Of nobody knows whom.
    ours.put(&key(6), Artifact::new("code")).await.unwrap();
    // Damaged behind the server's back, as it lies on the disk.
    let file = server.folder().join(format!("artifacts/{}.bin", key(3)));
    let mut damaged = std::fs::read(&file).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&file, damaged).unwrap();

    let answers = ours.fetch_many(&keys(0..8)).await;
    for number in [0, 1, 2, 4, 5] {
        assert!(
            matches!(answers[number], Ok(Fetched::Hit(_))),
            "{:?}",
            answers[number]
        );
    }
    assert!(matches!(
        answers[3],
        Ok(Fetched::Corrupt(FrameError::BadPayload))
    ));
    assert!(matches!(answers[6], Ok(Fetched::Refused)));
    assert!(matches!(answers[7], Ok(Fetched::Miss)));
}

/// Each tier of the suite has a server of its own: it asks for empty ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_cache_on_the_server_conforms() {
    let servers = Mutex::new(Vec::new());
    let new_store = || async {
        let server = CacheServer::start(&[]);
        let store = builder(WRITER).build(server.url("/artifacts")).unwrap();
        servers.lock().unwrap().push(server);
        Arc::new(store) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(new_store, &[WRITER]).await.unwrap();
}
