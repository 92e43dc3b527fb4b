//! Bundles: what a release packed, later ones serve.

use pipeline_cache::{BundleCache, BundleWriter, PipelineCacheStore as _, SharedSecret};
use std::path::Path;

use crate::frames::{Sample, frame, samples};
use crate::versions;

const NAME: &str = "shaders.bundle";

/// Everything is an artifact and an alias, too.
fn sorted(samples: Vec<Sample>) -> Vec<Sample> {
    let mut samples = samples;
    samples.sort_by_key(Sample::key);
    samples
}

#[cfg_attr(
    not(all(feature = "zstd", feature = "object-store")),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) async fn write(version: &Path) {
    let samples = sorted(samples());
    let mut writer = BundleWriter::create(version.join(NAME)).await.unwrap();
    for sample in &samples {
        writer.add(&sample.key(), frame(sample)).await.unwrap();
    }
    for sample in samples.iter().take(2) {
        let key = sample.key();
        writer.add_alias(&key, frame(sample)).await.unwrap();
    }
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn bundles_of_earlier_releases_are_served() {
    for version in versions::all() {
        let path = version.join(NAME);
        let plain = BundleCache::open(&path).await.unwrap();
        let secret = SharedSecret::new("a shared secret");
        let with_secret = BundleCache::builder().shared_secret(secret);
        let with_secret = with_secret.open(&path).await.unwrap();
        let mut aliases = 0;
        let samples = sorted(samples());
        for sample in &samples {
            let (key, place) = (sample.key(), format!("{}: {}", path.display(), sample.name));
            let bundle = match &sample.keys {
                Some(_) => &with_secret,
                None => &plain,
            };
            let served = bundle.get(&key).await.unwrap();
            assert_eq!(served.as_ref(), Some(&sample.artifact), "{place}");
            let served = served.unwrap();
            assert_eq!(served.metadata(), sample.artifact.metadata(), "{place}");
            let kept = bundle.aliases().unwrap().get(&key).await.unwrap();
            aliases += u32::from(kept.is_some_and(|kept| kept == sample.artifact));
        }
        assert!(samples.len() <= plain.entries().count());
        assert!((1..=2).contains(&aliases), "{aliases}");
    }
}
