//! A lock that no panic poisons for others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic. For state that is whole after every statement, or that no code
/// panics in.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
