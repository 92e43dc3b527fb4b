//! Which shader is asked for, and how it is spelled.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::RngExt as _;
use rand::distr::Distribution as _;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use crate::build_passes::sources::Source;
use crate::spellings::spellings;

pub(crate) struct Mix {
    /// The spellings of each shader, the most wanted one first.
    shaders: Vec<Vec<Bytes>>,
    /// Of the place of a shader, counted from 1.
    place: Zipf<f64>,
}

impl Mix {
    pub(crate) fn new(sources: &[Source], count: usize, exponent: f64) -> Result<Self> {
        ensure!(!sources.is_empty(), "there are no shaders");
        let shaders = sources.iter().map(|source| spellings(source, count));
        Ok(Self {
            shaders: shaders.collect::<Result<_>>()?,
            place: Zipf::new(sources.len() as f64, exponent).context("no such mix")?,
        })
    }

    /// A shader, by its number, in one of its spellings.
    pub(crate) fn choose(&self, random: &mut SmallRng) -> (usize, Bytes) {
        let shader = (self.place.sample(random) as usize).saturating_sub(1);
        let shader = shader.min(self.shaders.len() - 1);
        let spellings = &self.shaders[shader];
        (
            shader,
            spellings[random.random_range(..spellings.len())].clone(),
        )
    }
}
