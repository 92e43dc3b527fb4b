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

use super::rebase::{Rebased, Refusal};
use crate::key::WireWriter;

/// The number of a node.
pub(super) type Id = u32;

/// What a node refers to: a node of the same set, or one of the module's items.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Child(u32);

impl Child {
    const ITEM: u32 = 1 << 31;

    /// A node of the same set.
    pub(super) const fn of_set(id: Id) -> Self {
        Self(id)
    }

    /// A node of the module's items.
    pub(super) const fn of_items(id: Id) -> Self {
        Self(id | Self::ITEM)
    }

    /// The node, if it is one of the same set.
    pub(super) const fn in_set(self) -> Option<Id> {
        if self.0 & Self::ITEM == 0 {
            Some(self.0)
        } else {
            None
        }
    }

    const fn in_items(self) -> Id {
        self.0 & !Self::ITEM
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
    fields: Fields,
    children: Vec<Child>,
    nodes: Vec<Node>,
    table: Table,
    seed: Seed,
    steps: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Node {
    fields: Span,
    children: Span,
    /// A hash of what the node is, all the way down, which is the same in every process. Where
    /// two are equal, the nodes are compared.
    rank: u64,
    /// Finds the node in the table. Nobody outside of the process can foresee it.
    hash: u64,
    /// How many nodes of the set stand in it as a tree, without those that have no children in the
    /// set. None are in one that is told apart by its fields alone.
    size: u32,
}

/// Where the fields or the children of a node are among those of all nodes.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// What was added at the end of a list. [`Nodes::push`] refuses a list that is too long for it.
    const fn since(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    #[inline]
    fn of<T>(self, list: &[T]) -> &[T] {
        &list[self.start as usize..self.end as usize]
    }
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

/// Finds nodes by their hash: each is in the first free slot from its own on. At least half of the
/// slots are free.
struct Table {
    slots: Vec<Id>,
    used: usize,
}

impl Default for Table {
    fn default() -> Self {
        let slots = vec![Self::FREE];
        Self { slots, used: 0 }
    }
}

impl Table {
    const FREE: Id = Id::MAX;

    /// Removes all nodes, and makes room for some.
    fn clear(&mut self, room: usize) {
        self.slots.clear();
        self.slots
            .resize((2 * room).next_power_of_two(), Self::FREE);
        self.used = 0;
    }

    /// The slot of a node that is found, or a free one.
    #[inline]
    fn find(&self, hash: u64, is_equal: impl Fn(Id) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != Self::FREE && !is_equal(self.slots[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Takes twice the slots if they are half full, in which case the slots are others.
    fn grow(&mut self, nodes: &[Node]) -> bool {
        if 2 * (self.used + 1) <= self.slots.len() {
            return false;
        }
        let full = std::mem::take(&mut self.slots);
        let used = self.used;
        self.clear(full.len().max(8));
        for id in full.into_iter().filter(|id| *id != Self::FREE) {
            let slot = self.find(nodes[id as usize].hash, |_| false);
            self.slots[slot] = id;
        }
        self.used = used;
        true
    }
}

impl Nodes {
    /// Removes all nodes, keeps their memory, and makes room for as many.
    pub(super) fn clear(&mut self, room: usize) {
        self.fields.0.truncate(0);
        self.children.clear();
        self.nodes.clear();
        self.nodes.reserve(room);
        self.table.clear(room);
        self.steps.set(0);
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
        self.nodes[id as usize].children.of(&self.children)
    }

    /// The node of what is written: one that is there already, or a new one.
    #[inline]
    pub(super) fn intern(
        &mut self,
        items: Option<&Self>,
        write: impl FnOnce(&mut WireWriter, &mut Vec<Child>),
    ) -> Rebased<Id> {
        let (fields, children) = self.written(write);
        self.find_or_add(items, fields, children)
    }

    /// A node that is told apart from all others by its fields alone.
    #[inline]
    pub(super) fn add(
        &mut self,
        write: impl FnOnce(&mut WireWriter, &mut Vec<Child>),
    ) -> Rebased<Id> {
        let (fields, children) = self.written(write);
        let rank = rank_of(fields.of(self.fields.0.written()));
        self.push(Node {
            fields,
            children,
            rank,
            hash: rank,
            size: 0,
        })
    }

    #[inline]
    fn written(&mut self, write: impl FnOnce(&mut WireWriter, &mut Vec<Child>)) -> (Span, Span) {
        let (fields, children) = (self.fields.0.written().len(), self.children.len());
        write(&mut self.fields.0, &mut self.children);
        (
            Span::since(fields, self.fields.0.written().len()),
            Span::since(children, self.children.len()),
        )
    }

    fn find_or_add(&mut self, items: Option<&Self>, fields: Span, children: Span) -> Rebased<Id> {
        let own_fields = fields.of(self.fields.0.written());
        let own_children = children.of(&self.children);
        let mut rank = rank_of(own_fields);
        let mut hash = self.seed.0;
        let mut size = 0_u32;
        for child in own_children {
            let (below, operations) = match child.in_set() {
                Some(id) => (self.nodes.get(id as usize), 1),
                None => {
                    let id = child.in_items() as usize;
                    (items.and_then(|items| items.nodes.get(id)), 0)
                }
            };
            let below = below.ok_or(Refusal("an item refers to one that follows it"))?;
            size = size.max(operations).saturating_add(operations * below.size);
            rank = mix(rank, below.rank);
            hash = mix(hash, u64::from(child.0));
        }
        hash = mix(hash, rank);
        let is_equal = |other: Id| {
            let other = &self.nodes[other as usize];
            other.hash == hash
                && other.fields.of(self.fields.0.written()) == own_fields
                && other.children.of(&self.children) == own_children
        };
        let mut slot = self.table.find(hash, is_equal);
        let found = self.table.slots[slot];
        if found != Table::FREE {
            self.fields.0.truncate(fields.start as usize);
            self.children.truncate(children.start as usize);
            return Ok(found);
        }
        if self.table.grow(&self.nodes) {
            slot = self.table.find(hash, |_| false);
        }
        let id = self.push(Node {
            fields,
            children,
            rank,
            hash,
            size,
        })?;
        self.table.slots[slot] = id;
        self.table.used += 1;
        Ok(id)
    }

    fn push(&mut self, node: Node) -> Rebased<Id> {
        let most = Child::ITEM as usize;
        let lengths = [
            self.nodes.len(),
            self.children.len(),
            self.fields.0.written().len(),
        ];
        if lengths.iter().any(|length| *length >= most) {
            return Err(Refusal("the module is too large"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Id - 1)
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
            let Some((one, two)) = pairs.map(|(a, b)| (*a, *b)).find(|(a, b)| a != b) else {
                break;
            };
            match (one.in_set(), two.in_set()) {
                (Some(next_a), Some(next_b)) => (a, b) = (next_a, next_b),
                (None, None) => {
                    let (a, b) = (one.in_items(), two.in_items());
                    return items.map_or(Ok(Ordering::Equal), |items| items.compare(None, a, b));
                }
                (Some(_), None) => return Ok(Ordering::Less),
                (None, Some(_)) => return Ok(Ordering::Greater),
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
        self.nodes[id as usize].fields.of(self.fields.0.written())
    }
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
