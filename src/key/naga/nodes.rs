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

    /// A hash of what it says of itself, by eight bytes at a time.
    #[inline]
    fn rank_of_fields(&self, tails: &[u8]) -> u64 {
        let mut rank = mix(u64::from(self.length.min(HEAD)), self.head as u64);
        if self.length > 8 {
            rank = mix(rank, (self.head >> 64) as u64);
        }
        for bytes in self.tail(tails).chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            rank = mix(rank, u64::from_le_bytes(word));
        }
        rank
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
    nodes: &'n mut Vec<Node>,
}

/// The number of a node that is not in the set yet.
pub(super) struct Written(Id);

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
        self.nodes.push(Node {
            head: self.head,
            few: few(self.few),
            rank: 0,
            length: self.length,
            tail: self.tail,
            count: self.count,
            family: self.family,
            hash: 0,
            size: 0,
        });
        Written(self.nodes.len() as Id - 1)
    }
}

/// Fills the head up before it begins the tail. By values, which stay in registers.
#[cold]
fn overflow(head: u128, length: u32, tails: &mut Vec<u8>, bytes: &[u8]) -> (u128, u32) {
    let (mut head, mut length) = (head, length);
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
            // Lists that are too long for these numbers are refused.
            tail: self.tails.len() as u32,
            tails: &mut self.tails,
            few: 0,
            count: 0,
            family: self.families.len() as u32,
            families: &mut self.families,
            nodes: &mut self.nodes,
        }
    }

    /// The node that was written: one that is there already, or a new one. `items` are the nodes
    /// of the module's items, if these are others.
    #[inline]
    pub(super) fn intern(&mut self, items: Option<&Self>, written: Written) -> Rebased<Id> {
        let Written(id) = written;
        self.check_length()?;
        let node = &self.nodes[id as usize];
        let mut rank = node.rank_of_fields(&self.tails);
        let mut hash = mix(self.seed.0, rank);
        let mut size = 0_u32;
        for child in node.children(&self.families) {
            let below = if let Some(value) = child.value() {
                // A node that it follows, and not itself.
                let below = self.nodes[..id as usize].get(value as usize);
                let below = below.ok_or(FOLLOWS)?;
                size = size.max(1).saturating_add(below.size);
                below.rank
            } else if child.kind() == Kind::Local {
                // Locals differ by nothing but their index. No operand that is sorted holds one.
                0
            } else {
                let items = items.map_or(&self.nodes[..id as usize], |items| &items.nodes);
                items.get(child.index() as usize).ok_or(FOLLOWS)?.rank
            };
            rank = mix(rank, below);
            hash = mix(hash, u64::from(child.0));
        }
        let hash = hash as u32;
        let slot = self
            .table
            .find(hash, |other| self.is_equal(other, hash, node));
        let found = self.table.slots[slot];
        if found != Table::FREE {
            self.tails.truncate(node.tail as usize);
            self.families.truncate(node.family as usize);
            self.nodes.truncate(id as usize);
            return Ok(found);
        }
        let node = &mut self.nodes[id as usize];
        (node.rank, node.size, node.hash) = (rank, size, hash);
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
        let Written(id) = written;
        self.check_length()?;
        let node = &mut self.nodes[id as usize];
        node.rank = node.rank_of_fields(&self.tails);
        if node.children(&self.families).contains(&Child::MISSING) {
            return Err(FOLLOWS);
        }
        Ok(id)
    }

    /// Whether a node that is there is equal to one that has such a hash.
    #[inline]
    fn is_equal(&self, other: Id, hash: u32, node: &Node) -> bool {
        let other = &self.nodes[other as usize];
        other.hash == hash
            && (other.head, other.length) == (node.head, node.length)
            && other.few == node.few
            && other.count == node.count
            && (node.length <= HEAD || other.tail(&self.tails) == node.tail(&self.tails))
            && (node.count <= FEW
                || other.children(&self.families) == node.children(&self.families))
    }

    /// Refuses what has no room in the numbers of nodes.
    #[inline]
    fn check_length(&self) -> Rebased<()> {
        let longest = self.nodes.len().max(self.families.len());
        if longest.max(self.tails.len()) >= Child::INDEX as usize {
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
