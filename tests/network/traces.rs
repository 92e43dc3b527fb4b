//! Each lookup is a span; promotions, corruption and failures are events that name tier and key.

use crate::support::captured_trace::{capture, captured};
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    Locality, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError,
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

/// A granting tier whose server hangs: nothing of it is logged but what the layers say.
#[derive(Debug)]
struct Hanging;

impl std::fmt::Display for Hanging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hanging")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Hanging {
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        Ok(Fetched::Miss)
    }
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        Ok(())
    }
    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
    fn locality(&self) -> Locality {
        Locality::Network
    }
}

#[async_trait::async_trait]
impl CompileLeases for Hanging {
    async fn compile_lease(
        &self,
        _: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_leases_is_one_warning_and_not_one_for_each_compile() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Hanging)
        .build();
    capture();
    for number in 0..5 {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        let compile = || async { Ok::<_, std::convert::Infallible>(Artifact::new("code")) };
        cache.get_or_insert_with(&key, compile).await.unwrap();
    }
    let trace = captured();
    let said = |level: &str| {
        let lines = trace.lines().filter(|line| line.starts_with(level));
        lines
            .filter(|line| line.contains("no compile lease"))
            .count()
    };
    assert_eq!((said("WARN"), said("DEBUG")), (1, 4), "{trace}");
    assert_eq!(cache.layered_metrics().tiers[1].leases_timed_out, 5);
}

#[cfg(all(feature = "redis", unix))]
#[tokio::test]
async fn a_user_that_redis_rejects_is_logged_without_the_password_and_without_advice_for_http() {
    use crate::support::redis::Redis;
    use pipeline_cache::RedisCache;

    let Some(server) = Redis::start("--requirepass right") else {
        return;
    };
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port);
    let cache = RedisCache::new(url).unwrap();
    capture();
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let error = cache.get(&key).await.unwrap_err();
    let trace = captured();
    assert!(trace.contains("credentials rejected"), "{trace}");
    assert!(!trace.contains("absent_statuses"), "{trace}");
    let said = format!("{trace} {error:#} {error:?} {cache} {cache:?}");
    assert!(!said.contains("hunter2"), "{said}");
}
