//! The policies of network tiers: retries and the circuit breaker.

// What every network tier needs, so that the faults of its servers cost little. A call goes through
// `tier`, which knows what each response means to the cache, and `call_policy`, which decides whether
// a request is made and how often. A tier adds a `Backend`: how one request is made. Nothing here
// names a type of an HTTP library.

mod access;
mod attempt;
mod auth_block;
mod backend;
mod body;
mod breaker;
mod breaker_policy;
mod call;
mod call_policy;
mod caller;
mod content_encoding;
mod failure_window;
mod healer;
mod http_status;
mod remembered_misses;
mod request_error;
mod requirement;
mod retry;
mod settings;
mod store;
mod tier;
mod time;
mod trouble;
mod unhealed;

pub use breaker_policy::{BreakerPolicy, BreakerState};
pub use retry::RetryPolicy;

#[cfg(feature = "remote-cache")]
pub(crate) use backend::ConnectionCounts;
pub(crate) use backend::{Backend, Upload};
pub(crate) use body::{drain, read_capped, read_start};
pub(crate) use caller::AnswerProgress;
pub(crate) use content_encoding::content_encoding;
pub(crate) use http_status::HttpStatusError;
pub(crate) use request_error::RequestError;
pub(crate) use settings::{NetworkSettings, network_settings};
pub(crate) use store::delegate_to_network_tier;
pub(crate) use tier::NetworkTier;
