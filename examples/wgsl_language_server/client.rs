//! What the server tells its client: notifications, requests, and diagnostics in their order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lsp_server::Message;
use lsp_types::{
    LogMessageNotification, LogMessageParams, MessageType, Notification,
    PublishDiagnosticsNotification, PublishDiagnosticsParams, Request, ShowMessageNotification,
    ShowMessageParams, Uri,
};

use crate::transport::Outbox;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) outbox: Outbox,
    next_request: AtomicI32,
    /// The latest check of each document that is told about.
    latest: Mutex<HashMap<Uri, Check>>,
    next_check: Mutex<u64>,
}

/// A check of a document. A later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check(u64);

impl Client {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            next_request: AtomicI32::new(1),
            latest: Mutex::default(),
            next_check: Mutex::default(),
        }
    }

    pub(crate) async fn notify<N: Notification>(&self, params: N::Params) {
        self.outbox.send(notification::<N>(params)).await;
    }

    /// A request whose response is not waited for.
    pub(crate) async fn ask<R: Request>(&self, params: R::Params) {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let method = R::METHOD.to_string();
        let request = lsp_server::Request::new(id.into(), method, params);
        self.outbox.send(request).await;
    }

    pub(crate) async fn log(&self, kind: MessageType, message: impl Into<String>) {
        let message = message.into();
        self.notify::<LogMessageNotification>(LogMessageParams { kind, message })
            .await;
    }

    /// Says something to the user, and to the log.
    pub(crate) async fn show(&self, kind: MessageType, message: impl Into<String>) {
        let message = message.into();
        self.log(kind, message.clone()).await;
        self.notify::<ShowMessageNotification>(ShowMessageParams { kind, message })
            .await;
    }

    /// From here on nothing is told of earlier checks of this document.
    pub(crate) fn begin_check(&self, uri: &Uri) -> Check {
        let mut number = self
            .next_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let check = Check(*number);
        self.latest().insert(uri.clone(), check);
        check
    }

    /// Tells what a check has found, unless there is a later one.
    pub(crate) async fn publish(&self, check: Check, params: PublishDiagnosticsParams) {
        // A place first: the message follows the look at the latest check without a wait.
        let Some(place) = self.outbox.place().await else {
            return;
        };
        let latest = self.latest();
        if latest.get(&params.uri) == Some(&check) {
            place.fill(notification::<PublishDiagnosticsNotification>(params));
        }
    }

    /// Clears what the client shows of a document that is closed.
    pub(crate) async fn clear(&self, check: Check, uri: Uri) {
        let params = PublishDiagnosticsParams::new(uri.clone(), None, Vec::new());
        self.publish(check, params).await;
        let mut latest = self.latest();
        if latest.get(&uri) == Some(&check) {
            latest.remove(&uri);
        }
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<Uri, Check>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn notification<N: Notification>(params: N::Params) -> Message {
    let method = N::METHOD.to_string();
    lsp_server::Notification::new(method, params).into()
}
