//! The folder, and what it takes to judge its entries as their readers do.

use anyhow::{Context as _, Result};
use clap::Args;
use pipeline_cache::{DiskCache, DiskCacheBuilder, TrustedKeys};
use std::path::{Path, PathBuf};

use crate::folder;
use crate::input;
use crate::secret_files;
use crate::units::bytes;

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The cache's folder [default: the user's cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "CACHECTL_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    /// A file with a secret that entries are signed with, as for cache_server. Give one for each
    /// secret in use. Without any, signed entries are not judged; with some, unsigned ones are not
    #[arg(
        long = "secret-file",
        global = true,
        value_name = "FILE",
        env = "CACHECTL_SECRET_FILE"
    )]
    secret_files: Vec<PathBuf>,
    /// The largest artifact to judge, as in 64M or 1G: that of the cache's users
    #[arg(
        long,
        global = true,
        value_name = "BYTES",
        default_value = "64M",
        value_parser = bytes,
        env = "CACHECTL_MAX_ARTIFACT"
    )]
    max_artifact: u64,
}

impl Settings {
    pub(crate) fn builder(&self) -> Result<DiskCacheBuilder> {
        let mut settings = self.judging()?;
        if let Some(root) = &self.cache_dir {
            // Before it is opened: to look at a cache is not to make one.
            folder::check(root)?;
            settings = settings.root(root);
        }
        Ok(settings)
    }

    /// What it takes to judge entries, in whatever folder.
    pub(crate) fn judging(&self) -> Result<DiskCacheBuilder> {
        let settings = DiskCache::builder().max_artifact_bytes(self.max_artifact);
        Ok(match self.trusted_keys()? {
            Some(keys) => settings.trusted_keys(keys),
            None => settings,
        })
    }

    pub(crate) async fn open(&self) -> Result<DiskCache> {
        Ok(self.builder()?.open().await?)
    }

    /// For entries that come from elsewhere: the folder is made where it is missing.
    pub(crate) async fn open_or_create(&self) -> Result<DiskCache> {
        let mut settings = self.judging()?;
        if let Some(root) = &self.cache_dir {
            folder::check_unless_new(root)?;
            settings = settings.root(root);
        }
        Ok(settings.open().await?)
    }

    /// The folder of a command that takes one as an argument. There is no default: whoever forgets the
    /// folder does not mean to ship that of the user.
    pub(crate) fn folder<'a>(&'a self, argument: Option<&'a Path>) -> Result<&'a Path> {
        let folder = argument.or(self.cache_dir.as_deref());
        folder.context("no folder: name it as an argument or with --cache-dir")
    }

    /// The secrets that entries are signed with, here and on a remote.
    pub(crate) fn trusted_keys(&self) -> Result<Option<TrustedKeys>> {
        secret_files::trusted_keys(&self.secret_files, input::read)
    }

    pub(crate) fn max_artifact(&self) -> u64 {
        self.max_artifact
    }
}
