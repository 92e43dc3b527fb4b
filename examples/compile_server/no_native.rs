//! A build without wasmtime, which has no target `native`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use pipeline_cache::layered::{CloseReport, Compiled};
use pipeline_cache::{CompileError, LayeredPipelineCache};

use crate::compile::Wish;
use crate::shader::ShaderError;

/// There is none.
#[derive(Debug)]
pub(crate) enum Native {}

impl Native {
    pub(crate) async fn open(_folder: &Path, _max_bytes: u64) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) async fn compile(
        &self,
        _cache: &LayeredPipelineCache,
        _wish: Wish,
    ) -> Result<Compiled, CompileError<ShaderError>> {
        match *self {}
    }

    pub(crate) async fn close(&self, _limit: Duration) -> CloseReport {
        match *self {}
    }
}
