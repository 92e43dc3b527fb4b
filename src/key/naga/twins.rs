//! Functions that are one: of one signature and one body, once both are canonical.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// The functions of a canonical module that have no name.
#[derive(Default)]
pub(super) struct Twins {
    /// The first function of each length, unless it is among the others by now.
    by_length: BTreeMap<usize, Option<Written>>,
    /// The others, by a hash of all that they are.
    by_hash: HashMap<u64, Vec<Written>>,
    seed: RandomState,
}

/// A function, by its index, and where it is written.
struct Written {
    index: u32,
    bytes: Range<usize>,
}

impl Twins {
    /// The function that is equal to the last one of `functions`, which has been `added` and begins
    /// at `start`. If there is none, the last one is noted.
    pub(super) fn find(&mut self, functions: &[u8], start: usize, added: u32) -> Option<u32> {
        let last = Written {
            index: added,
            bytes: start..functions.len(),
        };
        let first = match self.by_length.entry(last.bytes.len()) {
            Entry::Vacant(free) => {
                free.insert(Some(last));
                return None;
            }
            Entry::Occupied(known) => known.into_mut().take(),
        };
        if let Some(first) = first {
            self.alike(functions, &first).push(first);
        }
        let alike = self.alike(functions, &last);
        let bytes = &functions[last.bytes.clone()];
        let twin = alike
            .iter()
            .find(|one| functions[one.bytes.clone()] == *bytes);
        if let Some(twin) = twin {
            return Some(twin.index);
        }
        alike.push(last);
        None
    }

    /// The functions with the hash of one.
    fn alike(&mut self, functions: &[u8], one: &Written) -> &mut Vec<Written> {
        let hash = self.seed.hash_one(&functions[one.bytes.clone()]);
        self.by_hash.entry(hash).or_default()
    }
}
