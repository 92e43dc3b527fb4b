//! The policies of network tiers: retries and the circuit breaker. Needs the feature `remote-cache`,
//! `object-store` or `redis`.

// What every network tier needs, so that the faults of its servers cost little. A call goes through
// `tier`, which knows what each response means to the cache, and `call_policy`, which decides whether
// a request is made and how often. A tier adds a `Backend`: how one request is made. Nothing here
// names a type of a client library.

mod access;
mod attempt;
mod auth_block;
mod backend;
mod batch;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
mod body;
mod breaker;
mod breaker_policy;
mod call;
mod call_policy;
mod caller;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
mod content_encoding;
mod failure_window;
mod healer;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
mod http_status;
mod later_entries;
mod leases;
mod many;
#[cfg(feature = "remote-cache")]
mod pieces;
mod remembered_misses;
mod request_error;
mod requirement;
mod retry;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
mod server_support;
mod settings;
mod store;
mod tier;
mod tier_leases;
mod time;
mod unhealed;

pub use breaker_policy::{BreakerPolicy, BreakerState};
pub use retry::RetryPolicy;

#[cfg(any(feature = "remote-cache", feature = "redis"))]
pub(crate) use backend::ConnectionCounts;
pub(crate) use backend::{Backend, Upload};
#[cfg(feature = "remote-cache")]
pub(crate) use batch::{Batch, BatchAnswer};
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use body::{drain, read_capped, read_start};
pub(crate) use caller::AnswerProgress;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use content_encoding::content_encoding;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use http_status::HttpStatusError;
pub(crate) use leases::TierLeases;
#[cfg(feature = "remote-cache")]
pub(crate) use leases::pause_after;
pub(crate) use leases::{LeaseAnswer, LeaseBackend, LeaseRequest, LeaseWatch, NetworkLeases};
#[cfg(feature = "remote-cache")]
pub(crate) use pieces::Pieces;
pub(crate) use request_error::RequestError;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use server_support::{ASK_AGAIN, ServerSupport};
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use settings::http_settings;
pub(crate) use settings::{NetworkSettings, network_settings};
pub(crate) use store::delegate_to_network_tier;
pub(crate) use tier::NetworkTier;
