//! A content-addressed cache of compiled artifacts, for asynchronous compile servers, language
//! servers and fleets that share artifacts over a network.

mod artifact;
mod disk;
mod fingerprint;
mod layered;
mod memory;
mod metrics;
mod off_worker;
pub mod program;
#[cfg(feature = "remote-cache")]
mod remote;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use artifact::{Artifact, ArtifactMetadata, FrameError, SharedSecret};
pub use disk::{
    DiskCache, DiskCacheBuilder, DiskCacheDurabilityReport, DiskCacheEntry, DiskCacheError,
    DiskCacheHealth, DiskCacheTrimReport, DiskCacheVerification, PersistentPipelineCacheStore,
};
pub use fingerprint::{ParseFingerprintError, PipelineFingerprint};
pub use layered::{
    CloseReport, CompileError, CompileInput, CompilePolicy, CompileSource, Compiled,
    LatencySummary, LayeredMetrics, LayeredPipelineCache, LayeredPipelineCacheBuilder,
    LayeredPromotionReport, Lookup, LookupOptions, LookupPolicy, LookupPriority, LookupSource,
    TierMetrics, TierOutcome, TierReport, TierSelection, VerifyMismatch, WriteBehindReport,
    WritePolicy,
};
pub use memory::{InMemoryEvictionReason, InMemoryEvictionReport, InMemoryPipelineCache};
pub use metrics::{PipelineCacheMetricError, PipelineCacheMetrics};
pub use program::{CompileScope, OpaqueProgram, Program, ToWire, Unkeyable, WireWriter};
#[cfg(feature = "remote-cache")]
pub use remote::{RemoteCache, RemoteCacheBuilder, RemoteCacheError};
pub use store::{
    Fetched, Locality, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};
