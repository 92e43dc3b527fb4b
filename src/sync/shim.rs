//! The primitives under [`single_flight`](super::single_flight), in a file of their own so that a
//! model checker can replace them: see `tests/single_flight_model.rs`.

pub(super) use std::sync::{Mutex, MutexGuard};
pub(super) use tokio::runtime::Handle;
pub(super) use tokio::task::AbortHandle;
