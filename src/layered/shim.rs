//! The primitives under the shared state of compiles, in a file of their own so that a model checker
//! can replace them: see `tests/compile_model.rs`.

pub(super) use std::sync::{Mutex, MutexGuard};
