//! Uploads what a remote could not take, or whatever it does not have.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::{DiskCache, Fetched, PipelineCacheStore, PipelineFingerprint, StoreError};
use serde_json::json;

use crate::remote::{Remote, RemoteOptions};
use crate::settings::Settings;
use crate::units::human;
use crate::{Outcome, print, progress_bar};

/// No artifact has it.
const NO_KEY: PipelineFingerprint =
    PipelineFingerprint::from_bytes(*b"a key that no artifact ever has.");

#[derive(Debug, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    remote: RemoteOptions,
    /// Every entry that the remote does not say it has, and not only what it could not take. What the
    /// remote has is not read: an entry that is damaged there stays
    #[arg(long)]
    all: bool,
}

/// What became of one entry.
enum Pushed {
    /// The remote took so many bytes of payload.
    Taken(u64),
    /// The remote had it.
    WasThere,
    /// It is no longer in the folder.
    Gone,
    /// It was damaged, and is set aside.
    Damaged,
    /// The settings keep the tool from judging it.
    Unjudged,
    Failed(StoreError),
}

#[derive(Debug, Default)]
struct Summary {
    taken: u64,
    bytes: u64,
    was_there: u64,
    gone: u64,
    damaged: u64,
    unjudged: u64,
    failed: u64,
    /// Of the first that failed.
    why: Option<StoreError>,
}

impl Summary {
    fn add(&mut self, pushed: Pushed) {
        *match pushed {
            Pushed::Taken(bytes) => {
                self.bytes += bytes;
                &mut self.taken
            }
            Pushed::WasThere => &mut self.was_there,
            Pushed::Gone => &mut self.gone,
            Pushed::Damaged => &mut self.damaged,
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
        let remote = self.remote.open(settings)?;
        let cache = settings.open().await?;
        let intents = cache.write_intents();
        let intents = intents.context("the folder keeps no intents")?;
        let name = &remote.name;
        let (keys, number) = match self.all {
            false => {
                let keys = intents.list(name).await?.keys;
                let number = keys.len() as u64;
                (stream::iter(keys).map(Ok).boxed(), number)
            }
            true => (
                all(&cache),
                all(&cache).try_fold(0, async |n, _| Ok(n + 1)).await?,
            ),
        };
        check(&remote, number).await?;
        let bar = progress_bar();
        bar.set_length(number);
        let push = |key| {
            let (cache, store) = (&cache, &*remote.store);
            async move { Ok((key, push_one(cache, store, &key, self.all).await)) }
        };
        let concurrency = self.remote.concurrency();
        let mut pushes = keys.map_ok(push).try_buffer_unordered(concurrency);
        let mut summary = Summary::default();
        while let Some((key, pushed)) = pushes.try_next().await? {
            if let Pushed::Taken(_) | Pushed::WasThere | Pushed::Gone = pushed {
                intents.remove(name, &[key]).await?;
            }
            summary.add(pushed);
            bar.set_message(human(summary.bytes));
            bar.inc(1);
        }
        drop(pushes);
        bar.finish_and_clear();
        let elsewhere = match number {
            0 if !self.all => owed_elsewhere(&cache, name).await?,
            _ => String::new(),
        };
        report(&summary, &remote, &elsewhere, json)
    }
}

/// Fails where nothing can be pushed: to a server that says of everything that it has it, or that takes
/// neither the token nor the URL. Also to one that is gone, if nothing is to be sent: it would look like
/// success.
async fn check(remote: &Remote, number: u64) -> Result<()> {
    match remote.store.contains(&NO_KEY).await {
        Ok(true) => {
            let hint = remote.base_url_hint().map(|hint| format!("; {hint}"));
            bail!(
                "{} says that it has an artifact that nobody has made: it is no cache{}",
                remote.name,
                hint.unwrap_or_default()
            )
        }
        Err(error) if number == 0 || remote.is_final(&error) => bail!("{}", remote.why(&error)),
        // It may pass. If not, each entry fails, which is told.
        _ => Ok(()),
    }
}

/// What waits for other remotes: the URL may be another spelling of one of them.
async fn owed_elsewhere(cache: &DiskCache, name: &str) -> Result<String> {
    let owed = cache.intents().await?.into_iter();
    let others = owed.filter_map(|owed| Some((owed.tier?, owed.intents)));
    let others = others.filter(|(tier, _)| tier != name);
    let told =
        others.map(|(tier, number)| format!("; {number} waiting for {}", tier.escape_debug()));
    let told: String = told.collect();
    Ok(match told.is_empty() {
        true => told,
        false => told + "; to send them here: --all",
    })
}

fn all(cache: &DiskCache) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
    cache.entries().map_ok(|entry| entry.key).boxed()
}

async fn push_one(
    cache: &DiskCache,
    remote: &dyn PipelineCacheStore,
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
        Ok(Fetched::Hit(artifact)) => {
            let bytes = artifact.len() as u64;
            match remote.put(key, artifact).await {
                Ok(()) => Pushed::Taken(bytes),
                Err(error) => Pushed::Failed(error),
            }
        }
        Ok(Fetched::Refused) => Pushed::Unjudged,
        Ok(Fetched::Miss) => Pushed::Gone,
        Ok(_) => Pushed::Damaged,
        Err(error) => Pushed::Failed(error),
    }
}

fn report(summary: &Summary, remote: &Remote, elsewhere: &str, json: bool) -> Result<Outcome> {
    let Summary {
        taken,
        bytes,
        was_there,
        gone,
        damaged,
        unjudged,
        failed,
        why,
    } = summary;
    let (name, why) = (&remote.name, why.as_ref().map(|error| remote.why(error)));
    let value = json!({
        "remote": name, "pushed": taken, "bytes": bytes, "was_there": was_there, "gone": gone,
        "damaged": damaged,
        "not_judged": unjudged, "left": failed, "why": why,
    });
    print(json, &value, || {
        let mut line = format!("{name}: pushed {taken}, {}", human(*bytes));
        for (number, what) in [
            (was_there, "there already"),
            (gone, "gone from the folder"),
            (damaged, "damaged in the folder"),
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
        line += elsewhere;
        why.map_or(line.clone(), |why| format!("{line}: {why}"))
    })?;
    Ok(match (failed + damaged, unjudged) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Unjudged,
        _ => Outcome::Wrong,
    })
}
