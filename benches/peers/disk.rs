//! The disk tier: hits with the page cache warm, puts, and puts made durable.

use bytes::{Buf as _, Bytes};
use foyer::{
    BlockEngineConfig, DeviceBuilder as _, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, Load,
};
use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore as _, PipelineFingerprint};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use vyre_runtime::pipeline_cache as vyre;
use vyre_runtime::pipeline_cache::PipelineCacheStore as _;

use crate::measure::{Contender, Plan};
use crate::memory::{key, payload, shuffled, vyre_key};
use crate::report::{Goal, Report};
use crate::runtime::{self, Tokio};

/// The steps of a put, bare.
const SAME_STEPS: &str = "blake3 + create, write, flush, rename through tokio::fs";
const BOUNDED_STEPS: &str = "the same, at most 256 KiB a write";

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    let small: &[Goal] = &[
        ("vyre (synchronous)", 0.9),
        ("tokio::fs::read (unverified)", 0.25),
        ("cacache", 0.05),
    ];
    let large: &[Goal] = &[("inline std::fs::read + blake3", 1.1)];
    for (name, size, entries, goals) in [
        ("4 KiB", 4 * KIB, 1000, small),
        ("64 KiB", 64 * KIB, 200, large),
        ("1 MiB", MIB, 40, large),
        ("16 MiB", 16 * MIB, 4, large),
    ] {
        for tokio in runtime::both() {
            let case = format!("disk_hit {name}, {}", tokio.name);
            if plan.wants(&case) {
                let folder = Filled::new(&tokio, entries, size);
                report.case(&case, &plan.contend(folder.hits(plan, &tokio)), goals);
            }
        }
    }
    for (name, size, entries) in [("4 KiB", 4 * KIB, 400), ("1 MiB", MIB, 10)] {
        for tokio in runtime::both() {
            let case = format!("disk_put {name}, {}", tokio.name);
            if plan.wants(&case) {
                let figures = plan.contend(puts(plan, &tokio, entries, size));
                let goals = [
                    (SAME_STEPS, 1.15),
                    ("vyre (synchronous)", 1.0),
                    ("cacache", 1.0),
                    ("object_store", 1.0),
                ];
                report.case(&case, &figures, &goals);
            }
        }
    }
    for tokio in runtime::both() {
        let case = format!("put_then_flush 1,000 x 16 KiB, {}", tokio.name);
        if plan.wants(&case) {
            let figures = plan.contend(flushes(plan, &tokio));
            report.case(&case, &figures, &[("vyre (synchronous)", 0.8)]);
        }
    }
}

/// The same entries, as each of the peers keeps them.
pub(crate) struct Filled {
    folder: TempDir,
    pub(crate) ours: DiskCache,
    pub(crate) vyre: Arc<vyre::DiskCache>,
    objects: Arc<LocalFileSystem>,
    /// Its disk tier, whose memory is too small to hold anything.
    foyer: Option<HybridCache<String, Bytes>>,
    pub(crate) keys: Arc<Vec<PipelineFingerprint>>,
}

impl Filled {
    pub(crate) fn new(tokio: &Tokio, entries: usize, size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("a folder");
            path
        };
        let (plain, cached) = (at("plain"), at("cacache"));
        let vyre = vyre::DiskCache::new(at("vyre")).expect("a cache");
        let objects = LocalFileSystem::new_with_prefix(at("objects")).expect("a store");
        let (vyre, objects) = (Arc::new(vyre), Arc::new(objects));
        let foyer = (size <= MIB).then(|| {
            let root = at("foyer");
            tokio.run(async move { open_foyer(&root).await })
        });
        let root = at("ours");
        let ours = tokio
            .run(async move { DiskCache::new(root).await })
            .expect("a cache");
        for number in 0..entries {
            let bytes = payload(number, size);
            let key = key(number);
            std::fs::write(plain.join(key.to_hex()), &bytes).expect("a write");
            if let Some(foyer) = &foyer {
                foyer.insert(key.to_hex(), bytes.clone());
            }
            vyre.put(vyre_key(&key), bytes.to_vec());
            let (ours, objects, cached) = (ours.clone(), Arc::clone(&objects), cached.clone());
            tokio.run(async move {
                ours.put(&key, Artifact::new(bytes.clone()))
                    .await
                    .expect("a put");
                put_object(&objects, &key, bytes.clone()).await;
                cacache::write(&cached, key.to_hex(), &bytes)
                    .await
                    .expect("a write");
            });
        }
        if let Some(foyer) = foyer.clone() {
            tokio.run(async move { foyer.storage().wait().await });
        }
        Self {
            folder,
            ours,
            vyre,
            objects,
            foyer,
            keys: Arc::new(shuffled(entries, 0)),
        }
    }

    /// Where the payloads lie as they are, under their keys.
    pub(crate) fn plain(&self) -> PathBuf {
        self.folder.path().join("plain")
    }

    /// The root of cacache.
    pub(crate) fn cached(&self) -> PathBuf {
        self.folder.path().join("cacache")
    }

    pub(crate) fn hits<'a>(&'a self, plan: &Plan, tokio: &'a Tokio) -> Vec<Contender<'a>> {
        let operations = plan.count(self.keys.len());
        let keys = move || self.keys.iter().take(operations).copied();
        // The async ones in one task, as a handler that reads one after the other.
        macro_rules! in_task {
            ($name:expr, $shared:expr, |$key:ident, $with:ident| $get:expr) => {{
                let shared = $shared;
                Contender::new($name, operations, move || {
                    let $with = shared.clone();
                    let keys: Vec<_> = keys().collect();
                    tokio.run(async move {
                        let mut bytes = 0;
                        for $key in keys {
                            bytes += $get;
                        }
                        bytes
                    })
                })
            }};
        }
        let plain = Arc::new(self.plain());
        let inline = Arc::clone(&plain);
        let cached = Arc::new(self.cached());
        let foyer = self.foyer.clone().map(|foyer| {
            in_task!("foyer hybrid, its disk", foyer, |key, foyer| {
                match foyer.storage().load(&key.to_hex()).await.expect("a load") {
                    Load::Entry { value, .. } => value.len(),
                    _ => panic!("it is on the disk"),
                }
            })
        });
        let others = vec![
            in_task!("ours", self.ours.clone(), |key, ours| {
                ours.get(&key).await.expect("a get").expect("a hit").len()
            }),
            Contender::new("vyre (synchronous)", operations, move || {
                let get = |key| self.vyre.get(&vyre_key(&key)).expect("a hit").len();
                keys().map(get).sum::<usize>()
            }),
            in_task!(
                "tokio::fs::read (unverified)",
                Arc::clone(&plain),
                |key, plain| {
                    tokio::fs::read(plain.join(key.to_hex()))
                        .await
                        .expect("a read")
                        .len()
                }
            ),
            in_task!("one hop: std::fs::read + blake3", plain, |key, plain| {
                let path = plain.join(key.to_hex());
                let read = tokio::task::spawn_blocking(move || read_and_hash(&path));
                read.await.expect("a read")
            }),
            Contender::new("inline std::fs::read + blake3", operations, move || {
                let get = |key: PipelineFingerprint| read_and_hash(&inline.join(key.to_hex()));
                keys().map(get).sum::<usize>()
            }),
            in_task!(
                "object_store (unverified)",
                Arc::clone(&self.objects),
                |key, objects| {
                    let object = objects.get(&object_path(&key)).await.expect("a get");
                    object.bytes().await.expect("a read").len()
                }
            ),
            in_task!("cacache", cached, |key, cached| {
                cacache::read(&*cached, key.to_hex())
                    .await
                    .expect("a read")
                    .len()
            }),
        ];
        others.into_iter().chain(foyer).collect()
    }
}

async fn open_foyer(root: &Path) -> HybridCache<String, Bytes> {
    let device = FsDeviceBuilder::new(root).with_capacity(256 * MIB);
    let device = device.build().expect("a device");
    HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(1)
        .with_shards(1)
        .storage()
        .with_engine_config(BlockEngineConfig::new(device))
        .build()
        .await
        .expect("a cache")
}

pub(crate) fn read_and_hash(path: &Path) -> usize {
    let bytes = std::fs::read(path).expect("a read");
    usize::from(std::hint::black_box(blake3::hash(&bytes)).as_bytes()[0] & 1) + bytes.len()
}

fn object_path(key: &PipelineFingerprint) -> object_store::path::Path {
    object_store::path::Path::from(key.to_hex())
}

async fn put_object(objects: &LocalFileSystem, key: &PipelineFingerprint, bytes: Bytes) {
    objects
        .put(&object_path(key), bytes.into())
        .await
        .expect("a put");
}

/// Keys that were never put before, in a new folder for each round. All stay until the last: a file
/// system that has just deleted much is slow to create.
struct Fresh {
    folders: Vec<TempDir>,
    next: usize,
}

impl Fresh {
    fn new() -> Self {
        Self {
            folders: Vec::new(),
            next: 0,
        }
    }

    fn root(&mut self) -> PathBuf {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        self.folders.push(folder);
        root
    }

    fn keys(&mut self, count: usize) -> Vec<PipelineFingerprint> {
        let keys = (self.next..self.next + count).map(key).collect();
        self.next += count;
        keys
    }
}

async fn staging_folder(root: PathBuf) -> PathBuf {
    std::fs::create_dir(root.join(".staging")).expect("a folder");
    root
}

/// A put without anything that makes it a cache: exclusive create, write, flush, rename.
async fn same_steps(
    root: &Path,
    key: &PipelineFingerprint,
    bytes: Bytes,
    max_write: Option<usize>,
) {
    let hash = blake3::hash(&bytes);
    let mut frame = Bytes::copy_from_slice(hash.as_bytes()).chain(bytes);
    let staged = root.join(".staging").join(format!("{key}.tmp"));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&staged).await.expect("a new file");
    if let Some(bytes) = max_write {
        file.set_max_buf_size(bytes);
    }
    file.write_all_buf(&mut frame).await.expect("a write");
    file.flush().await.expect("a flush");
    tokio::fs::rename(&staged, root.join(key.to_hex()))
        .await
        .expect("a rename");
}

fn puts<'a>(plan: &Plan, tokio: &'a Tokio, entries: usize, size: usize) -> Vec<Contender<'a>> {
    let operations = plan.count(entries);
    let bytes = payload(0, size);
    // Opens a store in a new folder, and then times what `put` does with new keys.
    macro_rules! in_task {
        ($name:expr, $open:expr, |$store:ident, $key:ident, $bytes:ident| $put:expr) => {{
            let (mut fresh, bytes) = (Fresh::new(), bytes.clone());
            Contender::timed($name, operations, move || {
                let (root, keys, bytes) = (fresh.root(), fresh.keys(operations), bytes.clone());
                tokio.run(async move {
                    let $store = $open(root).await;
                    let start = Instant::now();
                    for $key in keys {
                        let $bytes = bytes.clone();
                        $put;
                    }
                    start.elapsed()
                })
            })
        }};
    }
    vec![
        in_task!(
            "ours",
            async |root| DiskCache::new(root).await.expect("a cache"),
            |ours, key, bytes| {
                // The digest is part of a put that is compared with others.
                let artifact = Artifact::hash(bytes, Default::default()).await;
                ours.put(&key, artifact).await.expect("a put");
            }
        ),
        in_task!(
            "blake3 + write + rename through tokio::fs",
            async |root| root,
            |root, key, bytes| {
                let hash = blake3::hash(&bytes);
                let staged = root.join("staged");
                let mut frame = Vec::with_capacity(bytes.len() + 32);
                frame.extend_from_slice(hash.as_bytes());
                frame.extend_from_slice(&bytes);
                tokio::fs::write(&staged, frame).await.expect("a write");
                tokio::fs::rename(&staged, root.join(key.to_hex()))
                    .await
                    .expect("a rename");
            }
        ),
        in_task!(SAME_STEPS, staging_folder, |root, key, bytes| same_steps(
            &root, &key, bytes, None
        )
        .await),
        in_task!(BOUNDED_STEPS, staging_folder, |root, key, bytes| {
            same_steps(&root, &key, bytes, Some(256 << 10)).await;
        }),
        in_task!(
            "vyre (synchronous)",
            async |root: PathBuf| vyre::DiskCache::new(root).expect("a cache"),
            |vyre, key, bytes| vyre.put(vyre_key(&key), bytes.to_vec())
        ),
        in_task!(
            "object_store",
            async |root: PathBuf| LocalFileSystem::new_with_prefix(root).expect("a store"),
            |objects, key, bytes| put_object(&objects, &key, bytes).await
        ),
        in_task!("cacache", async |root| root, |root, key, bytes| {
            cacache::write::<&PathBuf, _, _>(&root, key.to_hex(), &bytes)
                .await
                .expect("a write");
        }),
    ]
}

fn flushes<'a>(plan: &Plan, tokio: &'a Tokio) -> Vec<Contender<'a>> {
    let entries = plan.count(1000);
    let bytes = payload(0, 16 * KIB);
    let (mut ours, mut theirs) = (Fresh::new(), Fresh::new());
    let ours_bytes = bytes.clone();
    vec![
        Contender::timed("ours", 1, move || {
            let (root, keys, bytes) = (ours.root(), ours.keys(entries), ours_bytes.clone());
            tokio.run(async move {
                let cache = DiskCache::new(root).await.expect("a cache");
                let start = Instant::now();
                for key in keys {
                    let artifact = Artifact::hash(bytes.clone(), Default::default()).await;
                    cache.put(&key, artifact).await.expect("a put");
                }
                cache.flush().await.expect("a flush");
                assert!(cache.durability_report().durable);
                start.elapsed()
            })
        }),
        Contender::timed("vyre (synchronous)", 1, move || -> Duration {
            let cache = vyre::DiskCache::new(theirs.root()).expect("a cache");
            let keys = theirs.keys(entries);
            let start = Instant::now();
            for key in keys {
                cache.put(vyre_key(&key), bytes.to_vec());
            }
            cache.flush().expect("a flush");
            start.elapsed()
        }),
    ]
}
