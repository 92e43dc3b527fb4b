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
use super::wire::Part;

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
}

/// A node. Most have room for all that they say and refer to in here.
#[derive(Clone, Copy)]
struct Node {
    /// The first bytes of what it says of itself, the first of them lowest.
    head: u128,
    /// The first children.
    few: [Child; FEW as usize],
    /// A hash of what the node is, all the way down, which is the same in every process. Where
    /// two are equal, the nodes are compared.
    rank: u64,
    /// How many bytes it says of itself.
    length: u32,
    /// Where those of them begin among the tails for which the head has no room.
    tail: u32,
    /// How many children it has.
    count: u32,
    /// Where these begin among the families, if they are more than few.
    family: u32,
    /// Finds the node in the table. Nobody outside of the process can foresee it.
    hash: u32,
    /// How many nodes of the set stand in it as a tree, without those that have no children in the
    /// set. None are in one that is told apart by its fields alone.
    size: u32,
}

/// How many bytes there are in a head.
const HEAD: u32 = size_of::<u128>() as u32;
/// How many children are few.
const FEW: u32 = 4;

impl Node {
    #[inline]
    fn tail<'n>(&self, tails: &'n [u8]) -> &'n [u8] {
        let length = self.length.saturating_sub(HEAD) as usize;
        let start = self.tail as usize;
        if length == 0 {
            &[]
        } else {
            &tails[start..start + length]
        }
    }

    #[inline]
    fn children<'n>(&'n self, families: &'n [Child]) -> &'n [Child] {
        let count = self.count as usize;
        if self.count <= FEW {
            &self.few[..count]
        } else {
            let start = self.family as usize;
            &families[start..start + count]
        }
    }
}

/// Takes what a node says and what it refers to.
pub(super) struct NodeWriter<'n> {
    head: u128,
    length: u32,
    tail: u32,
    tails: &'n mut Vec<u8>,
    /// The first children, the first of them in the lowest bits.
    few: u128,
    count: u32,
    family: u32,
    families: &'n mut Vec<Child>,
}

/// A node that is not in the set yet.
pub(super) struct Written(Node);

impl NodeWriter<'_> {
    #[inline(always)]
    pub(super) fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        if self.length + N as u32 <= HEAD {
            let mut room = [0; HEAD as usize];
            room[..N].copy_from_slice(&bytes);
            self.head |= u128::from_le_bytes(room) << (8 * self.length);
            self.length += N as u32;
        } else {
            self.overflow(&bytes);
        }
    }

    /// Fills the head up before it begins the tail.
    #[cold]
    fn overflow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.length < HEAD {
                self.head |= u128::from(*byte) << (8 * self.length);
            } else {
                self.tails.push(*byte);
            }
            self.length += 1;
        }
    }

    #[inline(always)]
    pub(super) fn child(&mut self, child: Child) {
        if self.count < FEW {
            self.few |= u128::from(child.0) << (32 * self.count);
        } else {
            self.child_of_many(child);
        }
        self.count += 1;
    }

    #[inline(always)]
    pub(super) fn finish(self) -> Written {
        Written(Node {
            head: self.head,
            few: few(self.few),
            rank: 0,
            length: self.length,
            tail: self.tail,
            count: self.count,
            family: self.family,
            hash: 0,
            size: 0,
        })
    }

    #[cold]
    fn child_of_many(&mut self, child: Child) {
        if self.count == FEW {
            self.families.extend(few(self.few));
        }
        self.families.push(child);
    }
}

#[inline]
const fn few(packed: u128) -> [Child; FEW as usize] {
    [
        Child(packed as u32),
        Child((packed >> 32) as u32),
        Child((packed >> 64) as u32),
        Child((packed >> 96) as u32),
    ]
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
    fn find(&self, hash: u32, is_equal: impl Fn(Id) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != Self::FREE && !is_equal(self.slots[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Whether another node needs more slots.
    #[inline]
    const fn is_full(&self) -> bool {
        2 * (self.used + 1) > self.slots.len()
    }

    /// Takes twice the slots, which are others then.
    #[cold]
    fn grow(&mut self, nodes: &[Node]) {
        let full = std::mem::take(&mut self.slots);
        let used = self.used;
        self.clear(full.len().max(8));
        for id in full.into_iter().filter(|id| *id != Self::FREE) {
            let slot = self.find(nodes[id as usize].hash, |_| false);
            self.slots[slot] = id;
        }
        self.used = used;
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

    /// Writes what a node says of itself.
    #[inline]
    pub(super) fn write_fields(&self, id: Id, to: &mut Part) {
        let node = &self.nodes[id as usize];
        to.fields.extend_from_slice(&node.head.to_le_bytes());
        if node.length <= HEAD {
            let beyond = (HEAD - node.length) as usize;
            to.fields.truncate(to.fields.len() - beyond);
        } else {
            to.fields.extend_from_slice(node.tail(&self.tails));
        }
    }

    /// Begins a node.
    #[inline(always)]
    pub(super) fn writer(&mut self) -> NodeWriter<'_> {
        NodeWriter {
            head: 0,
            length: 0,
            // `push` refuses lists that are too long for these numbers.
            tail: self.tails.len() as u32,
            tails: &mut self.tails,
            few: 0,
            count: 0,
            family: self.families.len() as u32,
            families: &mut self.families,
        }
    }

    /// The node that was written: one that is there already, or a new one. `items` are the nodes
    /// of the module's items, if these are others.
    #[inline]
    pub(super) fn intern(&mut self, items: Option<&Self>, written: Written) -> Rebased<Id> {
        let mut node = self.node(written);
        self.know_below(items, &mut node)?;
        self.find_or_add(node)
    }

    /// A node that is told apart from all others by its fields alone.
    #[inline]
    pub(super) fn add(&mut self, written: Written) -> Rebased<Id> {
        let node = self.node(written);
        if node.children(&self.families).contains(&Child::MISSING) {
            return Err(FOLLOWS);
        }
        self.push(node)
    }

    /// A node by its fields alone.
    #[inline(always)]
    fn node(&self, written: Written) -> Node {
        let mut node = written.0;
        node.rank = rank_of(&node, node.tail(&self.tails));
        node
    }

    /// Adds what a node's children are to what is known of it.
    #[inline]
    fn know_below(&self, items: Option<&Self>, node: &mut Node) -> Rebased<()> {
        let mut hash = mix(self.seed.0, node.rank);
        let (mut rank, mut size) = (node.rank, 0_u32);
        for child in node.children(&self.families) {
            let index = child.index() as usize;
            let below = match child.kind() {
                Kind::Value => {
                    let below = self.nodes.get(index).ok_or(FOLLOWS)?;
                    size = size.max(1).saturating_add(below.size);
                    below.rank
                }
                // Locals differ by nothing but their index. No operand that is sorted holds one.
                Kind::Local => 0,
                Kind::Type | Kind::Constant | Kind::Override | Kind::Global => {
                    let below = items.unwrap_or(self).nodes.get(index);
                    below.ok_or(FOLLOWS)?.rank
                }
            };
            rank = mix(rank, below);
            hash = mix(hash, u64::from(child.0));
        }
        (node.rank, node.size, node.hash) = (rank, size, hash as u32);
        Ok(())
    }

    #[inline]
    fn find_or_add(&mut self, node: Node) -> Rebased<Id> {
        let mut slot = self
            .table
            .find(node.hash, |other| self.is_equal(other, &node));
        let found = self.table.slots[slot];
        if found != Table::FREE {
            self.tails.truncate(node.tail as usize);
            self.families.truncate(node.family as usize);
            return Ok(found);
        }
        if self.table.is_full() {
            self.table.grow(&self.nodes);
            slot = self.table.find(node.hash, |_| false);
        }
        let id = self.push(node)?;
        self.table.slots[slot] = id;
        self.table.used += 1;
        Ok(id)
    }

    #[inline]
    fn is_equal(&self, other: Id, node: &Node) -> bool {
        let other = &self.nodes[other as usize];
        other.hash == node.hash
            && (other.head, other.length) == (node.head, node.length)
            && other.few == node.few
            && other.count == node.count
            && (node.length <= HEAD || other.tail(&self.tails) == node.tail(&self.tails))
            && (node.count <= FEW
                || other.children(&self.families) == node.children(&self.families))
    }

    #[inline]
    fn push(&mut self, node: Node) -> Rebased<Id> {
        let most = Child::INDEX as usize;
        let lengths = [self.nodes.len(), self.families.len(), self.tails.len()];
        if lengths.iter().any(|length| *length >= most) {
            return Err(Refusal(&"the module is too large"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Id - 1)
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

/// A hash that is the same everywhere, by eight bytes at a time.
#[inline]
fn rank_of(node: &Node, tail: &[u8]) -> u64 {
    let mut rank = mix(u64::from(node.length.min(HEAD)), node.head as u64);
    if node.length > 8 {
        rank = mix(rank, (node.head >> 64) as u64);
    }
    for bytes in tail.chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        rank = mix(rank, u64::from_le_bytes(word));
    }
    rank
}

#[inline]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ (product >> 64) as u64
}
