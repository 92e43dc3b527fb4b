//! The credentials of one attempt: taken once, so that a rotation in between does not book the
//! server's answer to the old ones on the new ones.

use std::sync::{Mutex, PoisonError};

use super::backend::{Backend, CredentialsVersion};
use super::request_error::RequestError;

/// The attempts of one call, one after the other.
pub(super) struct Attempt<'a, B: Backend> {
    backend: &'a B,
    credentials: Mutex<Option<B::Credentials>>,
}

impl<'a, B: Backend> Attempt<'a, B> {
    pub(super) const fn new(backend: &'a B) -> Self {
        Self {
            backend,
            credentials: Mutex::new(None),
        }
    }

    /// Those whose version was looked at, once; else new ones.
    pub(super) fn credentials(&self) -> Result<B::Credentials, RequestError> {
        let mut credentials = self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match credentials.take() {
            Some(credentials) => Ok(credentials),
            None => self.backend.credentials(),
        }
    }
}

impl<B: Backend> CredentialsVersion for Attempt<'_, B> {
    /// An attempt begins.
    fn version(&self) -> Result<Option<u64>, RequestError> {
        // Not under the lock: a callback is foreign code.
        let next = self.backend.credentials()?;
        let version = self.backend.version(&next);
        *self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(version)
    }
}
