//! Many calls at a time, and no more than so many.

use futures::stream::{self, StreamExt as _};
use std::future::Future;

/// How many lookups of one [`fetch_many`](super::PipelineCacheStore::fetch_many) are under way at a
/// time, where each is a call of its own.
pub(crate) const FETCHES_AT_ONCE: usize = 16;

/// The results of these calls, in their order.
pub(crate) async fn in_order<F>(calls: impl Iterator<Item = F> + Send) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send,
{
    // Not borrowed by a closure while it waits: the future would be `Send` for one lifetime only.
    let calls: Vec<_> = calls.collect();
    stream::iter(calls)
        .buffered(FETCHES_AT_ONCE)
        .collect()
        .await
}
