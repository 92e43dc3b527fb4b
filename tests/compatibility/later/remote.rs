//! One remote, two releases.

use super::{artifact, frames, key};
use crate::folder::{alias_key, compile, compiled_key};
use pipeline_cache::{
    CompileSource, Fetched, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    PipelineFingerprint, StoreErrorKind,
};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

type Files = BTreeMap<String, Vec<u8>>;

/// What a later release has stored, by the names that `name` gives.
async fn stored(name: impl Fn(Option<&str>, &PipelineFingerprint) -> String) -> Files {
    let mut files = Files::new();
    for (number, (_, frame)) in (1..).zip(frames(&key(0))) {
        files.insert(name(None, &key(number)), {
            let mut of_key = frames(&key(number));
            drop(frame);
            of_key.swap_remove(usize::from(number) - 1).1
        });
    }
    let (program, alias) = (compiled_key(), alias_key().await);
    files.insert(name(None, &program), frames(&program).swap_remove(0).1);
    files.insert(
        name(Some("aliases"), &alias),
        frames(&alias).swap_remove(0).1,
    );
    files
}

/// Uses a tier on which a later release has stored all that.
async fn check(tier: impl PipelineCacheStore + Clone + 'static) {
    for (number, (what, _)) in (1..).zip(frames(&key(0))) {
        let key = key(number);
        let refused = tier.metrics().refused;
        assert_eq!(tier.fetch(&key).await.unwrap(), Fetched::Refused, "{what}");
        let many = tier.fetch_many(&[key]).await;
        assert!(
            matches!(many[..], [Ok(Fetched::Refused)]),
            "{what}: {many:?}"
        );
        assert_eq!(tier.metrics().refused, refused + 2, "{what}");
        let put = tier.put(&key, artifact()).await.unwrap_err();
        assert_eq!(put.kind(), StoreErrorKind::Foreign, "{what}: {put}");
        assert_eq!(tier.metrics().rejected_puts, u64::from(number), "{what}");
    }
    // Two machines that compile what a later release has.
    for _ in 0..2 {
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(tier.clone())
            .keep_aliases()
            .network_budget(PATIENCE)
            .build();
        let (source, parsed) = compile(&cache).await;
        assert!(matches!(source, CompileSource::Compiled), "{source:?}");
        assert_eq!(parsed, 1);
        let report = cache.close(PATIENCE).await;
        assert!(report.errors.is_empty(), "{report:?}");
    }
    assert_eq!(tier.metrics().corrupt, 0);
}

#[cfg(feature = "remote-cache")]
#[tokio::test]
async fn an_http_server_keeps_the_entries_of_a_later_release() {
    use crate::support::scripted_http::{ScriptedServer, answer};
    use pipeline_cache::RemoteCache;
    use std::sync::{Arc, Mutex};

    let name = |folder: Option<&str>, key: &PipelineFingerprint| match folder {
        Some(folder) => format!("/{folder}/{key}.bin"),
        None => format!("/{key}.bin"),
    };
    let before = stored(name).await;
    let files = Arc::new(Mutex::new(before.clone()));
    let served = Arc::clone(&files);
    let server = ScriptedServer::start(move |request| {
        let mut files = served.lock().unwrap();
        match request.method.as_str() {
            "GET" | "HEAD" => match files.get(&request.path) {
                Some(frame) => answer("200 OK", frame),
                None => answer("404 Not Found", b""),
            },
            "PUT" => {
                files.insert(request.path.clone(), request.body.clone());
                answer("201 Created", b"")
            }
            _ => answer("405 Method Not Allowed", b""),
        }
    });
    // Without an open cache in the way, each tier is a process of its own.
    let tier = RemoteCache::builder()
        .no_proxy()
        .writes()
        .build(server.url());
    check(tier.unwrap()).await;
    assert_eq!(*files.lock().unwrap(), before);
}

#[cfg(feature = "object-store")]
#[tokio::test]
async fn an_object_store_keeps_the_entries_of_a_later_release() {
    use futures::TryStreamExt as _;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};
    use pipeline_cache::ObjectStoreCache;
    use std::sync::Arc;

    let name = |folder: Option<&str>, key: &PipelineFingerprint| match folder {
        Some(folder) => format!("base/{folder}/{key}.bin"),
        None => format!("base/{key}.bin"),
    };
    let before = stored(name).await;
    let store = Arc::new(InMemory::new());
    for (name, frame) in before.clone() {
        store.put(&name.into(), frame.into()).await.unwrap();
    }
    let builder = ObjectStoreCache::builder().writes();
    check(builder.build_on(Arc::clone(&store) as _, "base")).await;
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut after = Files::new();
    for object in objects {
        let content = store.get(&object.location).await.unwrap();
        let content = content.bytes().await.unwrap().to_vec();
        after.insert(object.location.to_string(), content);
    }
    assert_eq!(after, before);
}

#[cfg(all(feature = "redis", unix))]
#[tokio::test]
async fn a_redis_server_keeps_the_entries_of_a_later_release() {
    use crate::support::redis::Redis;
    use pipeline_cache::RedisCache;

    let Some(server) = Redis::start("") else {
        return;
    };
    let name = |folder: Option<&str>, key: &PipelineFingerprint| match folder {
        Some(folder) => format!("pipeline-cache:{folder}:{key}"),
        None => format!("pipeline-cache:{key}"),
    };
    let before = stored(name).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for (name, frame) in &before {
        let mut command = redis::cmd("SET");
        command.arg(name).arg(frame).exec(&mut connection).unwrap();
    }
    let builder = RedisCache::builder().writes().connect_timeout(PATIENCE);
    let builder = builder.attempt_timeout(PATIENCE).request_timeout(PATIENCE);
    check(builder.build(server.url()).unwrap()).await;
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let mut after = Files::new();
    for name in names {
        let content = redis::cmd("GET").arg(&name).query(&mut connection).unwrap();
        after.insert(name, content);
    }
    assert_eq!(after, before);
}
