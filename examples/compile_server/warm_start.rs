//! A warm start: what the last run used is fetched before it is asked for, and this run is recorded.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use pipeline_cache::LayeredPipelineCache;
use pipeline_cache::layered::{RecordedRun, RecordedRunError, RunningPrefetch};

use crate::http_server::console::say;

/// Starts to fetch what a run used, beside the requests, until the value is dropped. The first start has
/// no run yet.
pub(crate) async fn begin(
    cache: &LayeredPipelineCache,
    file: Option<&Path>,
) -> Result<Option<RunningPrefetch>> {
    let Some(file) = file else {
        return Ok(None);
    };
    match RecordedRun::load(file).await {
        Ok(run) => Ok(Some(cache.prefetch(&run).start()?)),
        Err(RecordedRunError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            say(format_args!("no recorded run in {} yet", file.display()));
            Ok(None)
        }
        Err(error) => Err(error).context("cannot prefetch"),
    }
}

/// Stops the prefetch and saves what this run used. A run without a request leaves the file as it is.
pub(crate) async fn end(
    cache: &LayeredPipelineCache,
    prefetch: Option<RunningPrefetch>,
    file: Option<&Path>,
) {
    if let Some(prefetch) = prefetch {
        prefetch.cancel();
        say(prefetch.finish().await);
    }
    let (Some(file), Some(run)) = (file, cache.recorded_run().await) else {
        return;
    };
    if run.keys().is_empty() {
        return;
    }
    if let Err(error) = run.save(file).await {
        let error = anyhow::Error::from(error);
        say(format_args!("{error:#}"));
    }
}
