//! How entries become durable.
//!
//! - [`ledger`]: what has been put and is not yet durable
//! - [`flush`]: makes it durable

pub(super) mod flush;
pub(super) mod ledger;
