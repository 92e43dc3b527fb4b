//! A node, and how it is written and read.

use super::{Child, Nodes};
use crate::key::naga::wire::Part;

/// A node. Most have room for all that they say and refer to in here.
#[derive(Clone, Copy)]
pub(super) struct Node {
    /// The first bytes of what it says of itself, the first of them lowest.
    pub(super) head: u128,
    /// The first children.
    pub(super) few: [Child; FEW as usize],
    /// A hash of what the node is, all the way down, which is the same in every process. Where
    /// two are equal, the nodes are compared.
    pub(super) rank: u64,
    /// How many bytes it says of itself.
    pub(super) length: u32,
    /// Where those of them begin among the tails for which the head has no room.
    pub(super) tail: u32,
    /// How many children it has.
    pub(super) count: u32,
    /// Where these begin among the families, if they are more than few.
    pub(super) family: u32,
    /// Finds the node in the table. Nobody outside of the process can foresee it.
    pub(super) hash: u32,
    /// How many nodes of the set stand in it as a tree, without those that have no children in the
    /// set. None are in one that is told apart by its fields alone.
    pub(super) size: u32,
}

/// How many bytes there are in a head.
pub(super) const HEAD: u32 = size_of::<u128>() as u32;
/// How many children are few.
pub(super) const FEW: u32 = 4;

impl Node {
    #[inline]
    pub(super) fn tail<'n>(&self, tails: &'n [u8]) -> &'n [u8] {
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
    pub(super) fn rank_of_fields<const LONG: bool>(&self, tails: &[u8]) -> u64 {
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
    pub(super) fn pairs(&self) -> [u64; 2] {
        let [a, b, c, d] = self.few.map(|child| u64::from(child.0));
        [a | b << 32, c | d << 32]
    }

    /// Goes on with a hash of its children.
    #[inline(always)]
    pub(super) fn hash_of_children<const LONG: bool>(&self, hash: u64, families: &[Child]) -> u32 {
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
    pub(super) const fn is_long(&self) -> bool {
        self.length > HEAD || self.count > FEW
    }

    #[inline]
    pub(super) fn children<'n>(&'n self, families: &'n [Child]) -> &'n [Child] {
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
pub(in super::super) struct NodeWriter<'n> {
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
pub(in super::super) struct Written(pub(super) Node);

impl<'n> NodeWriter<'n> {
    #[inline(always)]
    pub(super) fn new(tails: &'n mut Vec<u8>, families: &'n mut Vec<Child>) -> Self {
        Self {
            head: 0,
            length: 0,
            // Lists that are too long for these numbers are refused.
            tail: tails.len() as u32,
            tails,
            few: 0,
            count: 0,
            family: families.len() as u32,
            families,
        }
    }

    #[inline(always)]
    pub(in super::super) fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
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
    pub(in super::super) fn child(&mut self, child: Child) {
        if self.count < FEW {
            self.few |= u128::from(child.0) << (32 * self.count);
        } else {
            add_to_family(self.few, self.count, self.families, child);
        }
        self.count += 1;
    }

    #[inline(always)]
    pub(in super::super) fn finish(self) -> Written {
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
pub(in super::super) struct NodeReader<'n> {
    pub(super) node: &'n Node,
    pub(super) nodes: &'n Nodes,
}

impl<'n> NodeReader<'n> {
    /// The first byte of what the node says of itself.
    #[inline]
    pub(in super::super) const fn tag(self) -> u8 {
        self.node.head as u8
    }

    /// What the node refers to, in order.
    #[inline]
    pub(in super::super) fn children(self) -> &'n [Child] {
        self.node.children(&self.nodes.families)
    }

    /// Writes what the node says of itself.
    #[inline]
    pub(in super::super) fn write_fields(self, to: &mut Part) {
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

/// Mixes a word into a hash that is the same everywhere.
#[inline]
pub(super) const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    (product as u64) ^ (product >> 64) as u64
}
