//! A known spelling is not parsed, and an unknown one is parsed once.

use super::support::{
    FRONT_END, Front, Gate, SyntaxError, Words, memory, request, scope, stays_pending, until,
};
use bytes::Bytes;
use futures::StreamExt as _;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileScope, CompileSource, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
    LayeredPipelineCacheBuilder, LookupPriority, LookupSource, PipelineCacheStore,
    PipelineFingerprint, SourceAliases, StoreOperation,
};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

#[tokio::test]
async fn a_known_spelling_is_neither_parsed_nor_compiled_again() {
    let (cache, front) = (memory(), Front::default());
    let first = request(&cache, &front, &scope(), "b a").await.unwrap();
    assert_eq!(first.source, CompileSource::Compiled);
    assert_eq!(&first.artifact.payload()[..], b"a b for x86_64");
    assert_eq!((front.parses(), front.compiles()), (1, 1));
    cache.flush().await.unwrap();
    let again = request(&cache, &front, &scope(), "b a").await.unwrap();
    assert!(matches!(again.source, CompileSource::Cache(_)));
    assert_eq!((front.parses(), front.compiles()), (1, 1));

    // Another spelling is parsed, to the same key. Another scope is compiled.
    let respelled = request(&cache, &front, &scope(), " a  b").await.unwrap();
    assert_eq!(respelled.key, first.key);
    assert_eq!((front.parses(), front.compiles()), (2, 1));
    let other = CompileScope::new("cc 1", "arm").unwrap();
    let other = request(&cache, &front, &other, "b a").await.unwrap();
    assert_eq!(&other.artifact.payload()[..], b"a b for arm");
    assert_eq!(front.compiles(), 2);
}

/// As an editor asks for it, to show what is cached.
#[tokio::test]
async fn the_key_of_a_source_is_told_without_a_compile() {
    let (cache, front, scope) = (memory(), Front::default(), scope());
    let find = |source: &'static str| {
        let request = cache
            .compile(&scope)
            .source(FRONT_END, source, front.parse());
        request.find_key()
    };
    let key = find("b a").await.unwrap().unwrap();
    assert!(cache.get(&key).await.is_none());
    assert_eq!((front.parses(), front.compiles()), (1, 0));
    assert_eq!(find("b a").await.unwrap(), Ok(key));
    assert_eq!(front.parses(), 1, "the spelling is known");

    let compiled = request(&cache, &front, &scope, "a b").await.unwrap();
    assert_eq!(compiled.key, Some(key));
    assert!(find("secret").await.unwrap().is_err());
    assert!(find("error").await.unwrap_err().failed().is_some());
}

/// The leader's parse makes the key, and what it made is what is compiled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_with_one_new_source_parse_it_once() {
    let (cache, front) = (memory(), Front::default());
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, front) = (cache.clone(), front.clone());
            tokio::spawn(async move { request(&cache, &front, &scope(), "x y z").await.unwrap() })
        })
        .collect();
    for caller in callers {
        let compiled = caller.await.unwrap();
        assert_eq!(&compiled.artifact.payload()[..], b"x y z for x86_64");
    }
    assert_eq!((front.parses(), front.compiles()), (1, 1));
}

/// Both places for keys are taken, and a prefetch waits for one. A user who asks for a source of the
/// prefetch makes it the next that is parsed.
#[tokio::test]
async fn a_background_parse_that_a_user_joins_moves_up() {
    let (cache, gate, order) = (memory(), Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let start = |source: &'static str, priority| {
        let (cache, gate, order) = (cache.clone(), gate.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            let parse = move |source: &Bytes| {
                order.lock().unwrap().push(source.clone());
                gate.wait();
                Ok::<_, SyntaxError>(Words(Vec::new()))
            };
            let scope = scope();
            let request = cache.compile(&scope).source(FRONT_END, source, parse);
            let compiled = request
                .priority(priority)
                .run(|_, _| Ok(Artifact::new("code")));
            compiled.await.unwrap();
        })
    };
    let (user, prefetch) = (LookupPriority::Interactive, LookupPriority::Background);
    let mut requests = vec![start("one", user), start("two", user)];
    gate.until_arrived(2).await;
    requests.extend([start("three", prefetch), start("four", prefetch)]);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    requests.push(start("four", user));
    while cache.layered_metrics().aliases.joins == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    gate.open(1);
    gate.until_arrived(3).await;
    assert_eq!(order.lock().unwrap()[2], "four");
    gate.open(3);
    for request in requests {
        request.await.unwrap();
    }
}

#[tokio::test]
async fn a_parse_that_fails_is_told_to_all_who_wait_for_it() {
    let (cache, scope, gate) = (memory(), scope(), Gate::default());
    let parse = {
        let gate = gate.clone();
        move |_: &Bytes| {
            gate.wait();
            Err::<Words, _>(SyntaxError("error".to_owned()))
        }
    };
    let ask = || {
        let request = cache
            .compile(&scope)
            .source(FRONT_END, "error", parse.clone());
        request.run(|_, _| Ok(Artifact::new("code")))
    };
    let (mut first, mut second) = (Box::pin(ask()), Box::pin(ask()));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    gate.open(1);
    for failed in [first.await, second.await] {
        let expected = SyntaxError("error".to_owned());
        assert_eq!(failed.unwrap_err().failed(), Some(&expected));
    }
    assert_eq!(gate.arrived(), 1);
}

#[tokio::test]
async fn a_program_without_a_key_is_compiled_past_the_cache_on_every_path() {
    let (cache, front) = (memory(), Front::default());
    for compiles in [1, 2] {
        let compiled = request(&cache, &front, &scope(), "a secret").await.unwrap();
        assert!(matches!(compiled.source, CompileSource::Bypassed(_)));
        assert_eq!(compiled.key, None);
        assert_eq!((front.parses(), front.compiles()), (compiles, compiles));
    }
    let program = Words(vec!["secret".to_owned()]);
    let scope = scope();
    let request = cache.compile(&scope).program(program);
    let compiled = request.run(front.compile()).await.unwrap();
    assert!(matches!(compiled.source, CompileSource::Bypassed(_)));
    cache.flush().await.unwrap();
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.lookups, metrics.puts), (0, 0));
}

/// Aliases kept in a store serve the next process, and are counted apart from artifacts.
#[tokio::test]
async fn aliases_kept_in_a_store_are_known_to_the_next_process() {
    let (artifacts, kept) = (InMemoryPipelineCache::new(), InMemoryPipelineCache::new());
    let front = Front::default();
    for process in 0..2 {
        let cache = LayeredPipelineCache::builder()
            .tier(artifacts.clone())
            .source_aliases(SourceAliases::new().kept_in(kept.clone()))
            .build();
        request(&cache, &front, &scope(), "b a").await.unwrap();
        cache.flush().await.unwrap();
        let metrics = cache.layered_metrics();
        let aliases = metrics.aliases;
        assert_eq!((aliases.misses, aliases.puts), (1 - process, 1 - process));
        assert_eq!((aliases.kept_hits, aliases.entries <= 1), (process, true));
        assert_eq!((metrics.lookups, metrics.puts), (1, 1 - process));
    }
    assert_eq!((front.parses(), front.compiles()), (1, 1));
    assert_eq!(artifacts.metrics().puts, 1);
    assert_eq!(kept.alias_stores()[0].metrics().puts, 1);
}

/// The search for an alias is a step of its own, so that a slow store of aliases is seen.
#[tokio::test]
async fn the_answer_tells_how_long_the_stores_of_aliases_took() {
    let answer = Duration::from_millis(5);
    let kept = InMemoryPipelineCache::new();
    let front = Front::default();
    for process in 0..2 {
        let slow = FaultyStore::over("aliases", Arc::new(kept.clone()));
        slow.set(StoreOperation::Get, Fault::Latency(answer));
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .source_aliases(SourceAliases::new().kept_in(slow))
            .build();
        let compiled = request(&cache, &front, &scope(), "b a").await.unwrap();
        assert!(compiled.times.alias >= answer, "{compiled}");
        assert!(compiled.timing().contains("alias;dur="));
        // In memory it is known at once.
        let known = request(&cache, &front, &scope(), "b a").await.unwrap();
        assert_eq!(known.times.alias, Duration::ZERO);
        cache.flush().await.unwrap();
        assert_eq!(cache.layered_metrics().aliases.kept_hits, process);
    }
}

#[tokio::test]
async fn what_does_not_parse_is_counted() {
    let (cache, front) = (memory(), Front::default());
    request(&cache, &front, &scope(), "error")
        .await
        .unwrap_err();
    let panicking = |_: &Bytes| -> Result<Words, SyntaxError> { panic!("a parser's fault") };
    let scope = scope();
    let panicked = cache.compile(&scope);
    let panicked = panicked.source(FRONT_END, "a", panicking);
    panicked.run(front.compile()).await.unwrap_err();
    request(&cache, &front, &scope, "b").await.unwrap();
    let aliases = cache.layered_metrics().aliases;
    assert_eq!((aliases.misses, aliases.parse_errors), (3, 2));
}

/// One store keeps both. Whichever way that is said, aliases are no artifacts to it.
#[tokio::test]
async fn aliases_in_the_tiers_of_artifacts_are_counted_apart_from_these() {
    type Keep = fn(LayeredPipelineCacheBuilder, Vec<Arc<dyn PipelineCacheStore>>) -> Built;
    type Built = LayeredPipelineCacheBuilder;
    let ways: [(&str, Keep); 3] = [
        ("one switch", |builder, _| builder.keep_aliases()),
        ("the tiers themselves", |builder, tiers| {
            let aliases = tiers
                .into_iter()
                .fold(SourceAliases::new(), SourceAliases::kept_in);
            builder.source_aliases(aliases)
        }),
        ("a cache over the tiers", |builder, tiers| {
            let cache = LayeredPipelineCache::new(tiers);
            builder.source_aliases(SourceAliases::new().kept_in(cache))
        }),
    ];
    for (way, keep) in ways {
        let folder = tempfile::tempdir().unwrap();
        let front = Front::default();
        for process in 0..2 {
            let disk = DiskCache::builder().root(folder.path()).max_entries(1_000);
            let tiers = [
                Arc::new(InMemoryPipelineCache::new()) as Arc<dyn PipelineCacheStore>,
                Arc::new(disk.open().await.unwrap()),
            ];
            let builder = LayeredPipelineCache::builder().tiers(tiers.clone());
            let cache = keep(builder, tiers.to_vec()).build();
            for (source, number) in [("b a", 1), ("a b", 2), ("c", 3)] {
                request(&cache, &front, &scope(), source).await.unwrap();
                cache.flush().await.unwrap();
                let is_known = u64::from(process == 1);
                let metrics = cache.layered_metrics();
                let (aliases, case) = (metrics.aliases, format!("{way}, {process}, {source}"));
                assert_eq!(
                    (aliases.kept_hits, aliases.misses),
                    (number * is_known, number * (1 - is_known)),
                    "{case}"
                );
            }
            let [memory, disk] = &cache.layered_metrics().tiers[..] else {
                panic!("there are two tiers");
            };
            // Two programs, three spellings.
            for tier in [memory, disk] {
                let of_disk = u64::from(tier.tier != "memory");
                let is_new = 1 - process * of_disk;
                let case = format!("{way}, {process}, {}", tier.tier);
                // A disk knows how much it holds once it was put to.
                assert_eq!(tier.store.entries, 2 * is_new, "{case}");
                assert_eq!(tier.store.puts, 2 * is_new, "{case}");
                assert_eq!(tier.store.misses, 2 * is_new, "{case}");
                assert_eq!(tier.aliases.entries, 3 * is_new, "{case}");
                assert_eq!(tier.aliases.puts, 3 * is_new, "{case}");
                assert_eq!(tier.aliases.misses, 3 * is_new, "{case}");
            }
        }
        assert_eq!((front.parses(), front.compiles()), (3, 2), "{way}");
    }
}

/// Somebody wrote an alias that names another program. Nothing is stored under that program's key.
#[tokio::test]
async fn a_wrong_alias_is_found_out_before_anything_is_compiled_under_it() {
    let (front, scope) = (Front::default(), scope());
    let bare = async |source: &'static str| {
        let source = Bytes::from(source);
        let aliases = SourceAliases::new();
        let found = aliases.fingerprint(FRONT_END, &source, front.parse());
        found.await.unwrap()
    };
    let (right, victim) = (bare("a").await, bare("victim").await);
    for source in ["a", "secret"] {
        let folder = tempfile::tempdir().unwrap();
        let kept = DiskCache::new(folder.path()).await.unwrap();
        let aliases = DiskCache::new(folder.path().join("aliases")).await.unwrap();
        let alias = alias_of(&kept, &aliases, source).await;
        let names = |program: PipelineFingerprint| Artifact::new(program.as_bytes().to_vec());
        // An entry that is whole is not put again.
        assert!(aliases.remove(&alias).await.unwrap());
        aliases.put(&alias, names(victim)).await.unwrap();
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .source_aliases(SourceAliases::new().kept_in(kept))
            .build();
        let compiled = request(&cache, &front, &scope, source).await.unwrap();
        let expected = format!("{source} for x86_64");
        assert_eq!(&compiled.artifact.payload()[..], expected.as_bytes());
        let key = (source == "a").then(|| right.scoped(&scope));
        assert_eq!(compiled.key, key);
        cache.flush().await.unwrap();
        assert_eq!(cache.get(&victim.scoped(&scope)).await, None);
        // The next process is not misled.
        if source == "a" {
            assert_eq!(aliases.get(&alias).await.unwrap(), Some(names(right)));
        }
    }
}

/// The key under which a store keeps the alias of a source, in its folder of aliases.
async fn alias_of(
    kept: &DiskCache,
    folder: &DiskCache,
    source: &'static str,
) -> PipelineFingerprint {
    let aliases = SourceAliases::new().kept_in(kept.clone());
    let parse = |_: &Bytes| Ok::<_, SyntaxError>(Words(Vec::new()));
    let source = Bytes::from(source);
    let found = aliases.fingerprint(FRONT_END, &source, parse);
    found.await.unwrap();
    let mut entries = folder.entries();
    entries.next().await.unwrap().unwrap().key
}

/// Tiers and a store of aliases that need not wait, as a disk tier whose file is in the page cache.
#[tokio::test]
async fn what_no_tier_waits_for_is_answered_and_promoted_without_a_task() {
    let (memory, disk) = (
        InMemoryPipelineCache::new(),
        Arc::new(FaultyStore::new("disk")),
    );
    let (aliases, front) = (Arc::new(FaultyStore::new("aliases")), Front::default());
    let cache = || {
        LayeredPipelineCache::builder()
            .tier(memory.clone())
            .tier(Arc::clone(&disk))
            .source_aliases(SourceAliases::new().kept_in(Arc::clone(&aliases)))
            .build()
    };
    let first = cache();
    let compiled = request(&first, &front, &scope(), "a b").await.unwrap();
    first.flush().await.unwrap();
    let key = compiled.key.unwrap();
    memory.remove(&key).await.unwrap();

    let (next, scope) = (cache(), scope());
    let answer = pin!(request(&next, &front, &scope, "a b"));
    let Poll::Ready(answer) = futures::poll!(answer) else {
        panic!("it waits");
    };
    assert_eq!(
        answer.unwrap().source,
        CompileSource::Cache(LookupSource::Tier(1))
    );
    assert!(memory.peek(&key).is_some(), "promoted");
    assert_eq!(next.promotion_report().promoted, 1);
    assert_eq!((front.parses(), front.compiles()), (1, 1));
}

/// A cache that keeps aliases in `local`, then in `network`.
fn keeping(local: &Arc<FaultyStore>, network: &Arc<FaultyStore>) -> LayeredPipelineCache {
    let aliases = SourceAliases::new().kept_in(Arc::clone(local));
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .source_aliases(aliases.kept_in(Arc::clone(network)))
        .build()
}

/// Where nothing may be promoted from, no alias is copied from either.
#[tokio::test]
async fn an_alias_of_a_store_that_is_not_trusted_stays_there() {
    for trusted in [false, true] {
        let front = Front::default();
        let network = FaultyStore::new("network").network();
        let network = Arc::new(match trusted {
            true => network,
            false => network.untrusted(),
        });
        for machine in 0..2 {
            let local = Arc::new(FaultyStore::new("local"));
            let cache = keeping(&local, &network);
            request(&cache, &front, &scope(), "a b").await.unwrap();
            cache.flush().await.unwrap();
            let is_copied = machine == 0 || trusted;
            assert_eq!(local.metrics().entries, u64::from(is_copied), "{machine}");
            assert_eq!(cache.layered_metrics().aliases.kept_hits, machine);
        }
    }
}

#[tokio::test]
async fn a_store_of_aliases_that_hangs_keeps_none_from_the_others() {
    let local = Arc::new(FaultyStore::new("local"));
    let network = Arc::new(FaultyStore::new("network").network());
    network.set(StoreOperation::Put, Fault::Gate);
    let (cache, front) = (keeping(&local, &network), Front::default());
    for number in 0..100 {
        let source = format!("source {number}");
        request(&cache, &front, &scope(), &source).await.unwrap();
    }
    let all = until(|| local.calls(StoreOperation::Put) == 100);
    let all = tokio::time::timeout(Duration::from_secs(20), all).await;
    all.expect("the other store has all aliases");
    assert_eq!(network.calls(StoreOperation::Put), 64);
    network.open(StoreOperation::Put, 100);
    cache.flush().await.unwrap();
    let aliases = cache.layered_metrics().aliases;
    assert_eq!((aliases.puts, aliases.put_errors), (64, 36));
}

/// The store of the aliases is that of a tier, and closes with it.
#[tokio::test]
async fn a_close_waits_for_the_aliases_that_are_being_written() {
    let memory = InMemoryPipelineCache::new();
    let of_memory = memory.alias_stores().remove(0);
    let kept = Arc::new(FaultyStore::over("aliases", of_memory));
    kept.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .source_aliases(SourceAliases::new().kept_in(Arc::clone(&kept)))
        .build();
    request(&cache, &Front::default(), &scope(), "a")
        .await
        .unwrap();
    let mut close = Box::pin(cache.close(Duration::from_secs(3_600)));
    stays_pending(&mut close).await;
    kept.open(StoreOperation::Put, 1);
    let report = close.await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(kept.metrics().entries, 1);
}
