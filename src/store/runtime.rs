//! Whether a call is made on a tokio runtime.

use tokio::runtime::Handle;

use super::{StoreError, StoreErrorKind, StoreOperation};

/// An error where the calling thread is on no tokio runtime: what the tier does next would panic
/// there.
pub(crate) fn require_runtime(
    tier: impl FnOnce() -> String,
    operation: StoreOperation,
) -> Result<(), StoreError> {
    if Handle::try_current().is_ok() {
        return Ok(());
    }
    Err(StoreError::new(
        StoreErrorKind::NoRuntime,
        tier(),
        operation,
    ))
}
