//! The shaders of the workspace, which are checked before anybody looks at them.

use std::path::PathBuf;
use std::sync::Arc;

use lsp_types::{
    MessageType, ProgressNotification, ProgressParams, WorkDoneProgressBegin,
    WorkDoneProgressCreateParams, WorkDoneProgressCreateRequest, WorkDoneProgressEnd,
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use walkdir::{DirEntry, WalkDir};

use crate::server::Server;

/// Names this work to the client.
const TOKEN: &str = "wgsl/workspace";

/// How deep folders are searched.
const MAX_FOLDERS: usize = 32;

/// Checks all shaders below these folders, one at a time, behind all that a user waits for.
pub(crate) async fn warm(server: Arc<Server>, folders: Vec<PathBuf>, shows_progress: bool) {
    let most = server.max_files;
    let found = spawn_blocking(move || shaders(&folders, most));
    let Ok((files, is_all)) = found.await else {
        return;
    };
    if files.is_empty() {
        return;
    }
    let client = &server.client;
    if shows_progress {
        let token = WorkDoneProgressCreateParams::new(TOKEN.into());
        client.ask::<WorkDoneProgressCreateRequest>(token).await;
        let begin = WorkDoneProgressBegin::new("Shaders".to_owned(), None, None, None);
        progress(&server, json!(begin)).await;
    }
    let (total, mut checked, mut wrong) = (files.len(), 0, 0);
    for file in files {
        // A file may be gone, or no text, by now.
        let Some(source) = server.checker.read_file(&file).await else {
            continue;
        };
        match server.checker.warm(source).await {
            Ok(findings) => {
                checked += 1;
                wrong += usize::from(!findings.is_empty());
            }
            Err(reason) => tracing::info!(?file, %reason, "not checked"),
        }
    }
    if shows_progress {
        progress(&server, json!(WorkDoneProgressEnd::new(None))).await;
    }
    let rest = if is_all { "" } else { " (--max-files)" };
    let told = format!(
        "workspace: {checked} of {total} shaders checked{rest}, {wrong} of them with errors"
    );
    client.log(MessageType::Info, told).await;
}

async fn progress(server: &Server, value: Value) {
    let params = ProgressParams::new(TOKEN.into(), value);
    server.client.notify::<ProgressNotification>(params).await;
}

/// The shaders below the folders, in order, and whether these are all.
fn shaders(folders: &[PathBuf], most: usize) -> (Vec<PathBuf>, bool) {
    let is_shader = |entry: &DirEntry| {
        entry.file_type().is_file() && entry.path().extension().is_some_and(|end| end == "wgsl")
    };
    let mut files: Vec<_> = folders
        .iter()
        .flat_map(|folder| {
            WalkDir::new(folder)
                .max_depth(MAX_FOLDERS)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(|entry| entry.depth() == 0 || is_searched(entry))
        })
        .filter_map(Result::ok)
        .filter(is_shader)
        .map(DirEntry::into_path)
        .take(most.saturating_add(1))
        .collect();
    let is_all = files.len() <= most;
    files.truncate(most);
    (files, is_all)
}

/// Not what tools keep for themselves.
fn is_searched(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    !name.starts_with('.') && name != "node_modules" && name != "target"
}
