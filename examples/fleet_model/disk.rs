//! The disk of a machine: a tier that takes the time of one and keeps which programs are on it.

use async_trait::async_trait;
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError,
};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::network::{Workers, lock};
use crate::programs::ProgramSet;
use crate::workload::{ProgramId, Workload, program_of};

/// What the commands of a cloud machine's disk take, beside their bytes.
const READ: Duration = Duration::from_micros(100);
const WRITE: Duration = Duration::from_micros(300);
const BYTES_PER_SECOND: f64 = 500e6;
/// Commands that it executes at once.
const COMMANDS: usize = 32;

pub(crate) struct Disk {
    clock: Clock,
    workload: Arc<Workload>,
    commands: Workers,
    programs: Mutex<ProgramSet>,
}

impl Disk {
    pub(crate) fn new(clock: Clock, workload: Arc<Workload>) -> Self {
        Self {
            clock,
            commands: Workers::new(COMMANDS, Duration::MAX),
            programs: Mutex::new(ProgramSet::new(workload.programs.len())),
            workload,
        }
    }

    async fn execute(&self, time: Duration, bytes: u64) {
        let time = time + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        let done = self.commands.serve(self.clock.now(), time);
        self.clock.sleep_until(done.expect("no limit")).await;
    }

    fn has(&self, program: ProgramId) -> bool {
        lock(&self.programs).has(program)
    }
}

#[async_trait]
impl PipelineCacheStore for Disk {
    /// Whether there is a file is known without a wait: names are in the system's cache.
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let id = program_of(key);
        if !self.has(id) {
            return Ok(Fetched::Miss);
        }
        let program = self.workload.program(id);
        self.execute(READ, program.bytes).await;
        Ok(Fetched::Hit(program.artifact.clone()))
    }

    async fn put(&self, key: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        let id = program_of(key);
        self.execute(WRITE, self.workload.program(id).bytes).await;
        lock(&self.programs).insert(id);
        Ok(())
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(self.has(program_of(key)))
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(lock(&self.programs).remove(program_of(key)))
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disk")
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}
