//! Each lookup is a span; promotions, corruption and failures are events that name tier and key.

use crate::support::captured_trace::{capture, captured};
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore, PipelineFingerprint,
    StoreErrorKind, StoreOperation,
};
use std::sync::Arc;

#[tokio::test]
async fn lookups_promotions_corruption_and_failures_are_traced() {
    let key = PipelineFingerprint::from_bytes([0xab; 32]);
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.put(&key, Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&disk))
        .build();

    capture();
    cache.get(&key).await.unwrap();
    cache.flush().await.unwrap();
    let trace = captured();
    assert!(trace.contains(&format!("span lookup key={key}")), "{trace}");
    assert!(trace.contains("recorded hit=true"), "{trace}");
    assert!(trace.contains("recorded tier=\"disk\""), "{trace}");
    let written = trace
        .lines()
        .find(|line| line.contains("background write done"));
    let written = written.unwrap_or_else(|| panic!("{trace}"));
    assert!(
        written.contains("promotion from tier 1") && written.contains("tier=\"memory\""),
        "{written}"
    );

    // A hit in memory is a lookup as well.
    capture();
    cache.get(&key).await.unwrap();
    let trace = captured();
    assert!(
        trace.contains("span lookup") && trace.contains("tier=\"memory\""),
        "{trace}"
    );
    assert!(!trace.contains("span search"), "{trace}");

    let other = PipelineFingerprint::from_bytes([0xcd; 32]);
    for (fault, said) in [
        (Fault::Corrupt, "corrupt entry"),
        (Fault::Error(StoreErrorKind::Io), "disk: get: I/O error"),
        (Fault::Panic, "disk: get: panicked"),
    ] {
        disk.set(StoreOperation::Get, fault);
        capture();
        cache.get(&other).await;
        let trace = captured();
        let warning = trace.lines().find(|line| line.starts_with("WARN"));
        let warning = warning.unwrap_or_else(|| panic!("{fault:?}: {trace}"));
        assert!(warning.contains(said), "{warning}");
        assert!(warning.contains(&other.to_hex()), "{warning}");
        assert!(trace.contains("recorded hit=false"), "{trace}");
    }
}
