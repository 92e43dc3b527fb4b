//! The handshake: what the client can do, and what the server offers.
//!
//! Only what is needed is read, field by field: one capability that a client spells otherwise must not
//! keep it from all others.

use std::path::PathBuf;

use lsp_types::{
    ChangeNotifications, CodeLensOptions, ExecuteCommandOptions, InitializeResult,
    PositionEncodingKind, SaveOptions, ServerCapabilities, ServerInfo, TextDocumentSyncKind,
    TextDocumentSyncOptions, WorkDoneProgressOptions, WorkspaceFoldersServerCapabilities,
    WorkspaceOptions,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::module::{COMPILE, STATUS};
use crate::text::Encoding;

/// What a client has said of itself.
#[derive(Debug, Default)]
pub(crate) struct ClientFeatures {
    pub(crate) encoding: Encoding,
    pub(crate) shows_progress: bool,
    pub(crate) opens_documents: bool,
    pub(crate) process: Option<i32>,
    pub(crate) folders: Vec<PathBuf>,
}

impl ClientFeatures {
    pub(crate) fn read(params: &Value) -> Self {
        let encodings = "/capabilities/general/positionEncodings";
        let encodings: Option<Vec<PositionEncodingKind>> = get(params, encodings);
        let is_set = |pointer| get(params, pointer) == Some(true);
        Self {
            encoding: Encoding::negotiated(&encodings.unwrap_or_default()),
            shows_progress: is_set("/capabilities/window/workDoneProgress"),
            opens_documents: is_set("/capabilities/window/showDocument/support"),
            process: get(params, "/processId"),
            folders: folders(params),
        }
    }
}

fn get<T: DeserializeOwned>(params: &Value, pointer: &str) -> Option<T> {
    T::deserialize(params.pointer(pointer)?).ok()
}

/// The folders of the workspace; of an older client, its one folder.
fn folders(params: &Value) -> Vec<PathBuf> {
    let folders: Vec<_> = match params.get("workspaceFolders").and_then(Value::as_array) {
        Some(folders) => folders
            .iter()
            .filter_map(|folder| folder.get("uri"))
            .collect(),
        None => params.get("rootUri").into_iter().collect(),
    };
    folders.into_iter().filter_map(folder).collect()
}

/// A folder on this machine.
pub(crate) fn folder(uri: &Value) -> Option<PathBuf> {
    Url::parse(uri.as_str()?).ok()?.to_file_path().ok()
}

pub(crate) fn offer(encoding: Encoding) -> InitializeResult {
    let sync = TextDocumentSyncOptions {
        open_close: Some(true),
        change: Some(TextDocumentSyncKind::Incremental),
        will_save: None,
        will_save_wait_until: None,
        save: Some(SaveOptions::new(Some(false)).into()),
    };
    let progress = WorkDoneProgressOptions::default;
    let capabilities = ServerCapabilities {
        position_encoding: Some(encoding.kind()),
        text_document_sync: Some(sync.into()),
        hover_provider: Some(true.into()),
        code_lens_provider: Some(CodeLensOptions::new(Some(false), progress())),
        execute_command_provider: Some(ExecuteCommandOptions::new(
            vec![COMPILE.to_owned(), STATUS.to_owned()],
            progress(),
        )),
        workspace: Some(WorkspaceOptions {
            workspace_folders: Some(WorkspaceFoldersServerCapabilities {
                supported: Some(true),
                change_notifications: Some(ChangeNotifications::Bool(true)),
            }),
            ..WorkspaceOptions::default()
        }),
        ..ServerCapabilities::default()
    };
    let info = ServerInfo {
        name: "wgsl_language_server".to_owned(),
        version: Some(env!("TOOLS_VERSION").to_owned()),
    };
    InitializeResult::new(capabilities, Some(info))
}
