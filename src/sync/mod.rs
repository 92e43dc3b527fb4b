//! What several tiers need and tokio lacks.

pub(crate) mod blocking;
pub(crate) mod keyed_mutex;
pub(crate) mod lock;
pub(crate) mod operations;
mod shim;
pub(crate) mod single_flight;
pub(crate) mod threads;
pub(crate) mod trouble;
pub(crate) mod write_queue;
