//! A set of programs, a bit for each: ten thousand machines have one.

use crate::workload::ProgramId;

#[derive(Debug)]
pub(crate) struct ProgramSet(Vec<u64>);

impl ProgramSet {
    /// An empty set that has room for programs below `programs`.
    pub(crate) fn new(programs: usize) -> Self {
        Self(vec![0; programs.div_ceil(64)])
    }

    pub(crate) fn has(&self, program: ProgramId) -> bool {
        let (word, bit) = place(program);
        self.0[word] & bit != 0
    }

    pub(crate) fn insert(&mut self, program: ProgramId) {
        let (word, bit) = place(program);
        self.0[word] |= bit;
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, program: ProgramId) -> bool {
        let was_there = self.has(program);
        let (word, bit) = place(program);
        self.0[word] &= !bit;
        was_there
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ProgramId> + '_ {
        (0..self.0.len() as u32 * 64).filter(|program| self.has(*program))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many of these are not in the other set.
    pub(crate) fn missing_in(&self, other: &Self) -> usize {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(here, there)| (here & !there).count_ones() as usize)
            .sum()
    }
}

fn place(program: ProgramId) -> (usize, u64) {
    (program as usize / 64, 1 << (program % 64))
}
