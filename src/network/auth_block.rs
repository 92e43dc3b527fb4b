//! Credentials that the server rejected: for a minute, no more requests are made with them.
//!
//! A server may also answer 401 or 403 for one key: an S3 bucket says 403 for an object that is not
//! there. So a rejection says nothing about credentials that worked within the last minute, and
//! requests without credentials are never blocked. Credentials that write are taken to read as well,
//! and not the other way round: many may only read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::access::{Access, PerAccess};
use super::request_error::RequestError;
use super::time::after;
use crate::store::StoreErrorKind;

/// How long rejected credentials are not used, and how long a success speaks for them.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct AuthBlock(PerAccess<Mutex<Experience>>);

/// What the server made of one version of the credentials.
#[derive(Debug, Clone, Copy, Default)]
struct Experience {
    version: u64,
    last_success: Option<Instant>,
    blocked_until: Option<Instant>,
}

impl Experience {
    fn is_blocked(&self) -> bool {
        self.blocked_until.is_some_and(|end| Instant::now() < end)
    }

    fn worked_lately(&self) -> bool {
        self.last_success.is_some_and(|at| at.elapsed() < MEMORY)
    }
}

impl AuthBlock {
    pub(super) fn new() -> Self {
        Self(PerAccess::new(|_| Mutex::default()))
    }

    /// Fails where the server has just rejected the credentials of this version. `None`: there are
    /// none, or their version cannot be told.
    pub(super) fn check(&self, access: Access, version: Option<u64>) -> Result<(), RequestError> {
        let experience = self.0.of(access).lock();
        let experience = *experience.unwrap_or_else(PoisonError::into_inner);
        if version == Some(experience.version) && experience.is_blocked() {
            return Err(RequestError::new(
                StoreErrorKind::PermissionDenied,
                "request not sent: the server rejected these credentials within the last minute; replace them",
            )
            .unsent());
        }
        Ok(())
    }

    /// Learns how a request with these credentials ended.
    pub(super) fn learn<T>(
        &self,
        access: Access,
        version: Option<u64>,
        result: &Result<T, RequestError>,
    ) {
        let Some(version) = version else {
            return;
        };
        self.learn_for(access, version, result);
        if access == Access::Write && result.is_ok() {
            self.learn_for(Access::Read, version, result);
        }
    }

    fn learn_for<T>(&self, access: Access, version: u64, result: &Result<T, RequestError>) {
        let mut experience = self
            .0
            .of(access)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if version > experience.version {
            *experience = Experience {
                version,
                ..Experience::default()
            };
        }
        if version < experience.version {
            return;
        }
        match result {
            Err(error) if error.blocks_credentials => {
                if !experience.worked_lately() {
                    experience.blocked_until = Some(after(MEMORY));
                }
            }
            Err(_) => {}
            Ok(_) => {
                experience.last_success = Some(Instant::now());
                experience.blocked_until = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Write};
    use tokio::time::advance;

    fn rejected() -> Result<(), RequestError> {
        Err(RequestError::new(StoreErrorKind::PermissionDenied, "401").blocking_credentials())
    }

    /// As by another server, or by a proxy on the way.
    #[test]
    fn a_rejection_by_another_server_blocks_nothing() {
        let block = AuthBlock::new();
        let rejected = RequestError::new(StoreErrorKind::PermissionDenied, "407");
        block.learn::<()>(Read, Some(1), &Err(rejected));
        assert!(block.check(Read, Some(1)).is_ok());
    }

    #[test]
    fn rejected_credentials_are_blocked_until_they_change() {
        let block = AuthBlock::new();
        assert!(block.check(Read, Some(1)).is_ok());
        block.learn(Read, Some(1), &rejected());
        assert!(block.check(Read, Some(1)).is_err());
        assert!(block.check(Read, Some(2)).is_ok());
        block.learn(Read, Some(2), &rejected());
        assert!(block.check(Read, Some(2)).is_err());
        block.learn(Read, Some(3), &Ok(()));
        // A request from before the change ends only now.
        block.learn(Read, Some(2), &rejected());
        assert!(block.check(Read, Some(3)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_ends_after_a_minute_and_by_a_success() {
        let block = AuthBlock::new();
        for _ in 0..3 {
            block.learn(Read, Some(0), &rejected());
            advance(MEMORY - Duration::from_millis(1)).await;
            assert!(block.check(Read, Some(0)).is_err());
            advance(Duration::from_millis(1)).await;
            assert!(block.check(Read, Some(0)).is_ok());
        }
        block.learn(Read, Some(0), &rejected());
        block.learn(Read, Some(0), &Ok(()));
        assert!(block.check(Read, Some(0)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_worked_within_the_last_minute_are_not_blocked() {
        let block = AuthBlock::new();
        block.learn(Read, Some(0), &Ok(()));
        advance(MEMORY - Duration::from_millis(1)).await;
        block.learn(Read, Some(0), &rejected());
        assert!(block.check(Read, Some(0)).is_ok());
        advance(Duration::from_millis(1)).await;
        block.learn(Read, Some(0), &rejected());
        assert!(block.check(Read, Some(0)).is_err());
    }

    #[test]
    fn credentials_that_may_not_write_may_still_read() {
        let block = AuthBlock::new();
        block.learn(Write, Some(1), &rejected());
        assert!(block.check(Write, Some(1)).is_err());
        assert!(block.check(Read, Some(1)).is_ok());
    }

    /// As to a bucket that says 403 for what is not there, and that has nothing yet.
    #[test]
    fn credentials_that_have_just_written_may_read() {
        let block = AuthBlock::new();
        block.learn(Read, Some(1), &rejected());
        block.learn(Write, Some(1), &Ok(()));
        assert!(block.check(Read, Some(1)).is_ok());
        block.learn(Read, Some(1), &rejected());
        assert!(block.check(Read, Some(1)).is_ok());
        // Others have not.
        block.learn(Read, Some(2), &rejected());
        assert!(block.check(Read, Some(2)).is_err());
    }

    #[test]
    fn requests_without_credentials_are_never_blocked() {
        let block = AuthBlock::new();
        block.learn(Read, None, &rejected());
        assert!(block.check(Read, None).is_ok());
    }
}
