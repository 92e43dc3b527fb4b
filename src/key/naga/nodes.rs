//! Equal things under one number.
//!
//! A node is what it says of itself, its *fields*, and the nodes that it refers to, its children.
//! Two nodes with equal fields and equal children are one node. They are compared whole: a hash
//! only finds what to compare with.
//!
//! Nodes have an order that depends on nothing but what they are: not on their numbers, which
//! follow the source.

use std::cell::Cell;
use std::cmp::Ordering;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::rebase::{Rebased, Refusal};
use crate::key::WireWriter;

/// The number of a node.
pub(super) type Id = u32;

/// What a node refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// A node of the same set.
    Node(Id),
    /// A node of the module's items.
    Item(Id),
}

/// How many pairs of nodes may be compared on the way to the first difference, for each node of
/// a set, before a module is refused.
const STEPS_PER_NODE: usize = 100;
/// As many for a small set.
const STEPS: usize = 100_000;

/// A set of nodes.
#[derive(Default)]
pub(super) struct Nodes {
    fields: Fields,
    children: Vec<Child>,
    nodes: Vec<Node>,
    table: HashTable<Id>,
    seed: Seed,
    steps: Cell<usize>,
}

struct Node {
    fields_end: usize,
    children_end: usize,
    /// A hash of what the node is, all the way down, which is the same in every process. Where
    /// two are equal, the nodes are compared.
    rank: u64,
    /// Finds the node in the table. Nobody outside of the process can foresee it.
    hash: u64,
    /// How many nodes of the set stand in it as a tree, without those that have no children in the
    /// set. None are in one that is told apart by its fields alone.
    size: u32,
}

/// The fields of all nodes, one after the other.
struct Fields(WireWriter);

impl Default for Fields {
    fn default() -> Self {
        Self(WireWriter::collecting())
    }
}

struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl Nodes {
    /// Removes all nodes, and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.fields.0.truncate(0);
        self.children.clear();
        self.nodes.clear();
        self.table.clear();
        self.steps.set(0);
    }

    /// Makes room for as many nodes more.
    pub(super) fn reserve(&mut self, count: usize) {
        self.nodes.reserve(count);
        let nodes = &self.nodes;
        self.table
            .reserve(count, |other| nodes[*other as usize].hash);
    }

    /// How many nodes stand in one, as a tree.
    pub(super) fn size(&self, id: Id) -> u32 {
        self.nodes[id as usize].size
    }

    /// How many nodes there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What a node refers to, in order.
    pub(super) fn children(&self, id: Id) -> &[Child] {
        children_of(&self.nodes, &self.children, id as usize)
    }

    /// The node of what is written: one that is there already, or a new one.
    pub(super) fn intern(
        &mut self,
        items: Option<&Self>,
        write: impl FnOnce(&mut WireWriter, &mut Vec<Child>),
    ) -> Rebased<Id> {
        let id = self.append(items, true, write)?;
        let Self {
            fields,
            children,
            nodes,
            table,
            ..
        } = self;
        let node = &nodes[id as usize];
        let hash = node.hash;
        let is_equal = |other: &Id| {
            let other = *other as usize;
            nodes[other].hash == hash
                && fields_of(nodes, fields, other) == fields_of(nodes, fields, id as usize)
                && children_of(nodes, children, other) == children_of(nodes, children, id as usize)
        };
        match table.entry(hash, is_equal, |other| nodes[*other as usize].hash) {
            Entry::Vacant(vacant) => {
                vacant.insert(id);
                Ok(id)
            }
            Entry::Occupied(found) => {
                let found = *found.get();
                self.nodes.pop();
                let (fields_end, children_end) = ends(&self.nodes);
                self.fields.0.truncate(fields_end);
                self.children.truncate(children_end);
                Ok(found)
            }
        }
    }

    /// A node that is told apart from all others by its fields alone.
    pub(super) fn add(
        &mut self,
        write: impl FnOnce(&mut WireWriter, &mut Vec<Child>),
    ) -> Rebased<Id> {
        self.append(None, false, write)
    }

    fn append(
        &mut self,
        items: Option<&Self>,
        children_count: bool,
        write: impl FnOnce(&mut WireWriter, &mut Vec<Child>),
    ) -> Rebased<Id> {
        let fields_start = self.fields.0.written().len();
        let children_start = self.children.len();
        write(&mut self.fields.0, &mut self.children);
        let mut rank = rank_of(&self.fields.0.written()[fields_start..]);
        let mut hash = self.seed.0;
        let mut size = 0_u32;
        for child in &self.children[children_start..] {
            let (below, id) = match *child {
                Child::Node(id) => (self.nodes.get(id as usize), id),
                Child::Item(id) => (items.and_then(|items| items.nodes.get(id as usize)), !id),
            };
            let below = below.ok_or(Refusal("an item refers to one that follows it"))?;
            if children_count && matches!(child, Child::Node(_)) {
                size = size.max(1).saturating_add(below.size);
            }
            if children_count {
                rank = mix(rank, below.rank);
            }
            hash = mix(hash, u64::from(id));
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| Refusal("the module is too large"))?;
        self.nodes.push(Node {
            fields_end: self.fields.0.written().len(),
            children_end: self.children.len(),
            rank,
            hash: mix(hash, rank),
            size,
        });
        Ok(id)
    }

    /// The order of two nodes, which is that of nothing but what they are.
    ///
    /// Different numbers are different nodes, so that the first difference decides, and there is
    /// one way down to it.
    pub(super) fn compare(&self, items: Option<&Self>, a: Id, b: Id) -> Rebased<Ordering> {
        let (mut a, mut b) = (a, b);
        let most = STEPS_PER_NODE * self.nodes.len() + STEPS;
        while a != b {
            let order = self.compare_one(a, b);
            if order.is_ne() {
                return Ok(order);
            }
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > most {
                return Err(Refusal("too many values are too much alike"));
            }
            let pairs = self.children(a).iter().zip(self.children(b));
            match pairs.map(|(a, b)| (*a, *b)).find(|(a, b)| a != b) {
                Some((Child::Node(next_a), Child::Node(next_b))) => (a, b) = (next_a, next_b),
                Some((Child::Item(a), Child::Item(b))) => {
                    return items.map_or(Ok(Ordering::Equal), |items| items.compare(None, a, b));
                }
                Some((Child::Node(_), Child::Item(_))) => return Ok(Ordering::Less),
                Some((Child::Item(_), Child::Node(_))) => return Ok(Ordering::Greater),
                None => break,
            }
        }
        Ok(Ordering::Equal)
    }

    /// The order of two nodes by all but their children.
    fn compare_one(&self, a: Id, b: Id) -> Ordering {
        let (one, two) = (&self.nodes[a as usize], &self.nodes[b as usize]);
        let ranks = one.rank.cmp(&two.rank);
        ranks
            .then_with(|| self.fields(a).cmp(self.fields(b)))
            .then_with(|| self.children(a).len().cmp(&self.children(b).len()))
    }

    fn fields(&self, id: Id) -> &[u8] {
        fields_of(&self.nodes, &self.fields, id as usize)
    }
}

fn fields_of<'n>(nodes: &[Node], fields: &'n Fields, id: usize) -> &'n [u8] {
    &fields.0.written()[ends(&nodes[..id]).0..nodes[id].fields_end]
}

fn children_of<'n>(nodes: &[Node], children: &'n [Child], id: usize) -> &'n [Child] {
    &children[ends(&nodes[..id]).1..nodes[id].children_end]
}

/// Where the fields and the children of some nodes end.
fn ends(nodes: &[Node]) -> (usize, usize) {
    nodes
        .last()
        .map_or((0, 0), |last| (last.fields_end, last.children_end))
}

/// A hash that is the same everywhere, by eight bytes at a time. The last eight may overlap those
/// before them.
fn rank_of(fields: &[u8]) -> u64 {
    let mut rank = fields.len() as u64;
    for word in fields.chunks_exact(8) {
        rank = mix(rank, word.try_into().map_or(0, u64::from_le_bytes));
    }
    mix(rank, last_word(fields))
}

fn last_word(fields: &[u8]) -> u64 {
    if let Some(last) = fields.last_chunk() {
        return u64::from_le_bytes(*last);
    }
    if let (Some(first), Some(last)) = (fields.first_chunk(), fields.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    // Up to three bytes.
    fields
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[inline]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ (product >> 64) as u64
}
