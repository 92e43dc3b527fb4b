//! A content-addressed cache of compiled artifacts, for asynchronous compile servers, language
//! servers and fleets that share artifacts over a network.

mod artifact;
mod disk;
mod fingerprint;
mod layered;
mod memory;
mod metrics;
#[cfg(feature = "remote-cache")]
mod network;
mod off_worker;
pub mod program;
#[cfg(feature = "remote-cache")]
mod remote;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "remote-cache")]
pub use artifact::Trust;
pub use artifact::{Artifact, ArtifactMetadata, FrameError, SharedSecret, TrustedKeys};
pub use disk::{
    DiskCache, DiskCacheBuilder, DiskCacheDurabilityReport, DiskCacheError, DiskCacheTrimReport,
    PersistentPipelineCacheStore,
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
#[cfg(feature = "remote-cache")]
pub use network::{BreakerPolicy, BreakerState, RetryPolicy, UploadPolicy, UploadReport};
pub use program::{CompileScope, OpaqueProgram, Program, ToWire, Unkeyable, WireWriter};
#[cfg(feature = "remote-cache")]
pub use remote::{Credentials, RemoteCache, RemoteCacheBuilder, RemoteCacheError};
pub use store::{
    Fetched, Locality, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};
