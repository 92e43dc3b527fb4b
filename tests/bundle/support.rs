//! What the tests of bundles share. No promise is tested here.

use bytes::Bytes;
use pipeline_cache::{
    Artifact, ArtifactMetadata, BundleCache, BundleWriter, Fetched, PipelineCacheStore as _,
    PipelineFingerprint,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) type Entries = BTreeMap<PipelineFingerprint, Artifact>;

/// A key of its own for each number, spread as real keys are.
pub(crate) fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The artifact of a number: what is served under another, or in part, shows.
pub(crate) fn artifact(number: u64, len: usize) -> Artifact {
    let mut payload = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::with_metadata(payload, ArtifactMetadata::new().with_device("d"))
}

pub(crate) fn entries(numbers: impl IntoIterator<Item = u64>, len: usize) -> Entries {
    let numbers = numbers.into_iter();
    numbers.map(|n| (key(n), artifact(n, len))).collect()
}

pub(crate) fn frame(key: &PipelineFingerprint, artifact: &Artifact) -> Bytes {
    artifact.to_frame(key, None).unwrap()
}

/// Artifacts, and the same number of aliases under other keys.
pub(crate) async fn write(path: &Path, artifacts: &Entries, aliases: &Entries) {
    let mut writer = BundleWriter::create(path).await.unwrap();
    for (key, artifact) in artifacts {
        writer.add(key, frame(key, artifact)).await.unwrap();
    }
    for (key, alias) in aliases {
        writer.add_alias(key, frame(key, alias)).await.unwrap();
    }
    writer.finish().await.unwrap();
}

/// A bundle of three small artifacts and two aliases, in a folder of its own.
pub(crate) struct Small {
    pub(crate) artifacts: Entries,
    pub(crate) aliases: Entries,
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Small {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.bundle");
        let (artifacts, aliases) = (entries(1..=3, 20), entries(11..=12, 32));
        write(&path, &artifacts, &aliases).await;
        let bytes = std::fs::read(&path).unwrap();
        Self {
            artifacts,
            aliases,
            folder,
            path,
            bytes,
        }
    }

    /// Asks for each entry, and for what there is not. How many were served, all of them right.
    pub(crate) async fn served_of(&self, cache: &BundleCache) -> usize {
        let aliases = cache.aliases().unwrap();
        let mut served = 0;
        for (store, own, foreign) in [
            (cache, &self.artifacts, &self.aliases),
            (aliases, &self.aliases, &self.artifacts),
        ] {
            for (key, artifact) in own {
                match store.fetch(key).await.unwrap() {
                    Fetched::Hit(found) => {
                        assert_eq!(found, *artifact);
                        assert_eq!(found.metadata(), artifact.metadata());
                        served += 1;
                    }
                    Fetched::Corrupt(_) | Fetched::Miss | Fetched::Refused => {}
                    other => panic!("{other:?}"),
                }
            }
            for key in foreign.keys() {
                assert_eq!(store.get(key).await.unwrap(), None);
            }
        }
        served
    }
}
