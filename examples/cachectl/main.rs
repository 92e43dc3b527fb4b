//! Looks after the folder of a disk tier: what is in it, whether it is whole, and how large it is.
//!
//! ```text
//! cachectl --cache-dir DIR stat
//! cachectl --cache-dir DIR verify --json
//! cachectl --cache-dir DIR trim --max-bytes 10G
//! ```
//!
//! It exits with 1 where something was found wrong or missing, and with 2 where it could not look, or
//! where the folder is not one of a disk tier.

mod folder;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipeline_cache::disk::{DiskCacheEntry, DiskCacheHealth};
use pipeline_cache::{
    ArtifactMetadata, DiskCache, DiskCacheBuilder, PipelineCacheStore as _, PipelineFingerprint,
    SharedSecret,
};
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Parser)]
#[command(about = "Looks after the folder of a disk cache")]
struct Options {
    /// The cache's folder [default: the user's cache folder]
    #[arg(long, global = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// A file with the secret that the entries are authenticated with
    #[arg(long, global = true, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Print JSON: one object, or one a line for ls and verify
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How many entries there are, how large, and when they were used
    Stat,
    /// Every entry
    Ls,
    /// Read every entry, say what is wrong, and set aside what is corrupt
    Verify,
    /// Remove the least recently used entries
    Trim {
        /// The bytes to keep at most, as in 500M or 10G
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        max_bytes: u64,
    },
    /// One entry
    Show { key: PipelineFingerprint },
    /// Remove one entry
    Rm { key: PipelineFingerprint },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cachectl: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
async fn run(options: Options) -> Result<bool> {
    let mut settings = DiskCache::builder();
    if let Some(root) = &options.cache_dir {
        // Before it is opened: to look at a cache is not to make one.
        folder::check(root)?;
        settings = settings.root(root);
    }
    if let Some(path) = &options.secret_file {
        let secret =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        settings = settings.shared_secret(SharedSecret::new(secret));
    }
    let json = options.json;
    match options.command {
        Command::Stat => stat(&settings.open().await?, json).await,
        Command::Ls => list(&settings.open().await?, json).await,
        Command::Verify => verify(&settings.open().await?, json).await,
        Command::Trim { max_bytes } => trim(settings, max_bytes, json).await,
        Command::Show { key } => show(&settings.open().await?, key, json).await,
        Command::Rm { key } => {
            let cache = settings.open().await?;
            let removed = cache.remove(&key).await?;
            cache.close(Duration::from_secs(60)).await?;
            print(
                json,
                &json!({ "key": key.to_hex(), "removed": removed }),
                || {
                    if removed {
                        "removed".into()
                    } else {
                        "no such entry".into()
                    }
                },
            )?;
            Ok(removed)
        }
    }
}

async fn stat(cache: &DiskCache, json: bool) -> Result<bool> {
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let (mut oldest, mut newest) = (None::<SystemTime>, None::<SystemTime>);
    let mut entries = cache.entries();
    while let Some(entry) = entries.try_next().await? {
        count += 1;
        bytes += entry.bytes;
        let used = entry.last_used;
        oldest = Some(oldest.map_or(used, |oldest| oldest.min(used)));
        newest = Some(newest.map_or(used, |newest| newest.max(used)));
    }
    let value = json!({
        "root": cache.root().display().to_string(),
        "entries": count,
        "bytes": bytes,
        "oldest_use": oldest.map(unix),
        "newest_use": newest.map(unix),
    });
    print(json, &value, || {
        let used = |what: &str, at: Option<SystemTime>| {
            at.map_or(String::new(), |at| format!("\n{what} {}", ago(at)))
        };
        format!(
            "{}\nentries      {count}\nsize         {}{}{}",
            cache.root().display(),
            human(bytes),
            used("oldest use  ", oldest),
            used("newest use  ", newest),
        )
    })?;
    Ok(true)
}

async fn list(cache: &DiskCache, json: bool) -> Result<bool> {
    let mut entries = cache.entries();
    while let Some(entry) = entries.try_next().await? {
        print(json, &entry_json(&entry), || {
            let used = ago(entry.last_used);
            let about = entry.metadata.as_ref().map_or("damaged".into(), about);
            format!(
                "{}  {:>10}  {used:>14}  {about}",
                entry.key,
                human(entry.bytes)
            )
        })?;
    }
    Ok(true)
}

async fn verify(cache: &DiskCache, json: bool) -> Result<bool> {
    let bar = progress_bar();
    let (mut whole, mut bad) = (0_u64, 0_u64);
    let mut checks = cache.verify();
    while let Some(check) = checks.try_next().await? {
        bar.set_length(check.of);
        bar.set_position(check.verified);
        let (health, why) = match &check.health {
            DiskCacheHealth::Whole => {
                whole += 1;
                continue;
            }
            DiskCacheHealth::Corrupt(error) => ("corrupt", error.to_string()),
            DiskCacheHealth::Unsafe => ("unsafe", "it is no regular file".to_owned()),
            DiskCacheHealth::Unreadable(error) => ("unreadable", error.to_string()),
            other => ("damaged", format!("{other:?}")),
        };
        bad += 1;
        let value = json!({
            "key": check.key.to_hex(),
            "health": health,
            "why": why,
            "bytes": check.bytes,
        });
        bar.suspend(|| print(json, &value, || format!("{}  {health}: {why}", check.key)))?;
    }
    bar.finish_and_clear();
    let value = json!({ "verified": whole + bad, "whole": whole, "bad": bad });
    print(json, &value, || format!("{whole} whole, {bad} bad"))?;
    Ok(bad == 0)
}

async fn trim(settings: DiskCacheBuilder, max_bytes: u64, json: bool) -> Result<bool> {
    let cache = settings.max_bytes(max_bytes).open().await?;
    let bar = progress_bar();
    bar.set_message("trimming");
    bar.enable_steady_tick(Duration::from_millis(100));
    let report = cache.trim().await?;
    bar.finish_and_clear();
    let value = json!({
        "scanned": report.scanned,
        "scanned_bytes": report.scanned_bytes,
        "removed": report.removed,
        "removed_bytes": report.removed_bytes,
        "oldest_kept": report.oldest_kept.map(unix),
        "seconds": report.elapsed.as_secs_f64(),
    });
    print(json, &value, || {
        format!(
            "removed {} of {} entries, {} of {}",
            report.removed,
            report.scanned,
            human(report.removed_bytes),
            human(report.scanned_bytes)
        )
    })?;
    Ok(true)
}

async fn show(cache: &DiskCache, key: PipelineFingerprint, json: bool) -> Result<bool> {
    // A lookup would count as a use of the entry, and set it aside if it is corrupt.
    let Some(entry) = cache.entry(&key).await? else {
        print(
            json,
            &json!({ "key": key.to_hex(), "found": false }),
            || "no such entry".into(),
        )?;
        return Ok(false);
    };
    print(json, &entry_json(&entry), || {
        format!(
            "{}\nsize         {}\nlast use     {}\n{}",
            entry.key,
            human(entry.bytes),
            ago(entry.last_used),
            entry.metadata.as_ref().map_or("damaged".into(), about)
        )
    })?;
    Ok(entry.metadata.is_some())
}

fn entry_json(entry: &DiskCacheEntry) -> Value {
    let metadata = entry.metadata.as_ref().map(|metadata| {
        json!({
            "provenance": metadata.provenance(),
            "device": metadata.device(),
            "toolchain": metadata.toolchain(),
            "compile_seconds": metadata.compile_time().map(|time| time.as_secs_f64()),
        })
    });
    json!({
        "key": entry.key.to_hex(),
        "bytes": entry.bytes,
        "last_used": unix(entry.last_used),
        "metadata": metadata,
    })
}

/// Metadata, on one line.
fn about(metadata: &ArtifactMetadata) -> String {
    let texts = [
        metadata.provenance(),
        metadata.device(),
        metadata.toolchain(),
    ];
    let mut parts: Vec<String> = texts.into_iter().flatten().map(str::to_owned).collect();
    parts.extend(
        metadata
            .compile_time()
            .map(|time| format!("compiled in {time:.1?}")),
    );
    // Whoever wrote the entry chose these: they must not steer a terminal.
    parts.join(", ").escape_debug().to_string()
}

fn print(json: bool, value: &Value, text: impl FnOnce() -> String) -> io::Result<()> {
    let line = if json { value.to_string() } else { text() };
    writeln!(io::stdout().lock(), "{line}")
}

/// A progress bar on the terminal, or none where there is none.
fn progress_bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}");
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Seconds of the Unix time.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |age| age.as_secs());
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

const UNITS: [(&str, u64); 4] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

fn human(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or(format!("{bytes} B"), |(name, unit)| {
        format!("{:.1} {name}iB", bytes as f64 / *unit as f64)
    })
}

/// Reads a number of bytes, as in 500M.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().to_uppercase();
    let text = text.trim_end_matches('B').trim_end_matches('I').trim_end();
    let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
    let (number, unit) = match unit {
        Some((name, unit)) => (text.trim_end_matches(name).trim_end(), *unit),
        None => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "not a number of bytes, as 500M is".to_owned())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "too many bytes".to_owned())
}
