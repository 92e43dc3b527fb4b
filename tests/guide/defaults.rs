//! The page `guide::defaults` lists every setting, with the default that the code has.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_cache::bundle::MAX_ENTRIES;
use pipeline_cache::layered::RecordedRun;
use pipeline_cache::{
    BundleCache, DiskCache, InMemoryPipelineCache, PipelineCacheStore as _, RemoteCache,
    SourceAliases,
};

use crate::builders::all_settings;
use crate::sources::{setters, sources};
use crate::table::{code, rows};

const PAGE: &str = include_str!("../../src/guide/defaults.md");

/// Where the settings of each section are defined.
const BUILDERS: [(&str, &str); 15] = [
    ("bundle/builder.rs", "BundleCacheBuilder"),
    ("bundle/transfer.rs", "PackOptions"),
    ("disk/builder.rs", "DiskCacheBuilder"),
    ("http/builder.rs", "RemoteCacheBuilder"),
    ("layered/builder.rs", "LayeredPipelineCacheBuilder"),
    ("layered/export.rs", "MetricsExporter"),
    ("layered/lookup.rs", "LookupOptions"),
    ("layered/prefetch.rs", "Prefetch"),
    ("layered/request.rs", "CompileRequest"),
    ("memory/mod.rs", "InMemoryPipelineCache"),
    ("network/breaker_policy.rs", "BreakerPolicy"),
    ("network/retry.rs", "RetryPolicy"),
    ("network/settings.rs", "Every network tier"),
    ("object_store/builder.rs", "ObjectStoreCacheBuilder"),
    ("redis/builder.rs", "RedisCacheBuilder"),
];

/// What is made step by step and has no defaults to know: artifacts, scopes, errors, and the tools of
/// tests.
const VALUES: [&str; 10] = [
    "artifact/builder.rs",
    "artifact/metadata.rs",
    "artifact/trust.rs",
    "explain.rs",
    "http/credentials.rs",
    "key/scope.rs",
    "key/wasm/mod.rs",
    "store/error.rs",
    "testing/faulty.rs",
    "testing/program.rs",
];

/// The constructors among the rows, which the scan for setters does not find.
const CONSTRUCTORS: [(&str, &str); 2] = [
    ("InMemoryPipelineCache", "with_limits"),
    ("SourceAliases", "with_capacity"),
];

/// The default of each setting, as the page says, by section and setting.
fn on_the_page() -> BTreeMap<(String, String), String> {
    let settings = rows(PAGE)
        .into_iter()
        .filter(|row| row.heading != "Fixed bounds");
    settings
        .map(|row| {
            let name = code(&row.cells[0]).expect("the name of a setting");
            ((row.heading, name), row.cells[1].clone())
        })
        .collect()
}

#[test]
fn the_page_lists_every_setting_and_no_other() {
    let mut in_the_code: BTreeSet<_> = CONSTRUCTORS.map(|(a, b)| (a.into(), b.into())).into();
    let mut builders = BTreeMap::from(BUILDERS);
    builders.insert("source_alias/mod.rs", "SourceAliases");
    for (file, code) in sources() {
        let setters = setters(&code);
        if setters.is_empty() || VALUES.contains(&file.as_str()) {
            continue;
        }
        let builder = builders.get(file.as_str()).unwrap_or_else(|| {
            panic!("{file} has a builder that is not in guide::defaults: {setters:?}")
        });
        in_the_code.extend(setters.into_iter().map(|name| (builder.to_string(), name)));
    }
    // A default of its own for a setting of every network tier.
    in_the_code.insert(("RedisCacheBuilder".into(), "max_artifact_bytes".into()));

    let on_the_page: BTreeSet<_> = on_the_page().into_keys().collect();
    let missing: Vec<_> = in_the_code.difference(&on_the_page).collect();
    let unknown: Vec<_> = on_the_page.difference(&in_the_code).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    assert!(unknown.is_empty(), "not in the code: {unknown:?}");
}

#[tokio::test]
async fn the_page_says_the_defaults_of_the_code() {
    let on_the_page = on_the_page();
    let mut checked = BTreeSet::new();
    for setting in all_settings().await {
        let at = (setting.builder.to_owned(), setting.name.to_owned());
        let said = on_the_page.get(&at);
        let said = said.unwrap_or_else(|| panic!("{at:?} is not in the table"));
        assert_eq!(*said, setting.default, "the default of {at:?}");
        checked.insert(at);
    }
    let unchecked: Vec<_> = on_the_page
        .keys()
        .filter(|at| !checked.contains(*at))
        .filter(|(builder, _)| !matches!(&**builder, "InMemoryPipelineCache" | "SourceAliases"))
        .collect();
    assert!(unchecked.is_empty(), "nothing checks {unchecked:?}");
}

#[tokio::test]
async fn the_page_says_the_budgets_of_memory() {
    let on_the_page = on_the_page();
    let said = |builder: &str, name: &str| &*on_the_page[&(builder.into(), name.into())];
    assert_eq!(InMemoryPipelineCache::DEFAULT_MAX_ENTRIES, 65_536);
    assert_eq!(InMemoryPipelineCache::new().max_artifact_bytes(), 256 << 20);
    assert_eq!(
        said("InMemoryPipelineCache", "with_limits"),
        "65,536, 256 MiB"
    );
    assert_eq!(SourceAliases::DEFAULT_CAPACITY, 16_384);
    assert_eq!(said("SourceAliases", "with_capacity"), "16,384");
}

/// Those bounds that the debug form of a builder shows.
#[test]
fn a_value_outside_of_its_bounds_is_moved_to_the_nearest() {
    let bounds = |builder: &str, name: &str| {
        let row = rows(PAGE)
            .into_iter()
            .find(|row| (&*row.heading, code(&row.cells[0]).as_deref()) == (builder, Some(name)));
        row.unwrap().cells[2].clone()
    };
    let shows = |builder: &dyn std::fmt::Debug, field: &str| {
        assert!(format!("{builder:?}").contains(field), "{builder:?}");
    };
    let disk = DiskCache::builder().max_concurrent_operations(0);
    shows(&disk, "max_concurrent_operations: 1,");
    shows(&disk.max_pending_flushes(0), "max_pending_flushes: 1,");
    let bundle = BundleCache::builder().max_concurrent_operations(0);
    shows(&bundle, "max_concurrent_operations: 1 ");
    for (builder, name) in [
        ("DiskCacheBuilder", "max_concurrent_operations"),
        ("DiskCacheBuilder", "max_pending_flushes"),
        ("BundleCacheBuilder", "max_concurrent_operations"),
    ] {
        assert_eq!(bounds(builder, name), "at least 1");
    }
    shows(&RemoteCache::builder().zstd(99, 1), "level: 19,");
    shows(&RemoteCache::builder().zstd(-7, 1), "level: 1,");
    assert!(bounds("Every network tier", "zstd").starts_with("level 1 to 19;"));
}

/// What no setting changes: the row of the table, its value, and where the code says so.
const FIXED: &[(&str, &str, &str, &str)] = &[
    (
        "Keys in one batch",
        "1,024",
        "http/batch.rs",
        "MAX_KEYS: usize = 1024;",
    ),
    (
        "Bytes of frames",
        "64 MiB",
        "http/batch.rs",
        "MAX_BYTES: u64 = 64 << 20;",
    ),
    (
        "Batch requests",
        "4",
        "network/many.rs",
        "BATCHES_AT_ONCE: usize = 4;",
    ),
    (
        "Lookups of many keys",
        "16",
        "store/many.rs",
        "FETCHES_AT_ONCE: usize = 16;",
    ),
    (
        "Source aliases being",
        "64",
        "source_alias/table.rs",
        "MAX_WRITES: u32 = 64;",
    ),
    (
        "Shortest life",
        "100 ms",
        "network/leases.rs",
        "MIN_TIME: Duration = Duration::from_millis(100);",
    ),
    (
        "Requests of one tier",
        "32",
        "http/leases.rs",
        "MAX_WAITS: usize = 32;",
    ),
    (
        "After which a server",
        "5 minutes",
        "network/server_support.rs",
        "ASK_AGAIN: Duration = Duration::from_secs(300);",
    ),
    (
        "Longest time for which",
        "1 minute",
        "network/auth_block.rs",
        "MEMORY: Duration = Duration::from_secs(60);",
    ),
    (
        "Shortest time between",
        "1 minute",
        "sync/trouble.rs",
        "BETWEEN: Duration = Duration::from_secs(60);",
    ),
    (
        "Bad entries",
        "4,096",
        "network/unhealed.rs",
        "CAPACITY: usize = 4096;",
    ),
    (
        "Time that an idle",
        "50 s",
        "http_client.rs",
        "POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);",
    ),
    (
        "Parts of an artifact",
        "64",
        "artifact/parts.rs",
        "MAX_PARTS: usize = 64;",
    ),
    (
        "Length of the name",
        "64",
        "artifact/parts.rs",
        "MAX_NAME: usize = 64;",
    ),
    (
        "Metadata",
        "64 KiB",
        "artifact/header.rs",
        "MAX_METADATA: usize = 64 * 1024;",
    ),
    (
        "Work that is done",
        "64 KiB",
        "sync/blocking.rs",
        "INLINE_BYTES: usize = 64 * 1024;",
    ),
    (
        "Life of an idle",
        "5 s",
        "sync/threads.rs",
        "IDLE: Duration = Duration::from_secs(5);",
    ),
    (
        "Scopes",
        "256",
        "layered/savings.rs",
        "MAX_SCOPES: usize = 256;",
    ),
    (
        "Requests over which",
        "1,000",
        "layered/savings.rs",
        "WINDOW: usize = 1_000;",
    ),
    (
        "Entries of a bundle",
        "4,194,304",
        "bundle/index.rs",
        "MAX_ENTRIES: u64 = 1 << 22;",
    ),
    (
        "Keys of a recorded",
        "1,000,000",
        "layered/recorded_run.rs",
        "MAX_KEYS: usize = 1_000_000;",
    ),
    (
        "Eviction reports",
        "256",
        "memory/eviction.rs",
        "KEPT_REPORTS: usize = 256;",
    ),
    (
        "Time for which an unused",
        "1 day",
        "disk/writer.rs",
        "FOREIGN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);",
    ),
    (
        "Precision",
        "1 hour",
        "disk/files.rs",
        "USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);",
    ),
    (
        "Time after which",
        "1 hour",
        "disk/gc/bounds.rs",
        "SCAN_INTERVAL: Duration = Duration::from_secs(60 * 60);",
    ),
    (
        "Longest wait of a put",
        "10 s",
        "disk/gc/room.rs",
        "MAX_PATIENCE: Duration = Duration::from_secs(10);",
    ),
    (
        "Longest pause of background",
        "1 minute",
        "disk/durability/flush.rs",
        "MAX_PAUSE: Duration = Duration::from_secs(60);",
    ),
];

#[test]
fn the_page_says_the_fixed_bounds_of_the_code() {
    assert_eq!((MAX_ENTRIES, RecordedRun::MAX_KEYS), (4_194_304, 1_000_000));
    let sources = BTreeMap::from_iter(sources());
    let mut rows: Vec<_> = rows(PAGE)
        .into_iter()
        .filter(|row| row.heading == "Fixed bounds")
        .collect();
    for (title, value, file, declaration) in FIXED {
        assert!(
            sources[*file].contains(&format!("const {declaration}")),
            "{file} no longer says `{declaration}`: correct the page and this test"
        );
        let row = rows.iter().position(|row| row.cells[0].starts_with(title));
        let row = rows.remove(row.unwrap_or_else(|| panic!("no row begins with {title:?}")));
        assert_eq!(row.cells[1], *value, "{title}");
    }
    assert!(rows.is_empty(), "nothing checks {rows:?}");
}
