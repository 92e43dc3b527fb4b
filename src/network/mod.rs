//! What every tier across a network has in common, so that its bad days cost little.
//!
//! A call of a tier goes through `tier`, which knows what each answer means to the cache, and
//! `call_policy`, which decides whether the server is asked at all and how often. The other files hold
//! one idea each. A tier adds only a `Backend`: how one request is made.

mod auth_block;
mod backend;
mod body;
mod breaker;
mod call_policy;
mod http_status;
mod recent_keys;
mod request_error;
mod retry;
mod settings;
mod tier;
mod uploads;

pub use breaker::{BreakerPolicy, BreakerState};
pub use retry::RetryPolicy;
pub use uploads::{UploadPolicy, UploadReport};

pub(crate) use backend::{Backend, Upload};
pub(crate) use body::Body;
pub(crate) use http_status::HttpStatusError;
pub(crate) use request_error::RequestError;
pub(crate) use settings::{NetworkSettings, network_settings};
pub(crate) use tier::NetworkTier;
