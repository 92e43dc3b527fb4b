//! Credentials that the server refused: they are not shown to it again.
//!
//! Reads and writes are told apart, since many tokens may only read. A server whose credentials
//! nobody here can tell from others is asked again every time, and only the saying is done once.

use std::sync::{Mutex, PoisonError};

use super::RequestError;
use crate::store::{StoreErrorKind, StoreOperation};

#[derive(Debug, Default)]
pub(super) struct AuthBlock {
    reads: Mutex<Option<BlockedCredentials>>,
    writes: Mutex<Option<BlockedCredentials>>,
}

/// The version of the credentials that were refused, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockedCredentials(Option<u64>);

impl AuthBlock {
    fn of(&self, operation: StoreOperation) -> &Mutex<Option<BlockedCredentials>> {
        match operation {
            StoreOperation::Put | StoreOperation::Remove => &self.writes,
            _ => &self.reads,
        }
    }

    /// Refuses what the server would refuse.
    pub(super) fn check(
        &self,
        operation: StoreOperation,
        version: Option<u64>,
    ) -> Result<(), RequestError> {
        let denied = self.of(operation).lock();
        let denied = *denied.unwrap_or_else(PoisonError::into_inner);
        if version.is_some() && denied == Some(BlockedCredentials(version)) {
            return Err(RequestError::new(
                StoreErrorKind::PermissionDenied,
                "not asked: the server refused these credentials",
            )
            .blocking_credentials());
        }
        Ok(())
    }

    /// Learns how a request with these credentials ended; whether that is a refusal to be told.
    pub(super) fn learn<T>(
        &self,
        operation: StoreOperation,
        version: Option<u64>,
        result: &Result<T, RequestError>,
    ) -> bool {
        let mut denied = self
            .of(operation)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(failure) if failure.is_denial => {
                denied.replace(BlockedCredentials(version)) != Some(BlockedCredentials(version))
            }
            Err(_) => false,
            Ok(_) => {
                *denied = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoreOperation::{Get, Put};

    fn refused() -> Result<(), RequestError> {
        Err(RequestError::new(StoreErrorKind::PermissionDenied, "401").blocking_credentials())
    }

    /// As by another server, or by a proxy on the way.
    #[test]
    fn a_refusal_of_something_else_is_not_kept_in_mind() {
        let denial = AuthBlock::default();
        let refused = RequestError::new(StoreErrorKind::PermissionDenied, "407");
        assert!(!denial.learn::<()>(Get, Some(1), &Err(refused)));
        assert!(denial.check(Get, Some(1)).is_ok());
    }

    #[test]
    fn refused_credentials_are_told_once_and_kept_back_until_they_change() {
        let denial = AuthBlock::default();
        assert!(denial.check(Get, Some(1)).is_ok());
        assert!(denial.learn(Get, Some(1), &refused()));
        assert!(!denial.learn(Get, Some(1), &refused()));
        assert!(denial.check(Get, Some(1)).is_err());
        assert!(denial.check(Get, Some(2)).is_ok());
        assert!(denial.learn(Get, Some(2), &refused()));
        assert!(!denial.learn(Get, Some(3), &Ok(())));
        assert!(denial.check(Get, Some(3)).is_ok());
    }

    #[test]
    fn who_may_not_write_may_still_read() {
        let denial = AuthBlock::default();
        assert!(denial.learn(Put, Some(1), &refused()));
        assert!(denial.check(Put, Some(1)).is_err());
        assert!(denial.check(Get, Some(1)).is_ok());
    }

    #[test]
    fn credentials_that_nobody_can_tell_apart_are_tried_again() {
        let denial = AuthBlock::default();
        assert!(denial.learn(Get, None, &refused()));
        assert!(denial.check(Get, None).is_ok());
        assert!(!denial.learn(Get, None, &refused()));
        denial.learn(Get, None, &Ok(()));
        assert!(denial.learn(Get, None, &refused()));
    }
}
