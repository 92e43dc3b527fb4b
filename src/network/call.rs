//! What a call is about, and what is logged of how it ended.
//!
//! Trouble is logged where it begins and where it ends. What fails in between is logged at debug
//! level.

use std::time::Duration;

use super::access::Access;
use super::backend::CredentialsVersion;
use super::caller::Caller;
use super::request_error::RequestError;
use crate::key::PipelineFingerprint;
use crate::store::{StoreErrorKind, StoreOperation};
use crate::sync::trouble::{Cure, Ended, Trouble};

#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) tier: &'a str,
    pub(super) operation: StoreOperation,
    pub(super) key: &'a PipelineFingerprint,
    pub(super) credentials: &'a dyn CredentialsVersion,
    pub(super) caller: &'a Caller,
    /// A single request is made, within this time. `None`: as the policy says.
    pub(super) single_request: Option<Duration>,
}

impl Call<'_> {
    pub(super) const fn access(&self) -> Access {
        Access::of(self.operation)
    }

    /// The call failed: its request, or the making of its credentials.
    pub(super) fn log_failed(
        &self,
        trouble: &Trouble,
        has_credentials: bool,
        error: &RequestError,
    ) {
        let (tier, key, operation) = (self.tier, self.key, self.operation);
        let (requests, kind) = (self.access(), error.kind);
        let cure = match error.blocks_credentials {
            true => Cure::Somebody,
            false => Cure::Time,
        };
        if !trouble.failed_with(cure) {
            tracing::debug!(tier, %key, %operation, %kind, reason = %error, "request failed");
        } else if error.blocks_credentials && has_credentials {
            tracing::error!(
                tier, %requests, %key, %operation, %kind, reason = %error,
                "credentials rejected; further failures are logged at debug level. Replace the credentials.{}",
                error.hint
            );
        } else {
            tracing::warn!(
                tier, %requests, %key, %operation, %kind, reason = %error,
                "request failed; further failures are logged at debug level until requests succeed again"
            );
        }
    }

    /// The call sent no request, because of what earlier ones have met.
    pub(super) fn log_unsent(&self, trouble: &Trouble, error: &RequestError) {
        trouble.refused();
        let (tier, key, operation, kind) = (self.tier, self.key, self.operation, error.kind);
        let why = match kind {
            StoreErrorKind::BreakerOpen => "circuit breaker open",
            StoreErrorKind::PermissionDenied => "credentials rejected a short while ago",
            _ => "no request permit",
        };
        tracing::debug!(tier, %key, %operation, %kind, reason = %error, "request not sent: {why}");
    }
}

/// A request has succeeded.
pub(super) fn log_success(tier: &str, access: Access, trouble: &Trouble) {
    if let Some(Ended { failed, lasted }) = trouble.succeeded() {
        tracing::info!(tier, requests = %access, failed, ?lasted, "requests succeed again");
    }
}
