//! A content-addressed cache of compiled artifacts, for asynchronous compile servers, language
//! servers and fleets that share artifacts over a network.

mod artifact;
mod fingerprint;
mod metrics;
mod off_worker;
pub mod program;
#[cfg(feature = "remote-cache")]
mod remote;
mod store;

pub use artifact::{Artifact, ArtifactMetadata, FrameError, SharedSecret};
pub use fingerprint::{ParseFingerprintError, PipelineFingerprint};
pub use metrics::{PipelineCacheMetricError, PipelineCacheMetrics};
pub use program::{CompileScope, OpaqueProgram, Program, ToWire, Unkeyable, WireWriter};
#[cfg(feature = "remote-cache")]
pub use remote::{RemoteCache, RemoteCacheBuilder, RemoteCacheError};
pub use store::{
    Fetched, Locality, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};
