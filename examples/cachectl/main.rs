//! Looks after the folder of a disk tier: what is in it, whether it is whole, and how large it is.
//!
//! ```text
//! cachectl --cache-dir DIR stat
//! cachectl --cache-dir DIR verify --json
//! cachectl --cache-dir DIR trim --max-bytes 10G
//! cachectl --cache-dir DIR push https://cache.example.com/artifacts --token-file FILE
//! cachectl --cache-dir DIR pull s3://bucket/artifacts
//! cachectl manifest FILE
//! cachectl --cache-dir DIR bundle -o shaders.bundle
//! cachectl --cache-dir DIR unbundle shaders.bundle
//! ```
//!
//! `push` uploads what the remote of this URL could not take during an outage. A cache over the folder
//! and the remote does so too, when it is opened. `pull` downloads what the folder does not have: the
//! artifacts of a file of keys or of a recorded run, or all that an object store lists. An HTTP remote
//! cannot be listed. Both send nothing that the other side has, so that the same command goes on after
//! an interruption. `manifest` shows a recorded run, and looks into no folder.
//!
//! `bundle` makes one file of a folder, which a program reads as a `BundleCache`, and `unbundle` stores what
//! such a file holds in a folder. Both can be interrupted, as with Ctrl-C, and go on when they are run
//! again.
//!
//! It exits with 1 where something was found wrong or missing, with 2 where it could not look, or where
//! the folder is not one of a disk tier, and with 3 where nothing was found wrong but its settings keep
//! it from judging some entries. Those may be somebody's good entries, and stay.

mod bundle;
#[path = "../completions/mod.rs"]
mod completions;
mod folder;
mod help;
mod input;
mod keys;
mod manifest;
mod pull;
mod push;
mod remote;
#[path = "../secret_files/mod.rs"]
mod secret_files;
mod settings;
#[path = "../store_url/mod.rs"]
mod store_url;
mod units;
#[path = "../variables/mod.rs"]
mod variables;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipeline_cache::disk::{DiskCacheEntry, DiskCacheHealth, DiskCacheIntents, EvictionOrder};
use pipeline_cache::{
    ArtifactMetadata, DiskCache, DiskCacheBuilder, PipelineCacheStore as _, PipelineFingerprint,
};
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bundle::{Bundle, Unbundle};
use pull::Pull;
use push::Push;
use settings::Settings;
use units::{bytes, human};

/// Looks after the folder of a disk cache: what is in it, whether it is whole, and how large it is.
#[derive(Debug, Parser)]
#[command(name = "cachectl", version = env!("TOOLS_VERSION"), after_long_help = help::AFTER)]
struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON: one object, or one a line for ls and verify
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How many entries there are, how large, and when they were used
    Stat {
        /// A bundle to look at instead of the folder
        #[arg(value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Every entry
    Ls,
    /// Read every entry, say what is wrong, and set aside what is corrupt. What these settings cannot
    /// judge stays
    Verify,
    /// Remove entries that are over a bound, the least recently used first
    Trim {
        /// The bytes to keep at most, as in 500M or 10G
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        max_bytes: u64,
        /// Remove first what saves the least compile time for its bytes and age, and not what was
        /// used longest ago
        #[arg(long)]
        by_time_saved: bool,
    },
    /// Upload what a remote could not take, or with --all what it does not have
    Push(Push),
    /// Download what the folder does not have
    Pull(Pull),
    /// What a recorded run used: the file of `--record` and `--prefetch`. Looks into no folder
    Manifest { file: PathBuf },
    /// Write the entries of a folder, and its known spellings, to one file
    Bundle(Bundle),
    /// Store what a bundle holds in a folder
    Unbundle(Unbundle),
    /// One entry
    Show { key: PipelineFingerprint },
    /// Remove one entry
    Rm { key: PipelineFingerprint },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match options() {
        Ok(Some(options)) => run(options).await,
        Ok(None) => Ok(Outcome::Fine),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(1),
        Ok(Outcome::Unjudged) => ExitCode::from(3),
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cachectl: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for. None if that is done already.
fn options() -> Result<Option<Options>> {
    let mut command = completions::add_to(Options::command());
    let matches = command.get_matches_mut();
    if completions::write_if_asked(&command, &matches)? {
        return Ok(None);
    }
    for warning in variables::warnings(&command, "CACHECTL_", &[]) {
        eprintln!("cachectl: {warning}");
    }
    let options = Options::from_arg_matches(&matches);
    Ok(Some(
        options.unwrap_or_else(|error| error.format(&mut command).exit()),
    ))
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// Something is damaged or missing.
    Wrong,
    /// Nothing is known to be wrong, and not all could be judged.
    Unjudged,
}

async fn run(options: Options) -> Result<Outcome> {
    let Options {
        settings,
        json,
        command,
    } = options;
    match command {
        Command::Stat { bundle: Some(file) } => bundle::stat(&settings, &file, json).await,
        Command::Stat { bundle: None } => stat(&settings.open().await?, json).await,
        Command::Ls => list(&settings.open().await?, json).await,
        Command::Verify => verify(&settings.open().await?, json).await,
        Command::Trim {
            max_bytes,
            by_time_saved,
        } => {
            let order = match by_time_saved {
                true => EvictionOrder::LeastTimeSaved,
                false => EvictionOrder::LeastRecentlyUsed,
            };
            let settings = settings.builder()?.max_bytes(max_bytes);
            trim(settings.eviction_order(order), json).await
        }
        Command::Push(push) => push.run(&settings, json).await,
        Command::Pull(pull) => pull.run(&settings, json).await,
        Command::Manifest { file } => manifest::show(&file, json).await,
        Command::Bundle(bundle) => bundle.run(&settings, json).await,
        Command::Unbundle(unbundle) => unbundle.run(&settings, json).await,
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
            Ok(if removed {
                Outcome::Fine
            } else {
                Outcome::Wrong
            })
        }
    }
}

async fn stat(cache: &DiskCache, json: bool) -> Result<Outcome> {
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
    let aliases = match cache.aliases() {
        Some(aliases) => {
            aliases
                .entries()
                .try_fold(0_u64, async |n, _| Ok(n + 1))
                .await?
        }
        None => 0,
    };
    let intents = cache.intents().await?;
    let value = json!({
        "root": cache.root().display().to_string(),
        "entries": count,
        "aliases": aliases,
        "bytes": bytes,
        "oldest_use": oldest.map(unix),
        "newest_use": newest.map(unix),
        "intents": intents.iter().map(intents_json).collect::<Vec<_>>(),
    });
    print(json, &value, || {
        let used = |what: &str, at: Option<SystemTime>| {
            at.map_or(String::new(), |at| format!("\n{what} {}", ago(at)))
        };
        let owed: String = intents.iter().map(about_intents).collect();
        format!(
            "{}\nentries      {count}\naliases      {aliases}\nsize         {}{}{}{owed}",
            cache.root().display(),
            human(bytes),
            used("oldest use  ", oldest),
            used("newest use  ", newest),
        )
    })?;
    Ok(Outcome::Fine)
}

fn intents_json(intents: &DiskCacheIntents) -> Value {
    json!({
        "tier": intents.tier,
        "intents": intents.intents,
        "oldest": unix(intents.oldest),
    })
}

fn about_intents(intents: &DiskCacheIntents) -> String {
    let tier = intents
        .tier
        .as_deref()
        .unwrap_or("a tier that is not named");
    format!(
        "\nto upload    {} to {}, the oldest {}",
        intents.intents,
        tier.escape_debug(),
        ago(intents.oldest)
    )
}

async fn list(cache: &DiskCache, json: bool) -> Result<Outcome> {
    let mut entries = cache.entries();
    while let Some(entry) = entries.try_next().await? {
        print(json, &entry_json(&entry), || {
            let used = ago(entry.last_used);
            format!(
                "{}  {:>10}  {used:>14}  {}",
                entry.key,
                human(entry.bytes),
                about(&entry)
            )
        })?;
    }
    Ok(Outcome::Fine)
}

async fn verify(cache: &DiskCache, json: bool) -> Result<Outcome> {
    let bar = progress_bar();
    let (mut whole, mut bad, mut unjudged) = (0_u64, 0_u64, 0_u64);
    let mut checks = cache.verify();
    while let Some(check) = checks.try_next().await? {
        bar.set_length(check.of);
        bar.set_position(check.verified);
        let (health, why) = match &check.health {
            DiskCacheHealth::Whole => {
                whole += 1;
                continue;
            }
            DiskCacheHealth::Foreign(why) => ("not judged", why.to_string()),
            DiskCacheHealth::Corrupt(error) => ("corrupt", error.to_string()),
            DiskCacheHealth::Unsafe => ("unsafe", "it is no regular file".to_owned()),
            DiskCacheHealth::Unreadable(error) => ("unreadable", error.to_string()),
            other => ("damaged", format!("{other:?}")),
        };
        match &check.health {
            DiskCacheHealth::Foreign(_) => unjudged += 1,
            _ => bad += 1,
        }
        let value = json!({
            "key": check.key.to_hex(),
            "health": health,
            "why": why,
            "bytes": check.bytes,
        });
        bar.suspend(|| print(json, &value, || format!("{}  {health}: {why}", check.key)))?;
    }
    bar.finish_and_clear();
    let verified = whole + bad + unjudged;
    let value = json!({ "verified": verified, "whole": whole, "bad": bad, "not_judged": unjudged });
    print(json, &value, || match unjudged {
        0 => format!("{whole} whole, {bad} bad"),
        _ => format!(
            "{whole} whole, {bad} bad, {unjudged} not judged and left: see --secret-file and \
             --max-artifact"
        ),
    })?;
    Ok(match (bad, unjudged) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Unjudged,
        _ => Outcome::Wrong,
    })
}

async fn trim(settings: DiskCacheBuilder, json: bool) -> Result<Outcome> {
    let cache = settings.open().await?;
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
    Ok(Outcome::Fine)
}

async fn show(cache: &DiskCache, key: PipelineFingerprint, json: bool) -> Result<Outcome> {
    // A lookup would count as a use of the entry, and set it aside if it is corrupt.
    let Some(entry) = cache.entry(&key).await? else {
        print(
            json,
            &json!({ "key": key.to_hex(), "found": false }),
            || "no such entry".into(),
        )?;
        return Ok(Outcome::Wrong);
    };
    print(json, &entry_json(&entry), || {
        format!(
            "{}\nsize         {}\nlast use     {}\n{}",
            entry.key,
            human(entry.bytes),
            ago(entry.last_used),
            about(&entry)
        )
    })?;
    Ok(match (&entry.metadata, entry.foreign) {
        (Some(_), _) => Outcome::Fine,
        (None, Some(_)) => Outcome::Unjudged,
        (None, None) => Outcome::Wrong,
    })
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
        "not_judged": entry.foreign.map(|why| why.to_string()),
    })
}

/// What is known of an entry, on one line.
fn about(entry: &DiskCacheEntry) -> String {
    match (&entry.metadata, entry.foreign) {
        (Some(metadata), _) => about_metadata(metadata),
        (None, Some(why)) => format!("not judged: {why}"),
        (None, None) => "damaged".into(),
    }
}

fn about_metadata(metadata: &ArtifactMetadata) -> String {
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
