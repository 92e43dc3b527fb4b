//! Downloads from a remote what the folder does not have.

use anyhow::Result;
use clap::Args;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::layered::{RecordedKind, RecordedRun};
use pipeline_cache::{
    DiskCache, Fetched, PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind,
};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::read_keys;
use crate::remote::{Remote, RemoteOptions};
use crate::settings::Settings;
use crate::units::human;
use crate::{Outcome, print, progress_bar};

#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    remote: RemoteOptions,
    /// A file with the keys of the artifacts to pull, one a line, in hex [default: all artifacts of an
    /// object store; an HTTP remote cannot be listed]
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    keys: Option<PathBuf>,
    /// A recorded run, whose artifacts and known spellings are pulled, the most valuable first
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
}

/// What is to be pulled.
type Wanted = (PipelineFingerprint, RecordedKind);

/// What became of one key.
enum Pulled {
    /// The folder took so many bytes of payload.
    Stored(u64),
    /// The folder had it.
    WasThere,
    /// The remote does not have it.
    Missing,
    Damaged,
    /// The settings keep the tool from judging it.
    Unjudged,
    Failed(StoreError),
}

#[derive(Debug, Default)]
struct Summary {
    stored: u64,
    bytes: u64,
    was_there: u64,
    missing: u64,
    damaged: u64,
    unjudged: u64,
    failed: u64,
    /// Of the first that failed.
    why: Option<StoreError>,
}

/// The same kind of entry on both sides.
struct Pair {
    here: DiskCache,
    there: Arc<dyn PipelineCacheStore>,
}

impl Pull {
    pub(crate) async fn run(&self, settings: &Settings, json: bool) -> Result<Outcome> {
        // Before the folder is touched.
        let remote = self.remote.open(settings)?;
        let (wanted, number) = self.wanted(&remote).await?;
        let cache = settings.open_or_create().await?;
        let aliases = cache.aliases().cloned();
        let aliases = aliases.zip(remote.store.alias_stores().into_iter().next());
        let aliases = aliases.map(|(here, there)| Pair { here, there });
        let artifacts = Pair {
            here: cache.clone(),
            there: Arc::clone(&remote.store),
        };
        let bar = progress_bar();
        bar.set_length(number.unwrap_or(0));
        let pull = |(key, kind)| {
            if number.is_none() {
                bar.inc_length(1);
            }
            let pair = match kind {
                RecordedKind::SourceAlias => aliases.as_ref(),
                _ => Some(&artifacts),
            };
            async move {
                Ok(match pair {
                    Some(pair) => pair.pull(&key).await,
                    None => Pulled::Missing,
                })
            }
        };
        let concurrency = self.remote.concurrency();
        let mut pulls = wanted.map_ok(pull).try_buffer_unordered(concurrency);
        let mut summary = Summary::default();
        while let Some(pulled) = pulls.try_next().await? {
            summary.add(pulled);
            bar.set_message(human(summary.bytes));
            bar.inc(1);
        }
        drop(pulls);
        bar.finish_and_clear();
        cache.close(Duration::from_secs(60)).await?;
        summary.report(&remote, json)
    }

    /// What is to be pulled, and how much that is, where it is known.
    async fn wanted(
        &self,
        remote: &Remote,
    ) -> Result<(BoxStream<'static, Result<Wanted, StoreError>>, Option<u64>)> {
        let wanted: Vec<Wanted> = match (&self.keys, &self.run) {
            (Some(file), _) => {
                let keys = read_keys(file)?.into_iter();
                keys.map(|key| (key, RecordedKind::Artifact)).collect()
            }
            (None, Some(file)) => {
                let keys = RecordedRun::load(file).await?.most_valuable_first();
                keys.iter().map(|key| (key.key, key.kind)).collect()
            }
            (None, None) => {
                let keys = remote.keys()?;
                let wanted = keys.map_ok(|key| (key, RecordedKind::Artifact));
                return Ok((wanted.boxed(), None));
            }
        };
        let number = wanted.len() as u64;
        Ok((stream::iter(wanted).map(Ok).boxed(), Some(number)))
    }
}

impl Pair {
    async fn pull(&self, key: &PipelineFingerprint) -> Pulled {
        match self.here.contains(key).await {
            Ok(true) => return Pulled::WasThere,
            Ok(false) => {}
            Err(error) => return Pulled::Failed(error),
        }
        let artifact = match self.there.fetch(key).await {
            Ok(Fetched::Hit(artifact)) => artifact,
            Ok(Fetched::Miss) => return Pulled::Missing,
            Ok(Fetched::Refused) => return Pulled::Unjudged,
            Ok(_) => return Pulled::Damaged,
            Err(error) => return Pulled::Failed(error),
        };
        let bytes = artifact.len() as u64;
        match self.here.put(key, artifact).await {
            Ok(()) => Pulled::Stored(bytes),
            // It is in the way of an entry that these settings cannot judge.
            Err(error) if error.kind() == StoreErrorKind::Foreign => Pulled::Unjudged,
            Err(error) => Pulled::Failed(error),
        }
    }
}

impl Summary {
    fn add(&mut self, pulled: Pulled) {
        *match pulled {
            Pulled::Stored(bytes) => {
                self.bytes += bytes;
                &mut self.stored
            }
            Pulled::WasThere => &mut self.was_there,
            Pulled::Missing => &mut self.missing,
            Pulled::Damaged => &mut self.damaged,
            Pulled::Unjudged => &mut self.unjudged,
            Pulled::Failed(error) => {
                self.why.get_or_insert(error);
                &mut self.failed
            }
        } += 1;
    }

    fn report(&self, remote: &Remote, json: bool) -> Result<Outcome> {
        let (name, why) = (
            &remote.name,
            self.why.as_ref().map(|error| remote.why(error)),
        );
        let value = json!({
            "remote": name, "pulled": self.stored, "bytes": self.bytes,
            "was_there": self.was_there, "missing": self.missing, "damaged": self.damaged,
            "not_judged": self.unjudged, "left": self.failed, "why": why,
        });
        print(json, &value, || {
            let mut line = format!("{name}: pulled {}, {}", self.stored, human(self.bytes));
            for (number, what) in [
                (self.was_there, "there already"),
                (self.missing, "not on the remote"),
                (self.damaged, "damaged"),
                (
                    self.unjudged,
                    "not judged and left: see --secret-file and --max-artifact",
                ),
                (self.failed, "left"),
            ] {
                if number > 0 {
                    line += &format!(", {number} {what}");
                }
            }
            let found = self.stored + self.damaged + self.unjudged + self.failed;
            if let (1.., 0, Some(hint)) = (self.missing, found, remote.base_url_hint()) {
                line += &format!("; {hint}");
            }
            why.map_or(line.clone(), |why| format!("{line}: {why}"))
        })?;
        Ok(
            match (self.missing + self.damaged + self.failed, self.unjudged) {
                (0, 0) => Outcome::Fine,
                (0, _) => Outcome::Unjudged,
                _ => Outcome::Wrong,
            },
        )
    }
}
