//! Every setting of every builder, with the default that a fresh builder shows in its debug form.
//!
//! Each setting is called once with another value. What that changes in the debug form of the builder
//! is what the setting sets, and what stood there before is its default.

use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use pipeline_cache::bundle::PackOptions;
use pipeline_cache::disk::EvictionOrder;
use pipeline_cache::layered::{Abandoned, CompilePolicy, MetricsExporter, RecordedRun};
use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::signatures::{SigningKey, TrustedSigners};
use pipeline_cache::{
    BundleCache, CompileScope, Credentials, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
    LookupOptions, LookupPolicy, LookupPriority, ObjectStoreCache, PipelineFingerprint, RedisCache,
    RemoteCache, SharedSecret, SourceAliases, TierSelection, Trust, WritePolicy,
};

/// A setting and its default, as the page writes it.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) builder: &'static str,
    pub(crate) name: &'static str,
    pub(crate) default: String,
}

/// How the debug form of a default reads on the page.
enum Reads {
    Bytes,
    Count,
    Time,
    /// This debug form, with its lines in one, reads as this text.
    As(&'static str, &'static str),
}
use Reads::{As, Bytes as Size, Count, Time};

impl Reads {
    fn text(&self, line: &str) -> String {
        let value = line.rsplit(": ").next().unwrap();
        match self {
            Size => in_bytes(value.parse().unwrap()),
            Count => with_commas(value.parse().unwrap()),
            Time => in_units(value),
            As(expected, text) => {
                assert_eq!(line, *expected, "the default that reads {text:?}");
                (*text).to_owned()
            }
        }
    }
}

fn in_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes % (1 << shift) == 0);
    let (shift, unit) = unit.unwrap_or(&(0, "bytes"));
    format!("{} {unit}", bytes >> shift)
}

fn with_commas(number: u64) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{},{rest:03}", with_commas(thousands)),
    }
}

/// From `604800s` or `250ms`.
fn in_units(debug: &str) -> String {
    let number = debug.trim_end_matches(char::is_alphabetic);
    let unit = &debug[number.len()..];
    let number: u64 = number.parse().unwrap();
    match (unit, number) {
        ("s", seconds) if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        ("s", seconds) if seconds % 60 == 0 && seconds > 60 => format!("{} minutes", seconds / 60),
        _ => format!("{number} {unit}"),
    }
}

/// The lines of `before` that are not in `after`, with what begins and ends both left out.
fn changed<'a>(before: &'a str, after: &str) -> Vec<&'a str> {
    let line = |line: &'a str| line.trim().trim_end_matches(',');
    let before: Vec<_> = before.lines().map(line).collect();
    let after: Vec<_> = after
        .lines()
        .map(|line| line.trim().trim_end_matches(','))
        .collect();
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(one, other)| one == other).count()
    };
    let begin = same(&mut before.iter().zip(&after));
    let end = same(
        &mut before[begin..]
            .iter()
            .rev()
            .zip(after[begin..].iter().rev()),
    );
    before[begin..before.len() - end].to_vec()
}

fn setting(
    builder: &'static str,
    name: &'static str,
    before: &impl Debug,
    after: &impl Debug,
    reads: &[Reads],
) -> Setting {
    let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
    let mut changed = changed(&before, &after);
    let whole = changed.join(" ");
    if let [As(..)] = reads {
        changed = vec![&whole];
    }
    assert_eq!(
        changed.len(),
        reads.len(),
        "{builder}::{name} changes {changed:?} in the debug form"
    );
    let texts = reads
        .iter()
        .zip(&changed)
        .map(|(reads, line)| reads.text(line));
    Setting {
        builder,
        name,
        default: texts.collect::<Vec<_>>().join(", "),
    }
}

macro_rules! settings {
    ($settings:ident, $builder:literal, $fresh:expr; $($name:ident($($value:expr),*) => [$($reads:expr),*];)*) => {
        $($settings.push(setting(
            $builder,
            stringify!($name),
            &$fresh,
            &$fresh.$name($($value),*),
            &[$($reads),*],
        ));)*
    };
}

const SECOND: Duration = Duration::from_secs(1);

fn secret() -> SharedSecret {
    SharedSecret::new("at least 16 random bytes")
}

fn signers() -> TrustedSigners {
    TrustedSigners::new([])
}

pub(crate) async fn all_settings() -> Vec<Setting> {
    let mut all = Vec::new();
    layered(&mut all);
    requests(&mut all).await;
    prefetch(&mut all);
    folders(&mut all);
    network(&mut all);
    policies(&mut all);
    all
}

fn layered(all: &mut Vec<Setting>) {
    let tier = InMemoryPipelineCache::new;
    let shared = || Arc::new(tier()) as _;
    settings! { all, "LayeredPipelineCacheBuilder", LayeredPipelineCache::builder();
        tier(tier()) => [As("tiers: []", "none")];
        shared_tier(shared()) => [As("tiers: []", "none")];
        tiers([shared()]) => [As("tiers: []", "none")];
        lookup_policy(LookupPolicy::Hedged { delay: SECOND }) => [As("delay: 2ms", "hedged by 2 ms")];
        lookup_deadline(SECOND) => [Time];
        max_searches(1) => [Count];
        write_policy(WritePolicy::First) => [As("write_policy: Behind", "write behind")];
        write_timeout(SECOND) => [Time];
        background_limits(1, 1) => [Count, Size];
        background_concurrency(1) => [Count];
        write_retry_interval(SECOND) => [Time];
        max_write_refusals(1) => [Count];
        compile_policy(CompilePolicy::Race { after: SECOND }) => [As("compile_policy: AfterMiss", "after a miss")];
        compile_places(1) => [As("compile_places: None", "one less than the cores, at least 1")];
        compile_stack_size(1) => [Size];
        max_queued_compiles(1) => [Count];
        compile_limit(SECOND) => [Time];
        max_compile_wait(SECOND) => [Time];
        network_budget(SECOND) => [Time];
        source_aliases(SourceAliases::new()) => [As("source_aliases: None", "a table of its own, for 16,384 sources")];
        keep_aliases() => [As("keeps_aliases: false", "no")];
        signing_key(SigningKey::from_seed([1; 32])) => [As("signing_key: None", "none")];
        remembered_failures(1, SECOND) => [Count, Time];
        pass_by_losing_scopes(true) => [As("pass_by_losing_scopes: false", "no")];
        verify_sample(0.5, |_| ()) => [As("verify: None", "none")];
        record_run() => [As("records_run: false", "no")];
        max_recorded_keys(1) => [Count];
    }
    settings! { all, "MetricsExporter", MetricsExporter::new("cache");
        tier_labels(["one"]) => [As("tiers: []", "the kind of each tier")];
    }
}

async fn requests(all: &mut Vec<Setting>) {
    let cache = LayeredPipelineCache::builder().build();
    let scope = CompileScope::new("compiler 1.0", "any").unwrap();
    settings! { all, "CompileRequest", cache.compile(&scope);
        deadline(SECOND) => [As("deadline: None", "none")];
        tiers(TierSelection::Local) => [As("tiers: All", "all tiers")];
        writes(TierSelection::Local) => [As("writes: All", "all tiers")];
        priority(LookupPriority::Background) => [As("priority: Interactive", "interactive")];
        race(SECOND) => [As("race: None", "as the cache says")];
        network_budget(SECOND) => [As("network_budget: 250ms", "as the cache says")];
        remember_failures(true) => [As("remembers_failures: false", "no")];
        when_abandoned(Abandoned::Cancel) => [As("abandoned: FinishAndKeep", "finish and keep")];
    }
    settings! { all, "LookupOptions", LookupOptions::new();
        tiers(TierSelection::Local) => [As("tiers: All", "all tiers")];
        deadline(SECOND) => [As("deadline: None", "that of the cache")];
        priority(LookupPriority::Background) => [As("priority: Interactive", "interactive")];
    }
}

fn prefetch(all: &mut Vec<Setting>) {
    let cache = LayeredPipelineCache::builder().build();
    let run = RecordedRun::default();
    settings! { all, "Prefetch", cache.prefetch(&run);
        max_bytes(1) => [Size];
        bytes_per_second(1) => [As("bytes_per_second: None", "no bound")];
        concurrency(1) => [Count];
        give_way(Duration::from_secs(2)) => [Time];
        max_outage(SECOND) => [Time];
    }
}

fn folders(all: &mut Vec<Setting>) {
    settings! { all, "DiskCacheBuilder", DiskCache::builder();
        root("/") => [As("root: None", "the user's cache folder")];
        max_artifact_bytes(1) => [Size];
        max_bytes(1) => [As("max_bytes: None", "no bound")];
        max_entries(1) => [As("max_entries: None", "no bound")];
        max_age(SECOND) => [As("max_age: None", "no bound")];
        eviction_order(EvictionOrder::LeastTimeSaved) => [As("eviction_order: LeastRecentlyUsed", "least recently used")];
        shared_secret(secret()) => [As("trusted_keys: None", "none")];
        trusted_keys(secret().into()) => [As("trusted_keys: None", "none")];
        trusted_signers(signers()) => [As("trusted_signers: None", "signatures are not demanded")];
        allow_other_users() => [As("private: true", "no")];
        max_concurrent_operations(1) => [Count];
        max_pending_flushes(1) => [Count];
        compile_locks() => [As("compile_locks: false", "no")];
        max_write_intents(1) => [Count];
        max_write_intent_age(SECOND) => [Time];
    }
    settings! { all, "BundleCacheBuilder", BundleCache::builder();
        max_artifact_bytes(1) => [Size];
        shared_secret(secret()) => [As("trusted_keys: None", "none")];
        trusted_keys(secret().into()) => [As("trusted_keys: None", "none")];
        trusted_signers(signers()) => [As("trusted_signers: None", "signatures are not demanded")];
        max_concurrent_operations(1) => [Count];
    }
    settings! { all, "PackOptions", PackOptions::default();
        keys([PipelineFingerprint::from_bytes([1; 32])]) => [As("keys: None", "all artifacts")];
        without_aliases() => [As("leave_aliases: false", "aliases are packed")];
    }
}

macro_rules! of_every_network_tier {
    ($all:ident, $fresh:expr) => {
        let retry = RetryPolicy::default().attempts(1);
        let breaker = BreakerPolicy::default().min_calls(1);
        settings! { $all, "Every network tier", $fresh;
            writes() => [As("writes: false", "no")];
            request_timeout(SECOND) => [Time];
            attempt_timeout(SECOND) => [Time];
            connect_timeout(SECOND) => [Time];
            inactivity_timeout(SECOND) => [Time];
            retry(retry) => [As("attempts: 3", "as [`RetryPolicy`](crate::network::RetryPolicy)")];
            breaker(breaker) => [As("min_calls: 5", "as [`BreakerPolicy`](crate::network::BreakerPolicy)")];
            max_concurrent_requests(1) => [Count];
            max_abandoned_requests(1) => [Count];
            remember_misses_for(SECOND) => [As("remember_misses: None", "misses are not remembered")];
            max_remembered_misses(1) => [Count];
            heal_interval(SECOND) => [Time];
            require_provenance("ci") => [As("provenance: None", "none")];
            require_device("gpu") => [As("device: None", "none")];
            shared_secret(secret()) => [As("trust: Server", "none")];
            trust(Trust::ServerUnpromoted) => [As("trust: Server", "the server is trusted")];
            zstd(3, 1) => [As("compression: None", "nothing is compressed")];
        }
    };
}

macro_rules! of_http_and_object_stores {
    ($all:ident, $fresh:expr) => {
        settings! { $all, "Every network tier", $fresh;
            absent_statuses([403]) => [Count, Count];
            max_artifact_bytes(1) => [Size];
        }
    };
}

fn network(all: &mut Vec<Setting>) {
    of_every_network_tier!(all, RemoteCache::builder());
    of_every_network_tier!(all, ObjectStoreCache::builder());
    of_every_network_tier!(all, RedisCache::builder());
    of_http_and_object_stores!(all, RemoteCache::builder());
    of_http_and_object_stores!(all, ObjectStoreCache::builder());
    settings! { all, "RemoteCacheBuilder", RemoteCache::builder();
        bearer_token("token") => [As("authorization: false", "none")];
        basic_auth("user", "password") => [As("authorization: false", "none")];
        header("X-Api-Key", "key") => [As("headers: []", "none")];
        credentials_from(Credentials::none) => [As("credentials: Credentials { authorization: false headers: [] }", "none")];
        client_certificate(Bytes::new()) => [As("client_certificate: false", "none")];
        extra_root_certificates(Bytes::new()) => [As("extra_roots: 0", "none")];
        max_redirects(1) => [Count];
        no_proxy() => [As("proxy_from_environment: true", "proxies of the environment")];
        http2_prior_knowledge() => [As("http2_prior_knowledge: false", "no")];
        compile_leases(SECOND) => [As("lease_time: None", "none are granted")];
    }
    settings! { all, "ObjectStoreCacheBuilder", ObjectStoreCache::builder();
        store_option("aws_region", "x") => [As("store_options: 0", "none")];
        compile_leases(SECOND) => [As("lease_time: None", "none are granted")];
    }
    settings! { all, "RedisCacheBuilder", RedisCache::builder();
        max_artifact_bytes(1) => [Size];
        key_prefix("other:") => [As("prefix: \"pipeline-cache:\"", "`pipeline-cache:`")];
        time_to_live(SECOND) => [As("time_to_live: None", "until the server evicts it")];
        compile_leases(SECOND) => [As("lease_time: None", "none are granted")];
        sentinel_credentials("user", "password") => [As("sentinel_credentials: false", "none")];
        client_certificate(Bytes::new()) => [As("client_certificate: false", "none")];
        extra_root_certificates(Bytes::new()) => [As("extra_roots: 0", "none")];
    }
}

fn policies(all: &mut Vec<Setting>) {
    settings! { all, "RetryPolicy", RetryPolicy::default();
        attempts(1) => [Count];
        base_delay(SECOND) => [Time];
        max_delay(Duration::from_secs(2)) => [Time];
        max_retry_after(SECOND) => [Time];
        budget_percent(1) => [Count];
        budget_reserve(1) => [Count];
    }
    settings! { all, "BreakerPolicy", BreakerPolicy::default();
        window(SECOND) => [Time];
        min_calls(1) => [Count];
        failure_percent(1) => [Count];
        probe_interval(SECOND) => [Time];
        abandoned_after(Duration::from_secs(2)) => [Time];
        max_pause(SECOND) => [Time];
    }
}
