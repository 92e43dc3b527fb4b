//! Where nodes are found.

use super::{Id, Node};

/// Finds nodes by their hash: each is in the first free slot from its own on. At least half of the
/// slots are free.
pub(super) struct Table {
    pub(super) slots: Vec<Id>,
    pub(super) used: usize,
}

impl Default for Table {
    fn default() -> Self {
        let slots = vec![Self::FREE; 8];
        Self { slots, used: 0 }
    }
}

impl Table {
    pub(super) const FREE: Id = Id::MAX;

    /// Removes all nodes, and makes room for some.
    pub(super) fn clear(&mut self, room: usize) {
        self.slots.clear();
        self.slots
            .resize((2 * room).next_power_of_two().max(8), Self::FREE);
        self.used = 0;
    }

    /// The slot of a node that is found, or a free one.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_equal: impl Fn(Id) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != Self::FREE && !is_equal(self.slots[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Whether half of the slots are taken.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        2 * self.used >= self.slots.len()
    }

    /// Takes twice the slots, which are others then.
    #[cold]
    pub(super) fn grow(&mut self, nodes: &[Node]) {
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
