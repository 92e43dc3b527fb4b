//! Equal things under one number.
//!
//! A node is what it says of itself, its *fields*, and the nodes that it refers to, its children.
//! Two nodes with equal fields and equal children are one node. They are compared whole: a hash
//! only finds what to compare with.
//!
//! Nodes have an order that depends on nothing but what they are: not on their numbers, which
//! follow the source.

mod node;
mod table;

use std::cell::Cell;
use std::cmp::Ordering;
use std::hash::{BuildHasher as _, RandomState};

use super::rebase::{Rebased, Refusal};
use node::{Node, mix};
pub(super) use node::{NodeReader, NodeWriter, Written};
use table::Table;

/// The number of a node.
pub(super) type Id = u32;

/// What a node refers to: a node of the same set, or one of the module's items.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Child(u32);

/// What a [`Child`] is: a node of the same set, or an item of the module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    /// A local variable of the source, by its index.
    Local,
    Type,
    /// By the number of its value.
    Constant,
    Override,
    Global,
}

impl Child {
    /// The kind takes three bits.
    const SHIFT: u32 = 29;
    const INDEX: u32 = (1 << Self::SHIFT) - 1;

    /// No node has this number, so that what refers to it is refused.
    pub(super) const MISSING: Self = Self(Self::INDEX);

    #[inline]
    pub(super) const fn new(kind: Kind, index: u32) -> Self {
        Self(index | (kind as u32) << Self::SHIFT)
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        match self.0 >> Self::SHIFT {
            0 => Kind::Value,
            1 => Kind::Local,
            2 => Kind::Type,
            3 => Kind::Constant,
            4 => Kind::Override,
            _ => Kind::Global,
        }
    }

    #[inline]
    pub(super) const fn index(self) -> Id {
        self.0 & Self::INDEX
    }

    /// The value, if it is one of the same set.
    #[inline]
    pub(super) const fn value(self) -> Option<Id> {
        if self.0 >> Self::SHIFT == 0 {
            Some(self.0)
        } else {
            None
        }
    }
}

/// How many pairs of nodes may be compared on the way to the first difference, for each node of
/// a set, before a module is refused.
const STEPS_PER_NODE: usize = 100;
/// As many for a small set.
const STEPS: usize = 100_000;

/// A set of nodes.
#[derive(Default)]
pub(super) struct Nodes {
    /// What does not fit into the heads of nodes.
    tails: Vec<u8>,
    /// The children of nodes that have many.
    families: Vec<Child>,
    nodes: Vec<Node>,
    table: Table,
    seed: Seed,
    steps: Cell<usize>,
    /// The largest [size](Self::size).
    largest: u32,
}

struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl Nodes {
    /// Removes all nodes, keeps their memory, and makes room for as many.
    pub(super) fn clear(&mut self, room: usize) {
        self.tails.clear();
        self.families.clear();
        self.nodes.clear();
        self.nodes.reserve(room);
        self.table.clear(room);
        self.steps.set(0);
        self.largest = 0;
    }

    pub(super) const fn largest(&self) -> u32 {
        self.largest
    }

    /// The first byte of what a node says of itself.
    #[inline]
    pub(super) fn tag(&self, id: Id) -> u8 {
        self.nodes[id as usize].head as u8
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
    #[inline]
    pub(super) fn children(&self, id: Id) -> &[Child] {
        self.nodes[id as usize].children(&self.families)
    }

    /// A node, to be written.
    #[inline]
    pub(super) fn get(&self, id: Id) -> NodeReader<'_> {
        NodeReader {
            node: &self.nodes[id as usize],
            nodes: self,
        }
    }

    /// Begins a node.
    #[inline(always)]
    pub(super) fn writer(&mut self) -> NodeWriter<'_> {
        NodeWriter::new(&mut self.tails, &mut self.families)
    }

    /// The node that was written: one that is there already, or a new one. `items` are the nodes
    /// of the module's items, if these are others.
    #[inline]
    pub(super) fn intern(&mut self, items: Option<&Self>, written: Written) -> Rebased<Id> {
        if written.0.is_long() {
            self.intern_long(items, written)
        } else {
            self.intern_as::<false>(items, written)
        }
    }

    #[cold]
    fn intern_long(&mut self, items: Option<&Self>, written: Written) -> Rebased<Id> {
        self.intern_as::<true>(items, written)
    }

    #[inline(always)]
    fn intern_as<const LONG: bool>(
        &mut self,
        items: Option<&Self>,
        mut written: Written,
    ) -> Rebased<Id> {
        // It is copied once, when it is kept.
        let Written(node) = &mut written;
        let fields = node.rank_of_fields::<LONG>(&self.tails);
        node.hash = node.hash_of_children::<LONG>(self.seed.0 ^ fields, &self.families);
        let is_equal = |other| self.is_equal::<LONG>(other, node);
        let slot = self.table.find(node.hash, is_equal);
        let found = self.table.slots[slot];
        if found != Table::FREE {
            if LONG {
                self.tails.truncate(node.tail as usize);
                self.families.truncate(node.family as usize);
            }
            return Ok(found);
        }
        self.check_length::<LONG>()?;
        let items = items.map_or(&*self.nodes, |items| &items.nodes);
        let (mut rank, mut size) = (fields, 0_u32);
        let children = if LONG {
            node.children(&self.families)
        } else {
            &node.few[..node.count as usize]
        };
        for child in children {
            let below = match child.kind() {
                Kind::Value => {
                    let below = self.nodes.get(child.index() as usize).ok_or(FOLLOWS)?;
                    size = size.max(1).saturating_add(below.size);
                    below.rank
                }
                // Locals differ by nothing but their index. No operand that is sorted holds one.
                Kind::Local => 0,
                Kind::Type | Kind::Constant | Kind::Override | Kind::Global => {
                    items.get(child.index() as usize).ok_or(FOLLOWS)?.rank
                }
            };
            rank = mix(rank, below);
        }
        (node.rank, node.size) = (rank, size);
        let id = self.nodes.len() as Id;
        self.largest = self.largest.max(size);
        self.nodes.push(*node);
        self.table.slots[slot] = id;
        self.table.used += 1;
        if self.table.is_full() {
            self.table.grow(&self.nodes);
        }
        Ok(id)
    }

    /// A node that is told apart from all others by its fields alone.
    #[inline]
    pub(super) fn add(&mut self, written: Written) -> Rebased<Id> {
        let Written(mut node) = written;
        self.check_length::<true>()?;
        // What is told apart so says little: its head has room for it.
        node.rank = node.rank_of_fields::<false>(&self.tails);
        if node.children(&self.families).contains(&Child::MISSING) {
            return Err(FOLLOWS);
        }
        let id = self.nodes.len() as Id;
        self.nodes.push(node);
        Ok(id)
    }

    /// Whether a node that is there is equal to one that is not.
    #[inline(always)]
    fn is_equal<const LONG: bool>(&self, other: Id, node: &Node) -> bool {
        let other = &self.nodes[other as usize];
        other.hash == node.hash
            && (other.head, other.length) == (node.head, node.length)
            && (other.pairs(), other.count) == (node.pairs(), node.count)
            && (!LONG
                || other.tail(&self.tails) == node.tail(&self.tails)
                    && other.children(&self.families) == node.children(&self.families))
    }

    /// Refuses what has no room in the numbers of nodes.
    #[inline(always)]
    fn check_length<const LONG: bool>(&self) -> Rebased<()> {
        let mut longest = self.nodes.len();
        if LONG {
            longest = longest.max(self.tails.len()).max(self.families.len());
        }
        if longest >= Child::INDEX as usize {
            return Err(Refusal(&"the module is too large"));
        }
        Ok(())
    }

    /// The order of two nodes, which is that of nothing but what they are. `items` are the nodes of
    /// the module's items, if these are others.
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
                return Err(Refusal(&"too many values are too much alike"));
            }
            let pairs = self.children(a).iter().zip(self.children(b));
            let Some((one, two)) = pairs.map(|(a, b)| (*a, *b)).find(|(a, b)| a != b) else {
                break;
            };
            match (one.value(), two.value(), items) {
                (Some(next_a), Some(next_b), _) => (a, b) = (next_a, next_b),
                (None, None, None) => (a, b) = (one.index(), two.index()),
                (None, None, Some(items)) => {
                    return items.compare(None, one.index(), two.index());
                }
                (Some(_), None, _) => return Ok(Ordering::Less),
                (None, Some(_), _) => return Ok(Ordering::Greater),
            }
        }
        Ok(Ordering::Equal)
    }

    /// The order of two nodes by all but their children.
    fn compare_one(&self, a: Id, b: Id) -> Ordering {
        let (one, two) = (&self.nodes[a as usize], &self.nodes[b as usize]);
        let fields = |node: &Node| (node.head, node.length);
        let ranks = one.rank.cmp(&two.rank);
        ranks
            .then_with(|| fields(one).cmp(&fields(two)))
            .then_with(|| one.tail(&self.tails).cmp(two.tail(&self.tails)))
            .then_with(|| self.children(a).len().cmp(&self.children(b).len()))
    }
}

const FOLLOWS: Refusal = Refusal(&"something refers to what follows it");
