//! The beginning of an answer: what a tier across a network tells before its whole answer is there.

use std::future::Future;
use std::sync::Arc;

/// Called when an answer begins.
pub(crate) type OnAnswer = Arc<dyn Fn() + Send + Sync>;

tokio::task_local! {
    static ON_ANSWER: OnAnswer;
}

/// Tells the layered store that calls this tier that the tier's answer has begun to arrive.
///
/// A network tier of your own calls it in two places:
///
/// - inside of [`fetch`](crate::PipelineCacheStore::fetch), for instance when the head of an HTTP
///   response is there;
/// - inside of [`compile_lease`](crate::CompileLeases::compile_lease), when the server says that another
///   process holds the lease, so that the wait for it begins. A lease that is granted at once needs no
///   call.
///
/// A compile request then waits for the rest of the answer, and its network budget does not end the
/// wait: see [`CompileRequest::network_budget`](crate::layered::CompileRequest::network_budget). The
/// wait for another process is bounded by
/// [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait) alone. Without the call,
/// an answer begins when it is complete.
///
/// Further calls change nothing. Does nothing outside of these two methods, and in tasks that the tier
/// spawns itself.
///
/// ```
/// use pipeline_cache::store::answer_begins;
///
/// /// Inside of the `fetch` of a network tier of your own.
/// async fn body_of(response: impl Future<Output = Vec<u8>>) -> Vec<u8> {
///     // The status is here, the body is not.
///     answer_begins();
///     response.await
/// }
/// ```
pub fn answer_begins() {
    // Nobody is told outside of them.
    let _ = ON_ANSWER.try_with(|on_answer| on_answer());
}

/// What is called when an answer begins, in the current task.
pub(crate) fn current() -> Option<OnAnswer> {
    ON_ANSWER.try_with(Arc::clone).ok()
}

/// Runs the call of a tier, and calls `on_answer` when the tier's answer begins.
pub(crate) async fn observed<T>(on_answer: OnAnswer, call: impl Future<Output = T>) -> T {
    ON_ANSWER.scope(on_answer, call).await
}

/// Runs a call so that it reports to the lookup of the current task, also when it is spawned as a
/// task of its own.
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub(crate) fn inherited<T>(call: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let on_answer = current();
    async move {
        match on_answer {
            Some(on_answer) => observed(on_answer, call).await,
            None => call.await,
        }
    }
}
