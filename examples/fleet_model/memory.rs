//! The memory of a machine: a tier that takes no time and never evicts. It keeps which programs it has,
//! a bit for each. The library's own takes some hundred KiB however little it may hold, and there are ten
//! thousand machines.

use async_trait::async_trait;
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError,
};
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::network::lock;
use crate::programs::ProgramSet;
use crate::workload::{Workload, program_of};

pub(crate) struct Memory {
    workload: Arc<Workload>,
    programs: Mutex<ProgramSet>,
}

impl Memory {
    pub(crate) fn new(workload: Arc<Workload>) -> Self {
        Self {
            programs: Mutex::new(ProgramSet::new(workload.programs.len())),
            workload,
        }
    }
}

#[async_trait]
impl PipelineCacheStore for Memory {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let id = program_of(key);
        let is_there = lock(&self.programs).has(id);
        is_there.then(|| self.workload.program(id).artifact.clone())
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        Ok(Fetched::from(self.peek(key)))
    }

    async fn put(&self, key: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        lock(&self.programs).insert(program_of(key));
        Ok(())
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(lock(&self.programs).has(program_of(key)))
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(lock(&self.programs).remove(program_of(key)))
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
