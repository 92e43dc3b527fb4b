//! What the store is asked for: an S3 server of the test's own counts that, and answers when it is
//! told to.

use crate::cache_server::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, builder, client, files, frame, remote,
};
use crate::support::{on_bucket, on_s3, wait_for_uploads};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::future::join_all;
use pipeline_cache::{Fetched, PipelineCacheStore as _, PipelineFingerprint};
use reqwest::header::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// An S3 server with one object.
struct S3 {
    frame: Vec<u8>,
    gets: AtomicUsize,
    /// Each GET takes one.
    answers: Semaphore,
    /// Each PUT takes one.
    puts: Semaphore,
}

impl S3 {
    async fn start() -> (Arc<Self>, String) {
        let s3 = Arc::new(Self {
            frame: frame(&KEY, artifact(100_000)).await,
            gets: AtomicUsize::new(0),
            answers: Semaphore::new(0),
            puts: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&s3));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (s3, endpoint)
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

async fn answer(State(s3): State<Arc<S3>>, request: Request) -> Response {
    match *request.method() {
        // A listing, which says whether the bucket is there.
        Method::GET if request.uri().query().is_some() => {
            return match request.uri().path() {
                "/artifacts" => "<ListBucketResult/>".into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            };
        }
        Method::GET => {}
        Method::PUT => {
            s3.puts.acquire().await.unwrap().forget();
            return [("etag", "\"one\"")].into_response();
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    }
    s3.gets.fetch_add(1, Ordering::SeqCst);
    s3.answers.acquire().await.unwrap().forget();
    match request.uri().path().ends_with(&format!("{KEY}.bin")) {
        true => (
            [
                ("last-modified", "Tue, 01 Dec 2026 00:00:00 GMT"),
                ("etag", "\"one\""),
            ],
            s3.frame.clone(),
        )
            .into_response(),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_clients_of_one_key_cost_one_request_of_the_store() {
    const CLIENTS: u64 = 32;
    let (s3, endpoint) = S3::start().await;
    let server = on_s3(&endpoint, &["--store-timeout", "60"]);
    let clients = (0..CLIENTS).map(|_| {
        let reader = builder(READER).request_timeout(Duration::from_secs(120));
        let reader = reader.attempt_timeout(Duration::from_secs(120));
        let reader = reader.inactivity_timeout(Duration::from_secs(120));
        let reader = reader.build(server.url("/artifacts")).unwrap();
        tokio::spawn(async move { reader.get(&KEY).await })
    });
    let clients: Vec<_> = clients.collect();
    // The request for the figure is one of them.
    server
        .wait_for("cache_server_requests_under_way", |n| n > CLIENTS)
        .await;
    wait_for("a request of the store", || s3.gets() > 0).await;
    s3.answers.add_permits(1);
    for got in join_all(clients).await {
        assert_eq!(got.unwrap().unwrap(), Some(artifact(100_000)));
    }
    assert_eq!(s3.gets(), 1);
    assert_eq!(
        remote(&server, READER).get(&KEY).await.unwrap(),
        Some(artifact(100_000))
    );
    assert_eq!(s3.gets(), 1, "the folder has it now");
}

/// The time for which misses of these many keys wait, one after the other.
async fn misses(server: &CacheServer, keys: std::ops::Range<u8>) -> Vec<Duration> {
    let reader = remote(server, READER);
    let mut times = Vec::new();
    for number in keys {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        let began = Instant::now();
        assert_eq!(reader.fetch(&key).await.unwrap(), Fetched::Miss);
        times.push(began.elapsed());
    }
    times
}

#[tokio::test]
async fn a_store_that_hangs_costs_a_miss_its_time_and_nothing_once_its_breaker_is_open() {
    let (s3, endpoint) = S3::start().await;
    let server = on_s3(&endpoint, &["--store-timeout", "0.3"]);
    let writer = remote(&server, WRITER);
    writer.put(&OTHER, artifact(1000)).await.unwrap();
    for time in misses(&server, 100..103).await {
        assert!(time < Duration::from_secs(3), "{time:?}");
    }
    assert!(s3.gets() > 0);
    let open = "cache_server_store_breaker_open{requests=\"reads\"}";
    let mut number = 103;
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.metric(open).await == 0 {
        assert!(Instant::now() < deadline, "the breaker does not open");
        misses(&server, number..number + 1).await;
        number += 1;
    }
    let failed = "cache_server_store_lookups_total{outcome=\"failed\"}";
    let before = server.metric(failed).await;
    let times = misses(&server, number..number + 10).await;
    assert_eq!(server.metric(failed).await, before + 10, "none was sent");
    assert!(times.iter().min() < Some(&Duration::from_millis(300)));
    assert!(
        writer.get(&OTHER).await.unwrap().is_some(),
        "the folder's hits go on"
    );
}

/// As many as may wait in memory, and a few more, of which the folder remembers that they wait.
#[tokio::test]
async fn uploads_go_on_while_the_store_hangs_and_arrive_after_a_restart() {
    const UPLOADS: u16 = 1024 + 5;
    let (s3, endpoint) = S3::start().await;
    let mut server = on_s3(&endpoint, &["--store-timeout", "300"]);
    let writer = remote(&server, WRITER);
    let key = |number: u16| {
        let mut key = [0x77; 32];
        key[..2].copy_from_slice(&number.to_le_bytes());
        PipelineFingerprint::from_bytes(key)
    };
    for number in 0..UPLOADS {
        let began = Instant::now();
        writer.put(&key(number), artifact(100)).await.unwrap();
        // One second, where it waits at all; the rest is for a machine that does much else.
        assert!(began.elapsed() < Duration::from_secs(10), "{number}");
    }
    let remembered = || files(&server.folder().join("artifacts/intents"));
    wait_for("all to be remembered", || {
        remembered().len() > usize::from(UPLOADS)
    })
    .await;
    server.kill();
    s3.puts.add_permits(10_000);
    server.restart();
    wait_for_uploads(&server, UPLOADS.into()).await;
}

async fn ask_for_many(server: &CacheServer, keys: &[PipelineFingerprint]) -> Vec<u8> {
    let body: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
    let request = client().post(server.url("/artifacts/batch"));
    let answer = request.bearer_auth(READER).body(body).send().await.unwrap();
    answer.bytes().await.unwrap().to_vec()
}

/// "There is no such entry" would be wrong: the store was not heard.
#[tokio::test]
async fn a_batch_says_of_what_the_store_did_not_answer_that_it_is_not_there_to_tell() {
    let (_s3, endpoint) = S3::start().await;
    let server = on_s3(
        &endpoint,
        &["--store-timeout", "1", "--store-requests", "1"],
    );
    let answer = ask_for_many(&server, &[KEY, OTHER]).await;
    let not_in_this_answer = [0xff; 8];
    assert_eq!(answer[8..], not_in_this_answer, "after the magic");
}

#[tokio::test]
async fn batches_that_wait_for_the_store_leave_others_their_permits() {
    let (s3, endpoint) = S3::start().await;
    let arguments = ["--store-timeout", "60", "--max-requests", "2"];
    let server = Arc::new(on_s3(&endpoint, &arguments));
    let path = format!("/artifacts/{OTHER}.bin");
    server.put(&path, frame(&OTHER, artifact(10)).await).await;
    let batches: Vec<_> = (0..4)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { ask_for_many(&server, &[KEY]).await })
        })
        .collect();
    wait_for("a batch asks the store", || s3.gets() > 0).await;
    // As a batch, this is the second request that is served.
    let get = server.get(&path, HeaderMap::new());
    let answer = tokio::time::timeout(Duration::from_secs(20), get).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    batches.iter().for_each(tokio::task::JoinHandle::abort);
}

/// For a lookup it is a miss like any other.
#[tokio::test]
async fn a_store_without_the_bucket_or_without_an_answer_is_told_at_the_start() {
    let (_s3, endpoint) = S3::start().await;
    for (url, endpoint, why) in [
        (
            "s3://misspelt/team",
            &*endpoint,
            "cannot be listed: check that there is such a bucket",
        ),
        (
            "s3://artifacts/team",
            "http://127.0.0.1:9",
            "does not answer",
        ),
    ] {
        let server = on_bucket(url, endpoint, &[]);
        server.wait_until_said(&format!("--store {why}")).await;
        let said = server.said();
        assert!(said.contains(&format!("objects({url}, at ")), "{said}");
        let answer = server.get("/healthz", HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
