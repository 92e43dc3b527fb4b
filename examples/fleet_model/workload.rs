//! What is asked for, when, and what it costs to compile. All of it follows from the seed.

use anyhow::{Context as _, Result};
use pipeline_cache::{Artifact, PipelineFingerprint};
use rand::distr::Distribution as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Exp, LogNormal, Zipf};
use std::time::Duration;

use crate::args::Load;

/// Artifacts are no smaller and no larger: a `RedisCache` takes 1 MiB by default.
const SMALLEST: f64 = 1024.0;
const LARGEST: f64 = (1 << 20) as f64;

fn log_normal(median: f64, sigma: f64) -> Result<LogNormal<f64>> {
    LogNormal::new(median.ln(), sigma).context("no such distribution")
}

/// A program, by its place in the order of popularity, counted from 0.
pub(crate) type ProgramId = u32;

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) key: PipelineFingerprint,
    pub(crate) compile_time: Duration,
    /// What travels.
    pub(crate) bytes: u64,
    pub(crate) artifact: Artifact,
}

#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) programs: Vec<Program>,
    seed: u64,
    popularity: Zipf<f64>,
    gaps: Exp<f64>,
    start_within: f64,
    seconds: f64,
}

/// What artifacts are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payloads {
    /// Their keys, whatever their sizes: in the model.
    Short,
    /// As many random bytes as their sizes say, and keys that no other run has.
    Whole { run: u64 },
}

impl Workload {
    pub(crate) fn new(load: &Load, payloads: Payloads) -> Result<Self> {
        let mut random = SmallRng::seed_from_u64(load.seed);
        let times = log_normal(load.compile_ms, load.compile_sigma)?;
        let sizes = log_normal(load.artifact_kib * 1024.0, load.artifact_sigma)?;
        let programs = (0..load.programs).map(|id| {
            let compile_time = Duration::from_secs_f64(times.sample(&mut random) / 1e3);
            let bytes = sizes.sample(&mut random).clamp(SMALLEST, LARGEST) as u64;
            let (key, length) = match payloads {
                Payloads::Short => (key_of(load.seed, id), PipelineFingerprint::LEN),
                Payloads::Whole { run } => (key_of(run, id), bytes as usize),
            };
            Program {
                key,
                compile_time,
                bytes,
                artifact: Artifact::new(random_bytes(&key, length)),
            }
        });
        Ok(Self {
            programs: programs.collect(),
            seed: load.seed,
            popularity: Zipf::new(f64::from(load.programs), load.zipf).context("no such mix")?,
            gaps: Exp::new(load.rate).context("no such rate")?,
            start_within: load.start_within,
            seconds: load.seconds,
        })
    }

    pub(crate) fn program(&self, id: ProgramId) -> &Program {
        &self.programs[id as usize]
    }

    /// When a machine asks, and for what: at random times, the first of them when it has started.
    pub(crate) fn requests(
        &self,
        machine: usize,
    ) -> impl Iterator<Item = (Duration, ProgramId)> + use<> {
        let seed = blake3::hash(&[self.seed, machine as u64].map(u64::to_le_bytes).concat());
        let mut random = SmallRng::from_seed(*seed.as_bytes());
        let (popularity, gaps, seconds) = (self.popularity, self.gaps, self.seconds);
        let last = self.programs.len() as u32 - 1;
        let mut at = random.random_range(0.0..=self.start_within);
        std::iter::from_fn(move || {
            at += gaps.sample(&mut random);
            let place = popularity.sample(&mut random) as u32;
            let program = place.saturating_sub(1).min(last);
            (at < seconds).then(|| (Duration::from_secs_f64(at), program))
        })
    }
}

/// The key holds the program, for the model's stores.
fn key_of(seed: u64, id: ProgramId) -> PipelineFingerprint {
    let mut bytes = *blake3::hash(&[seed, u64::from(id)].map(u64::to_le_bytes).concat()).as_bytes();
    bytes[28..].copy_from_slice(&id.to_le_bytes());
    PipelineFingerprint::from_bytes(bytes)
}

/// The program that has this key.
pub(crate) fn program_of(key: &PipelineFingerprint) -> ProgramId {
    let [.., a, b, c, d] = *key.as_bytes();
    ProgramId::from_le_bytes([a, b, c, d])
}

/// Bytes that follow from the key and cannot be compressed.
fn random_bytes(key: &PipelineFingerprint, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
