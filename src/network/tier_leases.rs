//! The compile leases of a network tier, whatever its server.

use async_trait::async_trait;

use super::access::Access;
use super::backend::Backend;
use super::breaker_policy::BreakerState;
use super::tier::NetworkTier;
use crate::key::PipelineFingerprint;
use crate::store::runtime::require_runtime;
use crate::store::{CompileLease, CompileLeases, StoreError, StoreOperation};

impl<B: Backend> NetworkTier<B> {
    /// Itself, where it grants leases.
    pub(crate) fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.leases.is_some().then_some(self as _)
    }
}

#[async_trait]
impl<B: Backend> CompileLeases for NetworkTier<B> {
    /// A server that answers no lookups is not asked for leases.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let operation = StoreOperation::CompileLease;
        require_runtime(|| self.name.clone(), operation)?;
        let Some(leases) = &self.leases else {
            return Ok(None);
        };
        if self.breaker_state() != BreakerState::Closed {
            let error = self.policy.of(Access::Read).breaker.error();
            return Err(self.error(error.kind, operation).with_source(error));
        }
        let lease = leases.acquire(key, self.has_bad_entry(key)).await;
        // Another may have stored the artifact meanwhile.
        self.forget_miss(key);
        lease
    }
}
