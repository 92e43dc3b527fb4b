//! What the store of compiled functions promises to wasmtime.
#![cfg(feature = "wasmtime")]

#[path = "../function_store/mod.rs"]
mod function_store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    CompileScope, InMemoryPipelineCache, LayeredPipelineCache, StoreErrorKind, StoreOperation,
};
use tokio::runtime::Runtime;
use wasmtime::CacheStore as _;

use function_store::FunctionStore;

const KEY: &[u8] = &[7; 32];

fn scope(compiler: &str) -> CompileScope {
    CompileScope::new(compiler, "x86_64").unwrap()
}

/// With a deadline that a busy machine keeps.
fn store(cache: &LayeredPipelineCache, compiler: &str, runtime: &Runtime) -> FunctionStore {
    within(Duration::from_secs(60), cache, compiler, runtime)
}

fn within(
    deadline: Duration,
    cache: &LayeredPipelineCache,
    compiler: &str,
    runtime: &Runtime,
) -> FunctionStore {
    let runtime = runtime.handle().clone();
    FunctionStore::new(cache.clone(), &scope(compiler), runtime, deadline).unwrap()
}

fn in_memory() -> LayeredPipelineCache {
    let builder = LayeredPipelineCache::builder();
    builder.tier(InMemoryPipelineCache::new()).build()
}

#[test]
fn a_function_is_found_under_its_key_and_its_scope_and_nowhere_else() {
    let runtime = Runtime::new().unwrap();
    let cache = in_memory();
    let ours = store(&cache, "compiler 1", &runtime);

    assert_eq!(ours.get(KEY), None);
    assert!(ours.insert(KEY, b"code".to_vec()));
    assert_eq!(ours.get(KEY).as_deref(), Some(&b"code"[..]));
    assert_eq!(ours.get(&[8; 32]), None);
    assert_eq!(ours.get(&KEY[1..]), None);
    assert_eq!(store(&cache, "compiler 2", &runtime).get(KEY), None);
    let again = store(&cache, "compiler 1", &runtime);
    assert_eq!(again.get(KEY).as_deref(), Some(&b"code"[..]));
}

#[test]
fn what_is_larger_than_its_bound_is_not_stored() {
    let runtime = Runtime::new().unwrap();
    let store = store(&in_memory(), "compiler", &runtime);

    let long = [7; 65];
    assert!(!store.insert(&long, b"code".to_vec()));
    assert_eq!(store.get(&long), None);
    assert!(!store.insert(KEY, vec![0; (16 << 20) + 1]));
    assert_eq!(store.get(KEY), None);
}

#[test]
fn a_tier_that_fails_is_a_miss_and_works_again_when_it_is_back() {
    let runtime = Runtime::new().unwrap();
    let tier = Arc::new(FaultyStore::new("faulty"));
    let cache = LayeredPipelineCache::new([Arc::clone(&tier) as _]);
    let store = store(&cache, "compiler", &runtime);
    assert!(store.insert(KEY, b"code".to_vec()));

    tier.set_all(Fault::Error(StoreErrorKind::Io));
    assert_eq!(store.get(KEY), None);
    assert!(!store.insert(&[8; 32], b"code".to_vec()));

    tier.set_all(Fault::None);
    assert_eq!(store.get(KEY).as_deref(), Some(&b"code"[..]));
}

#[test]
fn a_tier_that_hangs_is_waited_for_once_and_not_by_every_function() {
    let runtime = Runtime::new().unwrap();
    let tier = Arc::new(FaultyStore::new("hung"));
    let cache = LayeredPipelineCache::new([Arc::clone(&tier) as _]);
    let store = within(Duration::from_millis(100), &cache, "compiler", &runtime);
    tier.set_all(Fault::Hang);

    let start = Instant::now();
    for function in 0..200 {
        let key = [function; 32];
        assert_eq!(store.get(&key), None);
        assert!(!store.insert(&key, b"code".to_vec()));
    }
    // Each by itself would take 0.1 s.
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(tier.calls(StoreOperation::Get), 1);
    assert_eq!(tier.calls(StoreOperation::Put), 0);
}
