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
    /// The largest [size](Self::size).
    largest: u32,
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

    /// A hash of what it says of itself, by eight bytes at a time.
    #[inline(always)]
    fn rank_of_fields<const LONG: bool>(&self, tails: &[u8]) -> u64 {
        let mut rank = mix(u64::from(self.length.min(HEAD)), self.head as u64);
        if self.length > 8 {
            rank = mix(rank, (self.head >> 64) as u64);
        }
        if LONG {
            for bytes in self.tail(tails).chunks(8) {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                rank = mix(rank, u64::from_le_bytes(word));
            }
        }
        rank
    }

    /// The first children, by two at a time.
    #[inline(always)]
    fn pairs(&self) -> [u64; 2] {
        let [a, b, c, d] = self.few.map(|child| u64::from(child.0));
        [a | b << 32, c | d << 32]
    }

    /// Goes on with a hash of its children.
    #[inline(always)]
    fn hash_of_children<const LONG: bool>(&self, hash: u64, families: &[Child]) -> u32 {
        let [first, second] = self.pairs();
        let mut hash = mix(hash, first);
        if self.count > 2 {
            hash = mix(hash, second);
        }
        if LONG {
            for child in self.children(families) {
                hash = mix(hash, u64::from(child.0));
            }
        }
        hash as u32
    }

    /// Whether the node has more to say or to refer to than there is room for in here.
    #[inline(always)]
    const fn is_long(&self) -> bool {
        self.length > HEAD || self.count > FEW
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
            (self.head, self.length) = overflow(self.head, self.length, self.tails, &bytes);
        }
    }

    #[inline(always)]
    pub(super) fn child(&mut self, child: Child) {
        if self.count < FEW {
            self.few |= u128::from(child.0) << (32 * self.count);
        } else {
            add_to_family(self.few, self.count, self.families, child);
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
}

/// Fills the head up before it begins the tail. By values, which stay in registers.
#[cold]
fn overflow(head: u128, length: u32, tails: &mut Vec<u8>, bytes: &[u8]) -> (u128, u32) {
    let (mut head, mut length) = (head, length);
    if length >= HEAD {
        tails.extend_from_slice(bytes);
        return (head, length + bytes.len() as u32);
    }
    for byte in bytes {
        if length < HEAD {
            head |= u128::from(*byte) << (8 * length);
        } else {
            tails.push(*byte);
        }
        length += 1;
    }
    (head, length)
}

/// Takes a child that is one too many for few.
#[cold]
fn add_to_family(packed: u128, count: u32, families: &mut Vec<Child>, child: Child) {
    if count == FEW {
        families.extend(few(packed));
    }
    families.push(child);
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

/// Gives what a node says and what it refers to.
#[derive(Clone, Copy)]
pub(super) struct NodeReader<'n> {
    node: &'n Node,
    nodes: &'n Nodes,
}

impl<'n> NodeReader<'n> {
    /// The first byte of what the node says of itself.
    #[inline]
    pub(super) const fn tag(self) -> u8 {
        self.node.head as u8
    }

    /// How many nodes stand in it, as a tree.
    #[inline]
    pub(super) const fn size(self) -> u32 {
        self.node.size
    }

    /// What the node refers to, in order.
    #[inline]
    pub(super) fn children(self) -> &'n [Child] {
        self.node.children(&self.nodes.families)
    }

    /// Writes what the node says of itself.
    #[inline]
    pub(super) fn write_fields(self, to: &mut Part) {
        let Node { head, length, .. } = *self.node;
        to.fields.extend_from_slice(&head.to_le_bytes());
        if length <= HEAD {
            let beyond = (HEAD - length) as usize;
            to.fields.truncate(to.fields.len() - beyond);
        } else {
            to.fields
                .extend_from_slice(self.node.tail(&self.nodes.tails));
        }
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
        let slots = vec![Self::FREE; 8];
        Self { slots, used: 0 }
    }
}

impl Table {
    const FREE: Id = Id::MAX;

    /// Removes all nodes, and makes room for some.
    fn clear(&mut self, room: usize) {
        self.slots.clear();
        self.slots
            .resize((2 * room).next_power_of_two().max(8), Self::FREE);
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

    /// Whether half of the slots are taken.
    #[inline]
    fn is_full(&self) -> bool {
        2 * self.used >= self.slots.len()
    }

    /// Takes twice the slots, which are others then.
    #[cold]
    fn grow(&mut self, nodes: &[Node]) {
        let full = std::mem::take(&mut self.slots);
        let used = self.used;
        self.clear(full.len());
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
        NodeWriter {
            head: 0,
            length: 0,
            // Lists that are too long for these numbers are refused.
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

/// Mixes a word into a hash that is the same everywhere.
#[inline]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ (product >> 64) as u64
}
