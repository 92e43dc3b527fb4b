//! A content-addressed cache of compiled artifacts, for asynchronous compile servers, language
//! servers and fleets that share artifacts over a network.

mod artifact;
mod disk;
mod fingerprint;
mod metrics;
mod off_worker;
pub mod program;
mod store;

pub use artifact::{Artifact, ArtifactMetadata, FrameError, SharedSecret};
pub use disk::{
    DiskCache, DiskCacheBuilder, DiskCacheDurabilityReport, DiskCacheError, DiskCacheTrimReport,
    PersistentPipelineCacheStore,
};
pub use fingerprint::{ParseFingerprintError, PipelineFingerprint};
pub use metrics::{PipelineCacheMetricError, PipelineCacheMetrics};
pub use program::{CompileScope, OpaqueProgram, Program, ToWire, Unkeyable, WireWriter};
pub use store::{
    Fetched, Locality, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};
