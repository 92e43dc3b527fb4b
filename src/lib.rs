//! A content-addressed cache of compiled artifacts, for asynchronous compile servers, language
//! servers and fleets that share artifacts over a network.
//!
//! The key of an artifact is `blake3(canonicalize(program).to_wire())`, within the scope of its compiler
//! and target: two authors who write the same computation in different spellings share one artifact, and
//! two programs that mean different things never do.
//!
//! - [`Program`], [`ToWire`] and [`CompileScope`] say what is fingerprinted; a
//!   [`PipelineFingerprint`] is the result.
//! - [`SourceAliases`] knows spellings seen before by their hash; [`explain`](mod@explain) says why two
//!   keys differ.
//! - An [`Artifact`] is what is stored: one payload, or [named parts](Artifact::builder) such as code and
//!   warnings.
//! - [`InMemoryPipelineCache`], [`DiskCache`], `RemoteCache` (feature `remote-cache`),
//!   `ObjectStoreCache` (`object-store`) and `RedisCache` (`redis`) are tiers; any
//!   [`PipelineCacheStore`] can be one.
//! - A [`bundle`] is one file with many artifacts, to ship with a program: [`BundleCache`] serves it as a
//!   read-only tier.
//! - [`LayeredPipelineCache`] makes one cache of several tiers. Its
//!   [compile request](layered::CompileRequest) goes from a source to an artifact, and compiles what no
//!   tier has. [`get_many`](LayeredPipelineCache::get_many) looks many keys up, and asks a network tier
//!   for all of them in one call.
//! - A [`RecordedRun`](layered::RecordedRun) is what a run used; a
//!   [prefetch](LayeredPipelineCache::prefetch) of it is the warm start of the next machine.
//!
//! ```
//! use pipeline_cache::{
//!     Artifact, CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
//!     OpaqueProgram, Unkeyable,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let cache = LayeredPipelineCache::builder()
//!     .tier(InMemoryPipelineCache::new())
//!     .tier(DiskCache::new(folder.path()).await?)
//!     .build();
//!
//! let parse = |text: &bytes::Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()));
//! let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
//! let compiled = cache
//!     .compile(&scope)
//!     .source("text-parser 1.0", "hello", parse)
//!     .run(|input, _cx| {
//!         let program = input.into_canonical()?;
//!         Ok(Artifact::new(program.bytes().to_ascii_uppercase()))
//!     })
//!     .await?;
//! assert_eq!(&compiled.artifact.payload()[..], b"HELLO");
//! cache.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What every tier promises
//!
//! A get returns the whole artifact that was put under that key, or nothing. No future blocks its
//! thread. Dropping a future at any await leaves no partial entry and no stuck waiter. A failure
//! is a typed [`StoreError`], never a panic and never a silent miss. Everything is bounded. See
//! [`PipelineCacheStore`], and `testing::check_conformance` to hold a tier of your own to it.
//! `testing::check_program` does the same for a [`Program`] of your own. Both need the feature `testing`.
//!
//! # The guide
//!
//! The module [`guide`] lists its pages in the order to read them, with the question that each answers.
//! [Quick start](guide::quick_start) begins; [what happens when things fail](guide::failures) explains
//! each log line.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "remote-cache",
        feature = "object-store",
        feature = "redis",
        feature = "naga",
        feature = "wasm",
        feature = "signatures",
        feature = "metrics",
        feature = "serde",
        feature = "testing"
    )),
    expect(
        rustdoc::broken_intra_doc_links,
        reason = "the documentation links to items of every feature"
    )
)]

pub mod artifact;
pub mod bundle;
pub mod disk;
pub mod explain;
pub mod guide;
#[cfg(feature = "remote-cache")]
pub mod http;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
mod http_client;
pub mod key;
pub mod layered;
mod locked_crates;
pub mod memory;
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub mod network;
#[cfg(feature = "object-store")]
pub mod object_store;
#[cfg(feature = "redis")]
pub mod redis;
pub mod signatures;
mod source_alias;
pub mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "object-store")]
pub use self::object_store::{ObjectStoreCache, ObjectStoreCacheBuilder, ObjectStoreCacheError};
#[cfg(feature = "redis")]
pub use self::redis::{RedisCache, RedisCacheBuilder, RedisCacheError};
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub use artifact::Trust;
pub use artifact::{
    Artifact, ArtifactBuilder, ArtifactMetadata, FrameError, PartsError, SharedSecret, TrustedKeys,
};
pub use bundle::{BundleCache, BundleCacheBuilder, BundleError, BundleWriter};
pub use disk::{
    DiskCache, DiskCacheBuilder, DiskCacheDurabilityReport, DiskCacheError,
    PersistentPipelineCacheStore,
};
#[cfg(feature = "remote-cache")]
pub use http::{Credentials, RemoteCache, RemoteCacheBuilder, RemoteCacheError};
pub use key::{
    CompileScope, OpaqueProgram, PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter,
};
pub use layered::{
    CompileContext, CompileError, CompileInput, CompilePolicy, CompileSource, Compiled,
    LayeredPipelineCache, LayeredPipelineCacheBuilder, LayeredPromotionReport, Lookup,
    LookupOptions, LookupPolicy, LookupPriority, LookupSource, TierSelection, WritePolicy,
};
pub use locked_crates::LockedCrates;
#[doc(hidden)]
pub use locked_crates::NotLocked;
pub use memory::{InMemoryEvictionReason, InMemoryEvictionReport, InMemoryPipelineCache};
pub use source_alias::{AliasMetrics, SourceAliases};
pub use store::{
    CompileLease, CompileLeases, Fetched, Locality, PipelineCacheMetricError, PipelineCacheMetrics,
    PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};

/// The examples of the README are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
