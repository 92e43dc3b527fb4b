//! One session with a client: messages are handled in their order, and nothing is computed here.
//!
//! A request gets an answer from a task of its own. A check of a document is a task too, which the next
//! change of the document drops, and with it its request to the cache.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, ResponseError};
use lsp_types::{
    CancelParams, CodeLensParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, ExecuteCommandParams, HoverParams, Id, LspNotificationMethod,
    LspRequestMethod, MessageType, PublishDiagnosticsParams, Uri, VersionedTextDocumentIdentifier,
};
use pipeline_cache::{RemoteCache, TierSelection};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::findings::Finding;
use crate::initialize::{ClientFeatures, folder, offer};
use crate::module::{COMPILE, STATUS, Snapshot, compile, hover, lenses};
use crate::server::{Server, refusal};
use crate::text::{Change, Encoding, apply};
use crate::transport::Incoming;
use crate::watch::{client_has_ended, watch_remote};
use crate::workspace::warm;

#[derive(Debug)]
pub(crate) struct Session {
    server: Arc<Server>,
    remote: Option<RemoteCache>,
    state: State,
    features: ClientFeatures,
    documents: HashMap<Uri, Document>,
    /// What goes on for as long as the session.
    background: Vec<AbortOnDropHandle<()>>,
    /// Cancelled when the process of the client has ended.
    client_ended: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Running,
    ShutDown,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the client asked, in the order of the protocol.
    Orderly,
    /// The client is gone, or said `exit` without `shutdown`.
    Abrupt,
}

const OUT_OF_STEP: &str =
    "not checked: an edit could not be read. Close the file and open it again";

#[derive(Debug)]
struct Document {
    text: String,
    /// Whether it is what the editor has.
    is_in_step: bool,
    /// Dropped by the next change.
    _check: AbortOnDropHandle<()>,
}

/// As in the protocol, but for the type of a change.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DidChangeParams {
    text_document: VersionedTextDocumentIdentifier,
    content_changes: Vec<Change>,
}

impl Session {
    pub(crate) fn new(server: Arc<Server>, remote: Option<RemoteCache>) -> Self {
        Self {
            server,
            remote,
            state: State::New,
            features: ClientFeatures::default(),
            documents: HashMap::new(),
            background: Vec::new(),
            client_ended: CancellationToken::new(),
        }
    }

    pub(crate) async fn run(mut self, incoming: mpsc::Receiver<Incoming>) -> End {
        let end = self.handle_all(incoming).await;
        // Whoever is gone waits for no answer.
        self.server.cancel_all();
        end
    }

    async fn handle_all(&mut self, mut incoming: mpsc::Receiver<Incoming>) -> End {
        loop {
            let next = tokio::select! {
                biased;
                () = self.client_ended.cancelled() => None,
                next = incoming.recv() => next,
            };
            match next {
                // Some clients close the pipe instead of `exit`.
                None if self.state == State::ShutDown => return End::Orderly,
                None => return End::Abrupt,
                Some(Incoming::Malformed(malformed)) => {
                    tracing::warn!(reason = malformed.reason, "malformed message");
                    self.server.client.outbox.send_error(malformed).await;
                    // It may have been an edit.
                    self.lose_step();
                }
                Some(Incoming::Message(Message::Request(request))) => self.request(request).await,
                // Nothing that the server asks needs its answer.
                Some(Incoming::Message(Message::Response(_))) => {}
                Some(Incoming::Message(Message::Notification(notification))) => {
                    match LspNotificationMethod::from(notification.method.as_str()) {
                        LspNotificationMethod::Exit if self.state == State::ShutDown => {
                            return End::Orderly;
                        }
                        LspNotificationMethod::Exit => return End::Abrupt,
                        _ => self.notified(notification).await,
                    }
                }
            }
        }
    }

    async fn request(&mut self, request: Request) {
        let Request { id, method, params } = request;
        let is_handshake = method == LspRequestMethod::Initialize.as_str();
        let refused = match self.state {
            State::New if !is_handshake => {
                Some(refusal(ErrorCode::ServerNotInitialized, "not initialized"))
            }
            State::Running if is_handshake => {
                Some(refusal(ErrorCode::InvalidRequest, "initialized already"))
            }
            State::ShutDown => Some(refusal(ErrorCode::InvalidRequest, "shut down")),
            State::New | State::Running => None,
        };
        let done = match refused {
            Some(error) => Err(error),
            None => self.dispatch(&id, &method, params).await,
        };
        if let Err(error) = done {
            self.server.respond(id, Err(error)).await;
        }
    }

    /// Answers a request, or begins to.
    async fn dispatch(
        &mut self,
        id: &RequestId,
        method: &str,
        params: Value,
    ) -> Result<(), ResponseError> {
        let server = Arc::clone(&self.server);
        match LspRequestMethod::from(method) {
            LspRequestMethod::Initialize => {
                self.features = ClientFeatures::read(&params);
                self.state = State::Running;
                let offer = json!(offer(self.features.encoding));
                server.respond(id.clone(), Ok(offer)).await;
            }
            LspRequestMethod::Shutdown => {
                self.state = State::ShutDown;
                self.documents.clear();
                self.background.clear();
                server.cancel_all();
                server.respond(id.clone(), Ok(Value::Null)).await;
            }
            LspRequestMethod::TextDocumentHover => {
                let params: HoverParams = read(params)?;
                let of = params.text_document_position_params.text_document.uri;
                let work = hover(Arc::clone(&server), self.snapshot(of)?);
                server.answer(id.clone(), work).await;
            }
            LspRequestMethod::TextDocumentCodeLens => {
                let params: CodeLensParams = read(params)?;
                let lenses = json!(lenses(&params.text_document.uri));
                server.respond(id.clone(), Ok(lenses)).await;
            }
            LspRequestMethod::WorkspaceExecuteCommand => {
                let params: ExecuteCommandParams = read(params)?;
                self.command(id, params).await?;
            }
            _ => {
                let unknown = format!("no method {method}");
                return Err(refusal(ErrorCode::MethodNotFound, unknown));
            }
        }
        Ok(())
    }

    async fn command(
        &self,
        id: &RequestId,
        params: ExecuteCommandParams,
    ) -> Result<(), ResponseError> {
        let server = Arc::clone(&self.server);
        match params.command.as_str() {
            STATUS => server.respond(id.clone(), Ok(server.status())).await,
            COMPILE => {
                let arguments = json!(params.arguments);
                let (uri, target): (Uri, String) = read(arguments)?;
                let opens = self.features.opens_documents;
                let snapshot = self.snapshot(uri)?;
                let work = compile(Arc::clone(&server), snapshot, target, opens);
                server.answer(id.clone(), work).await;
            }
            other => {
                let unknown = format!("no command {other:?}");
                return Err(refusal(ErrorCode::InvalidParams, unknown));
            }
        }
        Ok(())
    }

    fn snapshot(&self, uri: Uri) -> Result<Snapshot, ResponseError> {
        let Some(document) = self.documents.get(&uri) else {
            let closed = format!("{uri} is not open");
            return Err(refusal(ErrorCode::InvalidParams, closed));
        };
        let source = Bytes::copy_from_slice(document.text.as_bytes());
        if self.server.checker.is_too_large(&source) {
            let large = format!("{uri} is larger than --max-source");
            return Err(refusal(ErrorCode::RequestFailed, large));
        }
        Ok(Snapshot { uri, source })
    }

    async fn notified(&mut self, notification: Notification) {
        if self.state != State::Running {
            return;
        }
        let Notification { method, params } = notification;
        let handled = match LspNotificationMethod::from(method.as_str()) {
            LspNotificationMethod::Initialized => {
                self.initialized();
                Ok(())
            }
            LspNotificationMethod::TextDocumentDidOpen => read(params).map(|it| self.opened(it)),
            LspNotificationMethod::TextDocumentDidChange => {
                read(params).and_then(|it| self.changed(it))
            }
            LspNotificationMethod::TextDocumentDidSave => read(params).map(|it| self.saved(&it)),
            LspNotificationMethod::TextDocumentDidClose => read(params).map(|it| self.closed(it)),
            LspNotificationMethod::CancelRequest => {
                read(params).map(|it: CancelParams| self.server.cancel(&number(it.id)))
            }
            LspNotificationMethod::WorkspaceDidChangeWorkspaceFolders => {
                let added = params.pointer("/event/added").and_then(Value::as_array);
                let added = added.into_iter().flatten();
                let folders = added.filter_map(|added| folder(added.get("uri")?));
                self.warm(folders.collect());
                Ok(())
            }
            // Others may be ignored.
            _ => Ok(()),
        };
        if let Err(error) = handled {
            if method == LspNotificationMethod::TextDocumentDidChange.as_str() {
                self.lose_step();
            }
            let told = format!("{method}: {}", error.message);
            tracing::warn!(told, "a notification is ignored");
            self.server.client.log(MessageType::Error, told).await;
        }
    }

    fn initialized(&mut self) {
        if !self.background.is_empty() {
            return;
        }
        let process = self.features.process;
        let ended = self.client_ended.clone();
        self.go_on(async move {
            client_has_ended(process).await;
            ended.cancel();
        });
        if let Some(remote) = self.remote.take() {
            self.go_on(watch_remote(Arc::clone(&self.server), remote));
        }
        let folders = std::mem::take(&mut self.features.folders);
        self.warm(folders);
    }

    fn warm(&mut self, folders: Vec<PathBuf>) {
        if !folders.is_empty() {
            let shows_progress = self.features.shows_progress;
            self.go_on(warm(Arc::clone(&self.server), folders, shows_progress));
        }
    }

    fn go_on(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.background.retain(|work| !work.is_finished());
        self.background
            .push(AbortOnDropHandle::new(tokio::spawn(work)));
    }

    fn opened(&mut self, params: DidOpenTextDocumentParams) {
        let item = params.text_document;
        self.put(item.uri, item.text, item.version, TierSelection::All);
    }

    fn changed(&mut self, params: DidChangeParams) -> Result<(), ResponseError> {
        let VersionedTextDocumentIdentifier {
            version,
            text_document_identifier: document,
        } = params.text_document;
        let uri = document.uri;
        let Some(document) = self.documents.get_mut(&uri) else {
            let closed = format!("{uri} is not open");
            return Err(refusal(ErrorCode::InvalidParams, closed));
        };
        // From the first change that is a whole text on.
        let is_whole = |change: &Change| change.is_whole();
        if !document.is_in_step && !params.content_changes.iter().any(is_whole) {
            return Ok(());
        }
        let mut text = std::mem::take(&mut document.text);
        for change in params.content_changes {
            apply(&mut text, change, self.features.encoding);
        }
        // What is only being typed stays on this machine.
        self.put(uri, text, version, TierSelection::Local);
        Ok(())
    }

    /// An edit could not be read: what the server has is no longer what the editor has, and ranges of
    /// later edits would be of another text. Each document is told to be out of step until its whole
    /// text comes.
    fn lose_step(&mut self) {
        for (uri, document) in &mut self.documents {
            document.is_in_step = false;
            let (server, uri) = (Arc::clone(&self.server), uri.clone());
            let check = server.client.begin_check(&uri);
            document._check = AbortOnDropHandle::new(tokio::spawn(async move {
                let finding = Finding::of_source(OUT_OF_STEP.to_owned());
                let diagnostic = finding.diagnostic(&uri, "", Encoding::default());
                let params = PublishDiagnosticsParams::new(uri, None, vec![diagnostic]);
                server.client.publish(check, params).await;
            }));
        }
    }

    /// The document has this text now. The check of the text before ends.
    fn put(&mut self, uri: Uri, text: String, version: i32, writes: TierSelection) {
        let source = Bytes::copy_from_slice(text.as_bytes());
        let check = self.check(uri.clone(), source, version, writes);
        let document = Document {
            text,
            is_in_step: true,
            _check: check,
        };
        self.documents.insert(uri, document);
    }

    fn check(
        &self,
        uri: Uri,
        source: Bytes,
        version: i32,
        writes: TierSelection,
    ) -> AbortOnDropHandle<()> {
        let (server, encoding) = (Arc::clone(&self.server), self.features.encoding);
        let check = server.client.begin_check(&uri);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let findings = match server.checker.check(source.clone(), writes).await {
                Ok(findings) => findings,
                Err(reason) => {
                    let told = format!("{uri} is not checked: {reason}");
                    server.client.log(MessageType::Error, told).await;
                    // What was found in an older version is not true of this one.
                    vec![Finding::of_source(format!("not checked: {reason}"))]
                }
            };
            let text = String::from_utf8_lossy(&source);
            let diagnostics = findings
                .iter()
                .map(|finding| finding.diagnostic(&uri, &text, encoding))
                .collect();
            let params = PublishDiagnosticsParams::new(uri, Some(version), diagnostics);
            server.client.publish(check, params).await;
        }))
    }

    fn saved(&self, params: &DidSaveTextDocumentParams) {
        let Some(document) = self.documents.get(&params.text_document.uri) else {
            return;
        };
        let source = Bytes::copy_from_slice(document.text.as_bytes());
        let server = Arc::clone(&self.server);
        self.server.saves.spawn(async move {
            // Others may want to know it now.
            if let Err(error) = server.checker.keep(&source).await {
                tracing::info!(%error, "not kept");
            }
        });
    }

    fn closed(&mut self, params: DidCloseTextDocumentParams) {
        let uri = params.text_document.uri;
        if self.documents.remove(&uri).is_some() {
            let client = Arc::clone(&self.server);
            let check = client.client.begin_check(&uri);
            self.go_on(async move { client.client.clear(check, uri).await });
        }
    }
}

fn number(id: Id) -> RequestId {
    match id {
        Id::Int(id) => id.into(),
        Id::String(id) => id.into(),
    }
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ResponseError> {
    serde_json::from_value(params)
        .map_err(|error| refusal(ErrorCode::InvalidParams, error.to_string()))
}
