//! A set of the module's variables.

/// A set of variables, one bit each.
#[derive(Clone, Default)]
pub(super) struct GlobalSet(Vec<u64>);

impl GlobalSet {
    pub(super) fn insert(&mut self, global: u32) {
        let (word, bit) = (global as usize / 64, global % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub(super) fn insert_all(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&others.0) {
            *mine |= theirs;
        }
    }

    pub(super) fn contains(&self, global: u32) -> bool {
        let (word, bit) = (global as usize / 64, global % 64);
        self.0.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }
}
