//! The primitives under a flight, in a place of their own so that a model checker can put its own
//! in their stead: see `tests/single_flight_model.rs`.

pub(super) use std::sync::{Mutex, MutexGuard};
pub(super) use tokio::runtime::Handle;
pub(super) use tokio::task::AbortHandle;
