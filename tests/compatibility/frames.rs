//! Frames: what a release stored, later ones serve.

use bytes::Bytes;
use pipeline_cache::{Artifact, ArtifactMetadata, PipelineFingerprint, SharedSecret, TrustedKeys};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::versions;

const LIMIT: u64 = 1 << 20;

/// A frame that was released, by the name of its file. What one holds stays as it is; a later
/// release adds others.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) artifact: Artifact,
    pub(crate) keys: Option<TrustedKeys>,
}

impl Sample {
    fn new(name: &'static str, artifact: Artifact) -> Self {
        let keys = None;
        Self {
            name,
            artifact,
            keys,
        }
    }

    fn with_secret(mut self) -> Self {
        self.keys = Some(TrustedKeys::new(SharedSecret::new("a shared secret")));
        self
    }

    /// A key of its own.
    pub(crate) fn key(&self) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes(*blake3::hash(self.name.as_bytes()).as_bytes())
    }

    fn file(&self, version: &Path) -> std::path::PathBuf {
        version.join("frames").join(format!("{}.bin", self.name))
    }
}

fn metadata() -> ArtifactMetadata {
    ArtifactMetadata::new()
        .with_provenance("ci.example.com/main")
        .with_device("vulkan-1.3")
        .with_toolchain("naga 30.0.1")
        .with_compile_time(Duration::from_nanos(1_234_567_891))
}

fn parts() -> Artifact {
    Artifact::builder()
        .part("code", &b"the code"[..])
        .part("warnings", "line 1: unused")
        .metadata(metadata())
        .build()
        .unwrap()
}

#[cfg(feature = "signatures")]
fn signed(name: &str, artifact: Artifact) -> Artifact {
    let key = PipelineFingerprint::from_bytes(*blake3::hash(name.as_bytes()).as_bytes());
    artifact.signed(&key, &signing_key())
}

#[cfg(feature = "signatures")]
fn signing_key() -> pipeline_cache::signatures::SigningKey {
    pipeline_cache::signatures::SigningKey::from_seed([7; 32])
}

/// What is not compressed.
pub(crate) fn samples() -> Vec<Sample> {
    vec![
        Sample::new("plain", Artifact::new("code")),
        Sample::new("empty", Artifact::new("")),
        Sample::new("metadata", Artifact::with_metadata("code", metadata())),
        Sample::new("parts", parts()),
        Sample::new("secret", Artifact::new("code")).with_secret(),
        Sample::new("secret-parts", parts()).with_secret(),
        #[cfg(feature = "signatures")]
        Sample::new("signed", signed("signed", Artifact::new("code"))),
        #[cfg(feature = "signatures")]
        Sample::new(
            "signed-secret-parts",
            signed("signed-secret-parts", parts()),
        )
        .with_secret(),
    ]
}

/// What network tiers store compressed.
#[cfg(all(feature = "zstd", feature = "object-store"))]
fn compressed_samples() -> Vec<Sample> {
    let long = Artifact::with_metadata(vec![7; 5000], metadata());
    let parts = Artifact::builder()
        .part("code", vec![7; 5000])
        .part("warnings", "line 1: unused")
        .build()
        .unwrap();
    vec![
        Sample::new("zstd", long),
        Sample::new("zstd-secret-parts", parts).with_secret(),
    ]
}

/// Without the files of compressed frames.
pub(crate) fn frame(sample: &Sample) -> Bytes {
    sample
        .artifact
        .to_frame(&sample.key(), sample.keys.as_ref())
        .unwrap()
}

#[cfg(all(feature = "zstd", feature = "object-store"))]
pub(crate) async fn write(version: &Path) {
    use object_store::ObjectStoreExt as _;
    use pipeline_cache::{ObjectStoreCache, PipelineCacheStore as _, Trust};
    use std::sync::Arc;

    fs::create_dir_all(version.join("frames")).unwrap();
    for sample in samples() {
        fs::write(sample.file(version), frame(&sample)).unwrap();
    }
    for sample in compressed_samples() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let mut builder = ObjectStoreCache::builder().writes().zstd(3, 100);
        if let Some(keys) = &sample.keys {
            builder = builder.trust(Trust::Authenticated(keys.clone()));
        }
        let cache = builder.build_on(Arc::clone(&store) as _, "");
        let key = sample.key();
        cache.put(&key, sample.artifact.clone()).await.unwrap();
        let object = store.get(&format!("{key}.bin").into()).await.unwrap();
        let frame = object.bytes().await.unwrap();
        assert!(frame.len() < 1000, "{}: not compressed", sample.name);
        fs::write(sample.file(version), frame).unwrap();
    }
}

#[test]
fn frames_of_earlier_releases_are_served() {
    let samples = samples().into_iter();
    #[cfg(all(feature = "zstd", feature = "object-store"))]
    let samples = samples.chain(compressed_samples());
    let samples: Vec<_> = samples.collect();
    for version in versions::all() {
        for sample in &samples {
            let path = sample.file(&version);
            let place = path.display();
            let Ok(frame) = fs::read(&path) else {
                // A later release may have added the sample.
                assert!(!version.ends_with("v0_1"), "{place} is missing");
                continue;
            };
            let keys = sample.keys.as_ref();
            let served = Artifact::from_frame(&sample.key(), &frame.into(), keys, LIMIT);
            let served = served.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(served, sample.artifact, "{place}");
            assert_eq!(served.metadata(), sample.artifact.metadata(), "{place}");
            assert_eq!(served.signature(), sample.artifact.signature(), "{place}");
            let parts = |artifact: &Artifact| -> Vec<(String, Bytes)> {
                let parts = artifact.parts();
                parts.map(|(name, part)| (name.to_owned(), part)).collect()
            };
            assert_eq!(parts(&served), parts(&sample.artifact), "{place}");
            #[cfg(feature = "signatures")]
            if served.signature().is_some() {
                use pipeline_cache::signatures::{Signer, TrustedSigners};
                let signer = Signer::new("ci", "main", signing_key().public_key());
                let signers = TrustedSigners::new([signer]);
                let verified = signers.verify(&sample.key(), &served);
                verified.unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
    }
}
