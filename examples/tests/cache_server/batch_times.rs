//! How long a thousand entries of 4 KiB take, one by one, all at once, and in one request: `cargo test
//! --release -p pipeline-cache-tools --test cache_server batch_times -- --ignored --nocapture`.

use super::support::{CacheServer, READER, WRITER, artifact, builder, remote};
use futures::future::join_all;
use pipeline_cache::{Fetched, LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

fn key(number: u32) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// A link to this address that delivers everything later, as a long one does. Its own address.
async fn link(to: &str, delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap(), to.to_owned());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(deliver(near_in, far_out, delay));
            tokio::spawn(deliver(far_in, near_out, delay));
        }
    });
    format!("http://{address}/artifacts")
}

async fn deliver(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (sender, mut sent) = mpsc::channel(4096);
    tokio::spawn(async move {
        while let Some((at, bytes)) = sent.recv().await {
            sleep_until(at).await;
            let bytes: Vec<u8> = bytes;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let part = (Instant::now() + delay, buffer[..length].to_vec());
        if sender.send(part).await.is_err() {
            break;
        }
    }
}

/// On the loopback, and behind a link that takes 5 ms in each direction. The best of seven.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, on a machine that does nothing else"]
async fn many_keys_are_faster_than_lookups_of_each() {
    let server = CacheServer::start(&["--no-access-log"]);
    let writer = remote(&server, WRITER);
    let numbers = 0..1000;
    for number in numbers.clone() {
        writer.put(&key(number), artifact(4096)).await.unwrap();
    }
    let keys: Vec<_> = numbers.map(key).collect();
    for delay in [0, 5] {
        let url = match delay {
            0 => server.url("/artifacts"),
            delay => link(server.address(), Duration::from_millis(delay)).await,
        };
        let build = || builder(READER).build(&url).unwrap();
        let (one, each, many) = (build(), build(), build());
        let mut times = [Duration::MAX; 5];
        for _ in 0..7 {
            let start = Instant::now();
            for key in &keys {
                assert!(one.get(key).await.unwrap().is_some());
            }
            let one_by_one = start.elapsed();
            let start = Instant::now();
            let found = join_all(keys.iter().map(|key| each.get(key))).await;
            let at_once = start.elapsed();
            assert!(found.into_iter().all(|found| found.unwrap().is_some()));
            let start = Instant::now();
            let found = many.fetch_many(&keys).await;
            let batch = start.elapsed();
            assert!(
                found
                    .into_iter()
                    .all(|found| matches!(found, Ok(Fetched::Hit(_))))
            );
            let layered = || LayeredPipelineCache::builder().tier(many.clone()).build();
            let cache = layered();
            let start = Instant::now();
            let found = join_all(keys.iter().map(|key| cache.get(key))).await;
            let layered_at_once = start.elapsed();
            assert!(found.iter().all(Option::is_some));
            let cache = layered();
            let start = Instant::now();
            let found = cache.get_many(&keys).await;
            let layered_many = start.elapsed();
            assert!(found.iter().all(Option::is_some));
            let now = [one_by_one, at_once, batch, layered_at_once, layered_many];
            for (best, now) in times.iter_mut().zip(now) {
                *best = now.min(*best);
            }
        }
        println!(
            "{delay} ms each way: [one by one, at once, one request, layered at once, layered get_many]: \
             {times:?}"
        );
    }
}
