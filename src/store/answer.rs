//! The beginning of an answer: what a tier across a network tells before its whole answer is there.

use std::future::Future;
use std::sync::Arc;

/// Called when an answer begins.
pub(crate) type OnAnswer = Arc<dyn Fn() + Send + Sync>;

tokio::task_local! {
    static ON_ANSWER: OnAnswer;
}

/// Tells the lookup that calls this tier that the tier's answer has begun to arrive, for instance
/// because the head of an HTTP response is there.
///
/// A network tier of your own calls it inside of
/// [`fetch`](crate::PipelineCacheStore::fetch). A compile request then waits for the rest of the
/// answer, and its network budget does not end the wait: see
/// [`CompileRequest::network_budget`](crate::layered::CompileRequest::network_budget). Without the
/// call, an answer begins when it is complete.
///
/// Does nothing outside of a lookup, and in tasks that the tier spawns itself.
pub fn answer_begins() {
    // No lookup is told outside of one.
    let _ = ON_ANSWER.try_with(|on_answer| on_answer());
}

/// Runs the call of a tier, and calls `on_answer` when the tier's answer begins.
pub(crate) async fn observed<T>(on_answer: OnAnswer, call: impl Future<Output = T>) -> T {
    ON_ANSWER.scope(on_answer, call).await
}

/// Runs a call so that it reports to the lookup of the current task, also when it is spawned as a
/// task of its own.
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub(crate) fn inherited<T>(call: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let on_answer = ON_ANSWER.try_with(Arc::clone).ok();
    async move {
        match on_answer {
            Some(on_answer) => observed(on_answer, call).await,
            None => call.await,
        }
    }
}
