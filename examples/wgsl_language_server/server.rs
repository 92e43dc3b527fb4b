//! What all parts of the server share.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lsp_server::{ErrorCode, RequestId, Response, ResponseError};
use pipeline_cache::LayeredPipelineCache;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::checker::Checker;
use crate::client::Client;
use crate::targets::Targets;

/// How many requests of the client are answered at a time.
const MAX_REQUESTS: usize = 256;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) checker: Checker,
    pub(crate) cache: LayeredPipelineCache,
    pub(crate) targets: Targets,
    pub(crate) max_files: usize,
    pub(crate) out: Out,
    /// What is done for a save, which a shutdown waits for.
    pub(crate) saves: TaskTracker,
    /// The requests that have no answer yet.
    requests: Mutex<HashMap<RequestId, CancellationToken>>,
}

/// Where compiled shaders are written.
#[derive(Debug)]
pub(crate) enum Out {
    Given(PathBuf),
    /// Removed with the value.
    Own(TempDir),
}

/// The answer to a request.
pub(crate) type Answer = Result<Value, ResponseError>;

impl Server {
    pub(crate) fn new(
        client: Client,
        checker: Checker,
        cache: LayeredPipelineCache,
        max_files: usize,
        out: Out,
    ) -> Self {
        Self {
            client,
            checker,
            cache,
            targets: Targets::default(),
            max_files,
            out,
            saves: TaskTracker::new(),
            requests: Mutex::default(),
        }
    }

    /// Answers a request in a task of its own: once, whatever becomes of the work.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        id: RequestId,
        work: impl Future<Output = Answer> + Send + 'static,
    ) {
        let cancel = CancellationToken::new();
        if let Err(error) = self.begin(&id, &cancel) {
            self.respond(id, Err(error)).await;
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let work = AbortOnDropHandle::new(tokio::spawn(work));
            let answer = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    Err(refusal(ErrorCode::RequestCanceled, "cancelled by the client"))
                }
                answer = work => answer.unwrap_or_else(|error: JoinError| {
                    Err(refusal(ErrorCode::InternalError, error.to_string()))
                }),
            };
            server.requests().remove(&id);
            server.respond(id, answer).await;
        });
    }

    fn begin(&self, id: &RequestId, cancel: &CancellationToken) -> Result<(), ResponseError> {
        let mut requests = self.requests();
        if requests.len() >= MAX_REQUESTS {
            return Err(refusal(
                ErrorCode::RequestFailed,
                format!("{MAX_REQUESTS} requests are without an answer"),
            ));
        }
        if requests.contains_key(id) {
            let twice = "a request of this number has no answer yet";
            return Err(refusal(ErrorCode::InvalidRequest, twice));
        }
        requests.insert(id.clone(), cancel.clone());
        Ok(())
    }

    pub(crate) async fn respond(&self, id: RequestId, answer: Answer) {
        let response = Response {
            id,
            response_result: answer,
        };
        self.client.outbox.send(response).await;
    }

    /// Drops the work of a request, and answers it so.
    pub(crate) fn cancel(&self, id: &RequestId) {
        if let Some(cancel) = self.requests().get(id) {
            cancel.cancel();
        }
    }

    pub(crate) fn cancel_all(&self) {
        self.requests().values().for_each(CancellationToken::cancel);
    }

    /// What the cache has done so far, for people and for tests.
    pub(crate) fn status(&self) -> Value {
        let metrics = self.cache.layered_metrics();
        let tiers = metrics.tiers.iter().map(|tier| {
            json!({
                "tier": tier.tier,
                "hits": tier.store.hits,
                "entries": tier.store.entries,
                "failed": tier.failed,
            })
        });
        json!({
            "compiles": metrics.compiles,
            "runningCompiles": metrics.running_compiles,
            "queuedCompiles": metrics.queued_compiles,
            "parses": metrics.aliases.misses,
            "requests": self.requests().len(),
            "tiers": tiers.collect::<Vec<_>>(),
        })
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<RequestId, CancellationToken>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn refusal(code: ErrorCode, message: impl Into<String>) -> ResponseError {
    ResponseError {
        code: code as i32,
        message: message.into(),
        data: None,
    }
}
