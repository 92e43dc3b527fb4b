//! What every tier across a network has in common, so that its bad days cost little.
//!
//! A call of a tier goes through `tier`, which knows what each answer means to the cache, and
//! `guard`, which decides whether the server is asked at all and how often. The other files hold
//! one idea each. A tier adds only a `Backend`: how one request is made.

mod backend;
mod body;
mod breaker;
mod denial;
mod failure;
mod guard;
mod recent;
mod refusal;
mod retry;
mod settings;
mod tier;
mod uploads;

pub use breaker::{BreakerPolicy, BreakerState};
pub use retry::RetryPolicy;
pub use uploads::{UploadPolicy, UploadReport};

pub(crate) use backend::{Backend, Upload};
pub(crate) use body::Body;
pub(crate) use failure::Failure;
pub(crate) use guard::after;
pub(crate) use refusal::Refusal;
pub(crate) use settings::{NetworkSettings, network_settings};
pub(crate) use tier::NetworkTier;
