//! A recorded run: how much a warm start fetches, and what that saves.

use anyhow::Result;
use pipeline_cache::layered::{RecordedKey, RecordedKind, RecordedRun};
use serde_json::{Value, json};
use std::path::Path;

use crate::units::human;
use crate::{Outcome, print};

/// Keys that are shown one by one.
const TOP: usize = 10;

pub(crate) async fn show(file: &Path, json: bool) -> Result<Outcome> {
    let run = RecordedRun::load(file).await?;
    let is_alias = |key: &&RecordedKey| key.kind == RecordedKind::SourceAlias;
    let aliases = run.keys().iter().filter(is_alias).count();
    let artifacts = run.keys().len() - aliases;
    let mut top = run.most_valuable_first();
    top.retain(|key| key.kind == RecordedKind::Artifact);
    top.truncate(TOP);
    let value = json!({
        "artifacts": artifacts,
        "source_aliases": aliases,
        "not_kept": run.not_kept(),
        "bytes": run.bytes(),
        "compile_seconds": run.compile_time().as_secs_f64(),
        "top": top.iter().map(key_json).collect::<Vec<_>>(),
    });
    print(json, &value, || {
        let not_kept = match run.not_kept() {
            0 => String::new(),
            requests => format!("\nnot kept     the keys of {requests} requests"),
        };
        let first = match top.as_slice() {
            [] => String::new(),
            top => format!(
                "\nmost saved for each byte:{}",
                top.iter().map(about).collect::<String>()
            ),
        };
        format!(
            "artifacts    {artifacts}\naliases      {aliases}\nsize         {}\ncompile time {:.1?}{not_kept}{first}",
            human(run.bytes()),
            run.compile_time(),
        )
    })?;
    Ok(Outcome::Fine)
}

fn key_json(key: &RecordedKey) -> Value {
    json!({
        "key": key.key.to_hex(),
        "uses": key.uses,
        "bytes": key.bytes,
        "compile_seconds": key.compile_time.map(|time| time.as_secs_f64()),
    })
}

fn about(key: &RecordedKey) -> String {
    let bytes = key.bytes.map_or_else(|| "? B".to_owned(), human);
    let time = key
        .compile_time
        .map_or_else(|| "?".to_owned(), |time| format!("{time:.1?}"));
    format!(
        "\n  {}  {bytes:>10}  {time:>8}  used {} times",
        key.key, key.uses
    )
}
