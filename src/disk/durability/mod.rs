//! What has been put and is not yet durable ([`ledger`]), and how it becomes so ([`flush`]).

pub(super) mod flush;
pub(super) mod ledger;
