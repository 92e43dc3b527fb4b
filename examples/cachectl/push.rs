//! Uploads what a remote could not take, or whatever it does not have.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::{
    DiskCache, Fetched, PipelineCacheStore as _, PipelineFingerprint, RemoteCache, StoreError,
    Trust,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

use crate::settings::Settings;
use crate::{Outcome, print, progress_bar};

/// Uploads at a time.
const CONCURRENCY: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The URL of the remote, as the users of the cache have it
    url: String,
    /// A file with the bearer token for the remote
    #[arg(long, value_name = "FILE", env = "CACHECTL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Every entry that the remote does not have, and not only what it could not take
    #[arg(long)]
    all: bool,
}

/// What became of one entry.
enum Pushed {
    Taken,
    /// The remote had it.
    WasThere,
    /// It is no longer in the folder, or damaged.
    Gone,
    /// The settings keep the tool from judging it.
    Unjudged,
    Failed(StoreError),
}

#[derive(Debug, Default)]
struct Summary {
    taken: u64,
    was_there: u64,
    gone: u64,
    unjudged: u64,
    failed: u64,
    /// Of the first that failed.
    why: Option<StoreError>,
}

impl Summary {
    fn add(&mut self, pushed: Pushed) {
        *match pushed {
            Pushed::Taken => &mut self.taken,
            Pushed::WasThere => &mut self.was_there,
            Pushed::Gone => &mut self.gone,
            Pushed::Unjudged => &mut self.unjudged,
            Pushed::Failed(error) => {
                self.why.get_or_insert(error);
                &mut self.failed
            }
        } += 1;
    }
}

impl Push {
    pub(crate) async fn run(&self, settings: &Settings, json: bool) -> Result<Outcome> {
        // Before the folder is touched.
        let remote = self.remote(settings)?;
        let cache = settings.open().await?;
        let intents = cache.write_intents();
        let intents = intents.context("the folder keeps no intents")?;
        let name = remote.to_string();
        let (keys, number) = match self.all {
            false => {
                let keys = intents.list(&name).await?.keys;
                let number = keys.len() as u64;
                (stream::iter(keys).map(Ok).boxed(), number)
            }
            true => (
                all(&cache),
                all(&cache).try_fold(0, async |n, _| Ok(n + 1)).await?,
            ),
        };
        let bar = progress_bar();
        bar.set_length(number);
        let push = |key| {
            let (cache, remote, name) = (&cache, &remote, &name);
            async move { Ok((key, push_one(cache, remote, &key, self.all).await, name)) }
        };
        let mut pushes = keys.map_ok(push).try_buffer_unordered(CONCURRENCY);
        let mut summary = Summary::default();
        while let Some((key, pushed, name)) = pushes.try_next().await? {
            if let Pushed::Taken | Pushed::WasThere | Pushed::Gone = pushed {
                intents.remove(name, &[key]).await?;
            }
            summary.add(pushed);
            bar.inc(1);
        }
        drop(pushes);
        bar.finish_and_clear();
        report(&summary, &name, json)
    }

    fn remote(&self, settings: &Settings) -> Result<RemoteCache> {
        let mut remote = RemoteCache::builder()
            .max_artifact_bytes(settings.max_artifact())
            .writes();
        if let Some(file) = &self.token_file {
            remote = remote.bearer_token(token(file)?);
        }
        if let Some(keys) = settings.trusted_keys()? {
            remote = remote.trust(Trust::Authenticated(keys));
        }
        // The error does not repeat the URL, which may hold a secret.
        remote.build(&self.url).context("cannot use the remote")
    }
}

fn all(cache: &DiskCache) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
    cache.entries().map_ok(|entry| entry.key).boxed()
}

async fn push_one(
    cache: &DiskCache,
    remote: &RemoteCache,
    key: &PipelineFingerprint,
    ask: bool,
) -> Pushed {
    if ask {
        match remote.contains(key).await {
            Ok(true) => return Pushed::WasThere,
            Ok(false) => {}
            Err(error) => return Pushed::Failed(error),
        }
    }
    match cache.fetch(key).await {
        Ok(Fetched::Hit(artifact)) => match remote.put(key, artifact).await {
            Ok(()) => Pushed::Taken,
            Err(error) => Pushed::Failed(error),
        },
        Ok(Fetched::Refused) => Pushed::Unjudged,
        Ok(_) => Pushed::Gone,
        Err(error) => Pushed::Failed(error),
    }
}

fn report(summary: &Summary, name: &str, json: bool) -> Result<Outcome> {
    let Summary {
        taken,
        was_there,
        gone,
        unjudged,
        failed,
        why,
    } = summary;
    let why = why.as_ref().map(|error| format!("{error:#}"));
    let value = json!({
        "remote": name, "pushed": taken, "was_there": was_there, "gone": gone,
        "not_judged": unjudged, "left": failed, "why": why,
    });
    print(json, &value, || {
        let mut line = format!("{name}: pushed {taken}");
        for (number, what) in [
            (was_there, "there already"),
            (gone, "gone from the folder"),
            (
                unjudged,
                "not judged and left: see --secret-file and --max-artifact",
            ),
            (failed, "left"),
        ] {
            if *number > 0 {
                line += &format!(", {number} {what}");
            }
        }
        why.map_or(line.clone(), |why| format!("{line}: {why}"))
    })?;
    Ok(match (failed, unjudged) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Unjudged,
        _ => Outcome::Wrong,
    })
}

/// The line break at the end of a file is not part of its token.
fn token(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let token = text.trim_end();
    ensure!(!token.is_empty(), "{} holds no token", file.display());
    Ok(token.to_owned())
}
