//! Where things stand on a server: what a release stored, later ones ask for under the same names.
//!
//! `names` has a file for each kind of server. `KEY` and `ALIAS` in it stand for the hex digits of
//! a key.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::folder::{alias_key, compiled_key};
use crate::versions;

pub(crate) type Names = BTreeSet<String>;

/// What the files of a release say of this kind of server.
fn released(version: &Path, kind: &str) -> Names {
    let text = fs::read_to_string(version.join("names").join(kind)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Every name that a release used is still used.
pub(crate) fn check(kind: &str, now: &Names) {
    for version in versions::all() {
        let gone: Vec<_> = released(&version, kind).difference(now).cloned().collect();
        assert!(
            gone.is_empty(),
            "{}: {kind}: {gone:?}, not in {now:?}",
            version.display()
        );
    }
}

/// With placeholders for the keys.
async fn named(names: impl IntoIterator<Item = String>) -> Names {
    let (key, alias) = (compiled_key().to_hex(), alias_key().await.to_hex());
    let names = names.into_iter();
    names
        .map(|name| name.replace(&key, "KEY").replace(&alias, "ALIAS"))
        .collect()
}

/// The frames of the artifact and of the alias of a released folder, by the names of a server that
/// has them.
#[cfg(any(
    feature = "remote-cache",
    feature = "object-store",
    all(feature = "redis", unix)
))]
async fn stored(version: &Path, names: &Names) -> Vec<(String, Vec<u8>)> {
    let folder = version.join("folder");
    let (key, alias) = (compiled_key(), alias_key().await);
    let artifact = fs::read(folder.join(format!("{key}.bin"))).unwrap();
    let kept = fs::read(folder.join(format!("aliases/{alias}.bin"))).unwrap();
    let names = names.iter();
    names
        .map(|name| {
            let content = match name.contains("ALIAS") {
                true => kept.clone(),
                false => artifact.clone(),
            };
            let name = name.replace("KEY", &key.to_hex());
            (name.replace("ALIAS", &alias.to_hex()), content)
        })
        .collect()
}

#[cfg(all(
    unix,
    feature = "metrics",
    feature = "redis",
    feature = "remote-cache",
    feature = "object-store"
))]
#[cfg_attr(
    not(all(
        feature = "zstd",
        feature = "naga",
        feature = "wasm",
        feature = "signatures"
    )),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) async fn write(version: &Path) {
    let folder = version.join("names");
    fs::create_dir(&folder).unwrap();
    let redis = redis::now().await.expect("redis-server is installed");
    let all = [
        ("folder", disk::now().await),
        ("http", http::now().await),
        ("metrics", crate::metric_names::now().await),
        ("object_store", object_store::now().await),
        ("redis", redis),
    ];
    for (kind, names) in all {
        let lines = names.into_iter().map(|name| name + "\n");
        fs::write(folder.join(kind), lines.collect::<String>()).unwrap();
    }
}

/// What processes on a folder agree on beside its entries, which are in `folder`.
mod disk {
    use super::*;
    use pipeline_cache::{DiskCache, PipelineCacheStore as _};

    /// The files of a key while it is compiled.
    pub(super) async fn now() -> Names {
        let folder = tempfile::tempdir().unwrap();
        let builder = DiskCache::builder().root(folder.path()).compile_locks();
        let cache = builder.open().await.unwrap();
        let leases = cache.compile_leases().unwrap();
        let lease = leases.compile_lease(&compiled_key()).await.unwrap();
        let names = versions::tree(folder.path()).into_keys();
        let names = names.filter(|name| name.contains(&compiled_key().to_hex()));
        let names = named(names).await;
        assert!(lease.is_some());
        names
    }

    #[tokio::test]
    async fn a_compile_is_locked_as_earlier_releases_lock_it() {
        check("folder", &now().await);
    }
}

#[cfg(feature = "remote-cache")]
mod http {
    use super::*;
    use crate::folder::compile;
    use crate::support::scripted_http::{Request, ScriptedServer, answer};
    use pipeline_cache::{
        CompileSource, LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint,
        RemoteCache,
    };
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn layered(remote: &RemoteCache) -> LayeredPipelineCache {
        LayeredPipelineCache::builder()
            .tier(remote.clone())
            .keep_aliases()
            .network_budget(Duration::from_secs(60))
            .build()
    }

    /// The request line, and the headers that say what is asked for.
    fn line(request: &Request) -> String {
        let headers = request.headers.iter().map(|(name, _)| name.as_str());
        let own: Vec<_> = headers.filter(|name| name.starts_with("lease-")).collect();
        let line = [&[request.method.as_str(), &request.path], &own[..]].concat();
        line.join(" ")
    }

    /// What this release asks a server for.
    pub(super) async fn now() -> Names {
        let server = ScriptedServer::start(|request| match request.method.as_str() {
            "PUT" => answer("201 Created", b""),
            "POST" if request.path.contains("/leases/") => answer("200 OK", b"granted\n"),
            "DELETE" => answer("204 No Content", b""),
            _ => answer("404 Not Found", b""),
        });
        let builder = RemoteCache::builder().no_proxy().writes();
        let remote = builder
            .compile_leases(Duration::from_secs(60))
            .build(format!("{}/base", server.url()))
            .unwrap();
        let cache = layered(&remote);
        compile(&cache).await;
        let other = PipelineFingerprint::from_bytes([1; 32]);
        remote.fetch_many(&[compiled_key(), other]).await;
        remote.remove(&compiled_key()).await.unwrap();
        cache.close(Duration::from_secs(60)).await;
        let requests = server.requests();
        let batch = requests
            .iter()
            .find(|request| request.path.ends_with("batch"));
        let body = [*compiled_key().as_bytes(), *other.as_bytes()].concat();
        assert_eq!(batch.unwrap().body, body);
        let lines = requests.iter().map(line);
        // It is asked for alone, where there are no batches.
        named(lines.filter(|line| !line.contains(&other.to_hex()))).await
    }

    #[tokio::test]
    async fn an_http_server_of_earlier_releases_is_asked_as_ever() {
        check("http", &now().await);
        for version in versions::all() {
            let files = stored(&version, &released(&version, "http")).await;
            let files: BTreeMap<_, _> = files.into_iter().collect();
            let server = ScriptedServer::start(move |request| match files.get(&line(request)) {
                Some(frame) if request.method == "GET" => answer("200 OK", frame),
                _ => answer("404 Not Found", b""),
            });
            let url = format!("{}/base", server.url());
            let remote = RemoteCache::builder().no_proxy().build(url).unwrap();
            let (source, parsed) = compile(&layered(&remote)).await;
            assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
            assert_eq!(parsed, 0, "{}: the alias is not found", version.display());
        }
    }
}

#[cfg(feature = "object-store")]
mod object_store {
    use super::*;
    use crate::folder::compile;
    use ::object_store::memory::InMemory;
    use ::object_store::{ObjectStore, ObjectStoreExt as _};
    use futures::TryStreamExt as _;
    use pipeline_cache::{
        CompileSource, LayeredPipelineCache, ObjectStoreCache, PipelineCacheStore as _,
    };
    use std::sync::Arc;
    use std::time::Duration;

    fn layered(store: &ObjectStoreCache) -> LayeredPipelineCache {
        LayeredPipelineCache::builder()
            .tier(store.clone())
            .keep_aliases()
            .network_budget(Duration::from_secs(60))
            .build()
    }

    async fn objects(store: &InMemory) -> Vec<String> {
        let objects = store
            .list(None)
            .map_ok(|object| object.location.to_string());
        objects.try_collect().await.unwrap()
    }

    /// The objects of this release.
    pub(super) async fn now() -> Names {
        let store = Arc::new(InMemory::new());
        let builder = ObjectStoreCache::builder().writes();
        let cache = builder
            .compile_leases(Duration::from_secs(60))
            .build_on(Arc::clone(&store) as _, "base");
        let leases = cache.compile_leases().unwrap();
        let lease = leases.compile_lease(&compiled_key()).await.unwrap();
        assert!(lease.is_some());
        let mut names = objects(&store).await;
        drop(lease);
        let layers = layered(&cache);
        compile(&layers).await;
        names.extend(objects(&store).await);
        layers.close(Duration::from_secs(60)).await;
        named(names).await
    }

    #[tokio::test]
    async fn objects_of_earlier_releases_are_found() {
        check("object_store", &now().await);
        for version in versions::all() {
            let store = Arc::new(InMemory::new());
            let names = released(&version, "object_store").into_iter();
            let names = names.filter(|name| name.ends_with(".bin")).collect();
            for (name, frame) in stored(&version, &names).await {
                store
                    .put(&name.as_str().into(), frame.into())
                    .await
                    .unwrap();
            }
            let cache = ObjectStoreCache::builder().build_on(store, "base");
            let (source, parsed) = compile(&layered(&cache)).await;
            assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
            assert_eq!(parsed, 0, "{}: the alias is not found", version.display());
        }
    }
}

#[cfg(all(feature = "redis", unix))]
mod redis {
    use super::*;
    use crate::folder::compile;
    use crate::support::redis::Redis;
    use pipeline_cache::{
        CompileSource, LayeredPipelineCache, PipelineCacheStore as _, RedisCache,
    };
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn layered(redis: &RedisCache) -> LayeredPipelineCache {
        LayeredPipelineCache::builder()
            .tier(redis.clone())
            .keep_aliases()
            .network_budget(PATIENCE)
            .build()
    }

    fn open(server: &Redis) -> RedisCache {
        let builder = RedisCache::builder().writes().compile_leases(PATIENCE);
        let builder = builder
            .connect_timeout(PATIENCE)
            .inactivity_timeout(PATIENCE);
        let builder = builder.attempt_timeout(PATIENCE).request_timeout(PATIENCE);
        builder.build(server.url()).unwrap()
    }

    fn keys(server: &Redis) -> Vec<String> {
        let keys = server.command(&["keys", "*"]);
        keys.lines().map(str::to_owned).collect()
    }

    /// The keys in a server of this release.
    pub(super) async fn now() -> Option<Names> {
        let server = Redis::start("")?;
        let cache = open(&server);
        let leases = cache.compile_leases().unwrap();
        let lease = leases.compile_lease(&compiled_key()).await.unwrap();
        assert!(lease.is_some());
        let mut names = keys(&server);
        drop(lease);
        let layers = layered(&cache);
        compile(&layers).await;
        names.extend(keys(&server));
        layers.close(PATIENCE).await;
        Some(named(names).await)
    }

    #[tokio::test]
    async fn keys_of_earlier_releases_are_found() {
        let Some(now) = now().await else { return };
        check("redis", &now);
        for version in versions::all() {
            let Some(server) = Redis::start("") else {
                return;
            };
            let client = ::redis::Client::open(server.url()).unwrap();
            let mut connection = client.get_connection().unwrap();
            let names = released(&version, "redis").into_iter();
            let names = names.filter(|name| !name.contains("lease")).collect();
            for (name, frame) in stored(&version, &names).await {
                let mut command = ::redis::cmd("SET");
                command.arg(name).arg(frame).exec(&mut connection).unwrap();
            }
            let (source, parsed) = compile(&layered(&open(&server))).await;
            assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
            assert_eq!(parsed, 0, "{}: the alias is not found", version.display());
        }
    }
}
