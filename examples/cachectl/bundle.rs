//! A folder as one file, and back.

use anyhow::Result;
use clap::Args;
use pipeline_cache::bundle::{self, BundleProgress, PackOptions};
use pipeline_cache::{BundleCache, DiskCache, PipelineCacheStore as _};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::folder;
use crate::keys::read_keys;
use crate::settings::Settings;
use crate::units::human;
use crate::{Outcome, print, progress_bar};

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// The folder of a disk cache [default: that of --cache-dir]
    folder: Option<PathBuf>,
    /// The file to write. FILE.partial stands beside it until it is complete: after an interruption, the
    /// same command goes on
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A file with the keys of the entries to take, one a line, in hex [default: all entries]
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    keys: Option<PathBuf>,
    /// All entries, as without --keys
    #[arg(long)]
    all: bool,
    /// Leave out the known spellings of sources: whoever reads the bundle then parses each source once
    #[arg(long)]
    no_aliases: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unbundle {
    /// The bundle
    file: PathBuf,
    /// The folder of a disk cache, created where it is missing [default: that of --cache-dir]. What it has
    /// is kept
    folder: Option<PathBuf>,
}

impl Bundle {
    pub(crate) async fn run(&self, settings: &Settings, json: bool) -> Result<Outcome> {
        let keys = self.keys.as_deref().map(read_keys).transpose()?;
        let mut options = PackOptions::default();
        if let Some(keys) = keys {
            options = options.keys(keys);
        }
        if self.no_aliases {
            options = options.without_aliases();
        }
        let folder = settings.folder(self.folder.as_deref())?;
        folder::check(folder)?;
        let cache = open(settings, folder).await?;
        let bar = progress_bar();
        let packed = bundle::pack(&cache, &self.output, &options, |at| advance(&bar, at)).await?;
        bar.finish_and_clear();
        let written = packed.written;
        let value = json!({
            "bundle": self.output.display().to_string(), "entries": written.entries,
            "aliases": written.aliases, "bytes": written.bytes, "kept_bytes": written.kept_bytes,
            "missing": packed.missing, "damaged": packed.damaged, "not_judged": packed.not_judged,
        });
        print(json, &value, || {
            let mut line = format!(
                "{}: {} entries and {} aliases, {}",
                self.output.display(),
                written.entries,
                written.aliases,
                human(written.bytes)
            );
            if written.kept_bytes > 0 {
                line += &format!(", {} of them there already", human(written.kept_bytes));
            }
            line + &left_out(packed.missing, packed.damaged, packed.not_judged)
        })?;
        Ok(outcome(packed.missing + packed.damaged, packed.not_judged))
    }
}

impl Unbundle {
    pub(crate) async fn run(&self, settings: &Settings, json: bool) -> Result<Outcome> {
        let folder = settings.folder(self.folder.as_deref())?;
        let bundle = open_bundle(settings, &self.file).await?;
        folder::check_unless_new(folder)?;
        let cache = open(settings, folder).await?;
        let bar = progress_bar();
        let unpacked = bundle::unpack(&bundle, &cache, |at| advance(&bar, at)).await?;
        bar.finish_and_clear();
        cache.close(Duration::from_secs(60)).await?;
        let value = json!({
            "stored": unpacked.stored, "kept": unpacked.kept, "damaged": unpacked.damaged,
            "not_judged": unpacked.not_judged,
        });
        print(json, &value, || {
            let (stored, kept) = (unpacked.stored, unpacked.kept);
            let line = format!("stored {stored} entries and aliases, {kept} were there");
            line + &left_out(0, unpacked.damaged, unpacked.not_judged)
        })?;
        Ok(outcome(unpacked.damaged, unpacked.not_judged))
    }
}

/// What is in a bundle.
pub(crate) async fn stat(settings: &Settings, file: &Path, json: bool) -> Result<Outcome> {
    let bundle = open_bundle(settings, file).await?;
    let held = bundle.metrics();
    let aliases = bundle.aliases().map_or(0, |store| store.metrics().entries);
    let value = json!({
        "bundle": bundle.path().display().to_string(), "entries": held.entries,
        "aliases": aliases, "bytes": held.cached_bytes,
    });
    print(json, &value, || {
        format!(
            "{}\nentries      {}\naliases      {aliases}\nsize         {}",
            bundle.path().display(),
            held.entries,
            human(held.cached_bytes)
        )
    })?;
    Ok(Outcome::Fine)
}

async fn open(settings: &Settings, folder: &Path) -> Result<DiskCache> {
    Ok(settings.judging()?.root(folder).open().await?)
}

async fn open_bundle(settings: &Settings, file: &Path) -> Result<BundleCache> {
    let mut builder = BundleCache::builder().max_artifact_bytes(settings.max_artifact());
    if let Some(keys) = settings.trusted_keys()? {
        builder = builder.trusted_keys(keys);
    }
    Ok(builder.open(file).await?)
}

fn advance(bar: &indicatif::ProgressBar, at: BundleProgress) {
    bar.set_length(at.of);
    bar.set_position(at.done);
}

fn left_out(missing: u64, damaged: u64, unjudged: u64) -> String {
    let mut text = String::new();
    for (number, what) in [
        (missing, "missing"),
        (damaged, "damaged and left out"),
        (
            unjudged,
            "not judged and left out: see --secret-file and --max-artifact",
        ),
    ] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text
}

const fn outcome(wrong: u64, unjudged: u64) -> Outcome {
    match (wrong, unjudged) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Unjudged,
        _ => Outcome::Wrong,
    }
}
