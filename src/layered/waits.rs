//! Which compile waits for which: a request that would close a circle is told at once.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use crate::key::PipelineFingerprint;
use crate::sync::lock::lock;

/// A compile, in any cache of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The compile of a key in the cache of this number.
    Keyed(u64, PipelineFingerprint),
    /// A compile without a key. Nobody can join it.
    Unkeyed(u64),
}

impl Node {
    pub(super) const fn key(&self) -> Option<PipelineFingerprint> {
        match self {
            Self::Keyed(_, key) => Some(*key),
            Self::Unkeyed(_) => None,
        }
    }
}

/// For each compile, those that it waits for; one of them more than once, if it asked so often.
type Waits = HashMap<Node, Vec<Node>>;

/// One for the process: compiles of several caches can wait for each other as well.
static WAITS: LazyLock<Mutex<Waits>> = LazyLock::new(Mutex::default);

/// The wait of one compile for another, while it lives.
#[derive(Debug)]
pub(super) struct Wait {
    from: Node,
    to: Node,
}

impl Wait {
    /// Begins a wait, or returns the chain of compiles that it would make a circle of. The chain
    /// begins and ends with `from`.
    pub(super) fn begin(from: Node, to: Node) -> Result<Self, Vec<Node>> {
        let mut waits = lock(&WAITS);
        if let Some(path) = path(&waits, to, from) {
            return Err(std::iter::once(from).chain(path).collect());
        }
        waits.entry(from).or_default().push(to);
        Ok(Self { from, to })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waits = lock(&WAITS);
        let Some(of_from) = waits.get_mut(&self.from) else {
            return;
        };
        if let Some(at) = of_from.iter().position(|to| *to == self.to) {
            of_from.swap_remove(at);
        }
        if of_from.is_empty() {
            waits.remove(&self.from);
        }
    }
}

/// The way from one compile to another along the waits, both included. There are no circles, and each
/// compile is visited once.
fn path(waits: &Waits, from: Node, to: Node) -> Option<Vec<Node>> {
    let mut reached_from = HashMap::from([(from, None)]);
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        if node == to {
            let mut path = vec![node];
            let mut at = node;
            while let Some(Some(previous)) = reached_from.get(&at) {
                path.push(*previous);
                at = *previous;
            }
            path.reverse();
            return Some(path);
        }
        for next in waits.get(&node).into_iter().flatten() {
            reached_from.entry(*next).or_insert_with(|| {
                open.push(*next);
                Some(node)
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> Node {
        Node::Keyed(
            u64::MAX,
            PipelineFingerprint::from_bytes([number; PipelineFingerprint::LEN]),
        )
    }

    #[test]
    fn the_wait_that_closes_a_circle_is_told_the_chain() {
        let [a, b, c, d] = [1, 2, 3, 4].map(node);
        assert_eq!(Wait::begin(a, a).unwrap_err(), [a, a]);
        let _a_b = Wait::begin(a, b).unwrap();
        let _a_d = Wait::begin(a, d).unwrap();
        let b_c = Wait::begin(b, c).unwrap();
        assert_eq!(Wait::begin(c, a).unwrap_err(), [c, a, b, c]);
        // Others are not held up.
        let _c_d = Wait::begin(c, d).unwrap();
        drop(b_c);
        let _c_a = Wait::begin(c, a).unwrap();
    }

    #[test]
    fn a_wait_that_is_begun_twice_ends_twice() {
        let [a, b] = [11, 12].map(node);
        let (one, two) = (Wait::begin(a, b).unwrap(), Wait::begin(a, b).unwrap());
        drop(one);
        assert!(Wait::begin(b, a).is_err());
        drop(two);
        assert!(Wait::begin(b, a).is_ok());
    }
}
