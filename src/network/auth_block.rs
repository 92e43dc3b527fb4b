//! Credentials that the server rejected: no more requests are made with them.
//!
//! Reads and writes are told apart, since many tokens may only read. Where one version of the
//! credentials cannot be told from the next, requests are still made; the error is logged once.

use std::sync::{Mutex, PoisonError};

use super::request_error::RequestError;
use crate::store::{StoreErrorKind, StoreOperation};

#[derive(Debug, Default)]
pub(super) struct AuthBlock {
    reads: Mutex<Option<BlockedCredentials>>,
    writes: Mutex<Option<BlockedCredentials>>,
}

/// The version of the rejected credentials, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockedCredentials(Option<u64>);

impl AuthBlock {
    fn of(&self, operation: StoreOperation) -> &Mutex<Option<BlockedCredentials>> {
        match operation {
            StoreOperation::Put | StoreOperation::Remove => &self.writes,
            _ => &self.reads,
        }
    }

    /// Fails where the server would reject the credentials.
    pub(super) fn check(
        &self,
        operation: StoreOperation,
        version: Option<u64>,
    ) -> Result<(), RequestError> {
        let blocked = self.of(operation).lock();
        let blocked = *blocked.unwrap_or_else(PoisonError::into_inner);
        if version.is_some() && blocked == Some(BlockedCredentials(version)) {
            return Err(RequestError::new(
                StoreErrorKind::PermissionDenied,
                "request not sent: the server rejected these credentials; replace them",
            )
            .blocking_credentials());
        }
        Ok(())
    }

    /// Learns how a request with these credentials ended. Returns whether they are rejected for the
    /// first time, which is to be logged.
    pub(super) fn learn<T>(
        &self,
        operation: StoreOperation,
        version: Option<u64>,
        result: &Result<T, RequestError>,
    ) -> bool {
        let mut blocked = self
            .of(operation)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) if error.blocks_credentials => {
                blocked.replace(BlockedCredentials(version)) != Some(BlockedCredentials(version))
            }
            Err(_) => false,
            Ok(_) => {
                *blocked = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreOperation::{Get, Put};

    fn rejected() -> Result<(), RequestError> {
        Err(RequestError::new(StoreErrorKind::PermissionDenied, "401").blocking_credentials())
    }

    /// As by another server, or by a proxy on the way.
    #[test]
    fn a_rejection_by_another_server_blocks_nothing() {
        let block = AuthBlock::default();
        let rejected = RequestError::new(StoreErrorKind::PermissionDenied, "407");
        assert!(!block.learn::<()>(Get, Some(1), &Err(rejected)));
        assert!(block.check(Get, Some(1)).is_ok());
    }

    #[test]
    fn rejected_credentials_are_logged_once_and_blocked_until_they_change() {
        let block = AuthBlock::default();
        assert!(block.check(Get, Some(1)).is_ok());
        assert!(block.learn(Get, Some(1), &rejected()));
        assert!(!block.learn(Get, Some(1), &rejected()));
        assert!(block.check(Get, Some(1)).is_err());
        assert!(block.check(Get, Some(2)).is_ok());
        assert!(block.learn(Get, Some(2), &rejected()));
        assert!(!block.learn(Get, Some(3), &Ok(())));
        assert!(block.check(Get, Some(3)).is_ok());
    }

    #[test]
    fn credentials_that_may_not_write_may_still_read() {
        let block = AuthBlock::default();
        assert!(block.learn(Put, Some(1), &rejected()));
        assert!(block.check(Put, Some(1)).is_err());
        assert!(block.check(Get, Some(1)).is_ok());
    }

    #[test]
    fn credentials_without_a_version_are_tried_again() {
        let block = AuthBlock::default();
        assert!(block.learn(Get, None, &rejected()));
        assert!(block.check(Get, None).is_ok());
        assert!(!block.learn(Get, None, &rejected()));
        block.learn(Get, None, &Ok(()));
        assert!(block.learn(Get, None, &rejected()));
    }
}
