//! The sample settings of an edge, `examples/deploy/nginx_edge.conf`, in a real nginx before the server.
#![cfg(unix)]

mod support;

use futures::future::join_all;
use pipeline_cache::{
    Artifact, Fetched, LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint,
    RemoteCache, StoreErrorKind,
};
use std::net::TcpListener;
use support::cache_server::{CacheServer, builder, remote};
use support::nginx::{Nginx, Settings};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

/// Tokens as long as those of `openssl rand -hex 20`.
const READER: &str = "3f9c0d5e7a1b2c4d6e8f90a1b2c3d4e5f6071829";
const WRITER: &str = "b71d2e8f4a6c0935d1e7f8a2b4c6d8e0f1a3b5c7";

/// A server that knows these tokens.
fn server() -> CacheServer {
    let tokens = format!("read-only site {READER}\nread-write builds {WRITER}");
    CacheServer::start_with(&[("CACHE_SERVER_TOKENS", &tokens)], &[])
}

/// An nginx with the sample settings, before this server and for its tokens.
fn edge(server: &str) -> Option<Nginx> {
    // Read once, at the start.
    let tokens = tempfile::NamedTempFile::new().unwrap();
    let lines = format!("\"Bearer {READER}\" 1;\n\"Bearer {WRITER}\" 1;\n");
    std::fs::write(&tokens, lines).unwrap();
    let sample = include_str!("../../deploy/nginx_edge.conf")
        // As in a fresh /var/cache: nginx makes one folder, and not its parents.
        .replace("/var/cache/", "$folder/")
        .replace("cache.example.com:8420", server)
        .replace("/etc/nginx/cache_tokens", tokens.path().to_str().unwrap());
    let (http, rest) = sample.split_once("\nserver {\n").unwrap();
    let rest = rest.strip_suffix("}\n").unwrap();
    let at = rest.find("    location").unwrap();
    let (of_server, locations) = rest.split_at(at);
    // The port is whichever is free, and so is the bound on bodies, which may stand once.
    let is_replaced =
        |line: &&str| line.contains("listen 8421;") || line.contains("client_max_body_size 0;");
    assert_eq!(of_server.lines().filter(is_replaced).count(), 2);
    let kept = of_server.lines().filter(|line| !is_replaced(line));
    let of_server = kept.collect::<Vec<_>>().join("\n");
    let settings = Settings {
        http,
        server: &of_server,
        ..Settings::default()
    };
    Nginx::start_with(&settings, locations)
}

fn near(edge: &Nginx, token: &str) -> RemoteCache {
    builder(token).build(edge.url("/artifacts")).unwrap()
}

#[tokio::test]
async fn an_edge_asks_once_for_each_artifact_and_outlives_its_server() {
    let mut server = server();
    let Some(edge) = edge(server.address()) else {
        return;
    };
    let artifact = Artifact::new(vec![7; 100_000]);
    let writer = near(&edge, WRITER);
    // A miss is not kept.
    assert_eq!(writer.fetch(&KEY).await.unwrap(), Fetched::Miss);
    writer.put(&KEY, artifact.clone()).await.unwrap();
    let readers: Vec<_> = (0..20).map(|_| near(&edge, READER)).collect();
    for got in join_all(readers.iter().map(|reader| reader.get(&KEY))).await {
        assert_eq!(got.unwrap(), Some(artifact.clone()));
    }
    assert_eq!(server.metric("cache_server_artifact_hits_total").await, 1);
    server.kill();
    let late = near(&edge, READER);
    assert_eq!(late.get(&KEY).await.unwrap(), Some(artifact));
}

/// Failures would open the circuit breaker of the client, which then asks the edge for nothing.
#[tokio::test]
async fn what_an_edge_lacks_is_a_miss_while_the_server_is_down() {
    let mut server = server();
    let Some(edge) = edge(server.address()) else {
        return;
    };
    let artifact = Artifact::new(vec![7; 1000]);
    remote(&server, WRITER)
        .put(&KEY, artifact.clone())
        .await
        .unwrap();
    near(&edge, READER).get(&KEY).await.unwrap().unwrap();
    server.kill();
    let client = near(&edge, WRITER);
    for number in 100..120 {
        let absent = PipelineFingerprint::from_bytes([number; 32]);
        assert_eq!(client.fetch(&absent).await.unwrap(), Fetched::Miss);
        assert!(!client.contains(&absent).await.unwrap());
    }
    assert_eq!(client.get(&KEY).await.unwrap(), Some(artifact));
    // A write has to fail in a way that the client repeats later.
    let absent = PipelineFingerprint::from_bytes([120; 32]);
    let unsent = client.put(&absent, Artifact::new("code")).await;
    assert_eq!(unsent.unwrap_err().kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn an_edge_serves_nobody_whom_the_server_would_refuse() {
    let server = server();
    let Some(edge) = edge(server.address()) else {
        return;
    };
    let writer = remote(&server, WRITER);
    writer.put(&KEY, Artifact::new("code")).await.unwrap();
    near(&edge, READER).get(&KEY).await.unwrap().unwrap();
    let stranger = near(&edge, "a-token-of-nobody");
    let refused = stranger.get(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    // What a reader may not do is left to the server.
    let reader = near(&edge, READER);
    let other = PipelineFingerprint::from_bytes([8; 32]);
    let refused = reader.put(&other, Artifact::new("code")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
}

/// A corrected alias has to reach everybody.
#[tokio::test]
async fn an_edge_keeps_no_source_alias() {
    let server = server();
    let Some(edge) = edge(server.address()) else {
        return;
    };
    let aliases = remote(&server, WRITER).alias_stores().remove(0);
    let nearby = near(&edge, READER).alias_stores().remove(0);
    for program in [[1; 32], [2; 32]] {
        let alias = Artifact::new(program.to_vec());
        aliases.remove(&KEY).await.unwrap();
        aliases.put(&KEY, alias.clone()).await.unwrap();
        assert_eq!(nearby.get(&KEY).await.unwrap(), Some(alias));
    }
}

/// The edge gives up before its clients do, which then ask it for more.
#[tokio::test]
async fn before_a_server_that_hangs_what_an_edge_lacks_is_a_miss() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(edge) = edge(&silent.local_addr().unwrap().to_string()) else {
        return;
    };
    let reader = near(&edge, READER);
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
}

/// Also what many lookups in one call ask for is kept.
#[tokio::test]
async fn an_edge_keeps_what_was_asked_for_with_others() {
    let mut server = server();
    let Some(edge) = edge(server.address()) else {
        return;
    };
    let writer = remote(&server, WRITER);
    writer.put(&KEY, Artifact::new("code")).await.unwrap();
    let reader = near(&edge, READER);
    let cache = LayeredPipelineCache::builder().tier(reader).build();
    let keys = [KEY, PipelineFingerprint::from_bytes([8; 32])];
    for _ in 0..2 {
        let found = cache.get_many(&keys).await;
        assert_eq!(found, [Some(Artifact::new("code")), None]);
        server.kill();
    }
}
