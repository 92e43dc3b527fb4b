//! The compile request: one call from a source to an artifact, on a pool that does no work twice.

mod answers;
#[cfg(feature = "naga")]
mod as_designed;
mod cancellation;
mod closing;
mod every_await;
mod failures;
mod leases;
mod network_budget;
mod pool;
mod recursion;
mod savings;
mod sources;
mod storm;
pub(crate) mod support;
mod writes;
