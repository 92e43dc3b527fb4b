//! What became of the writes in the background.

/// What became of the promotions so far.
///
/// Every event ends in exactly one way, so that
/// `events == promoted + coalesced + dropped + failed + pending` at all times, and `pending` is 0
/// after a flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayeredPromotionReport {
    /// Hits below the first tier that asked for a promotion.
    pub events: u64,
    /// Events after which every faster tier that takes the artifact has it.
    pub promoted: u64,
    /// Tiers written to, over all events.
    pub promoted_layers: u64,
    /// Payload bytes written, over all events and tiers.
    pub promoted_bytes: u64,
    /// Events that met a write of the same key on its way, and left it to that.
    pub coalesced: u64,
    /// Events given up: a bound was reached, the key was removed, or the cache was closed.
    pub dropped: u64,
    /// Events in which some tier failed to take the artifact.
    pub failed: u64,
    /// Events under way.
    pub pending: u64,
    /// The tier the last promotion that wrote something came from.
    pub last_source_layer: Option<usize>,
    /// How many tiers the last promotion that wrote something wrote to.
    pub last_promoted_layers: u64,
    /// The payload bytes that the last promotion that wrote something wrote, over its tiers.
    pub last_promoted_bytes: u64,
}

/// What became of the writes behind so far: the lower tiers of puts under
/// [`WritePolicy::Behind`](super::WritePolicy::Behind), and every tier of what was compiled.
///
/// `accepted == written + dropped + failed + pending` at all times, and `pending` is 0 after a
/// flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteBehindReport {
    /// Writes that were left to the background.
    pub accepted: u64,
    /// Of these, those that every tier meant has taken.
    pub written: u64,
    /// Of these, those given up: the key was removed, the cache was closed, or the runtime ended.
    pub dropped: u64,
    /// Of these, those that some tier failed to take.
    pub failed: u64,
    /// Of these, those under way.
    pub pending: u64,
    /// Puts that met a write of the same key behind, and left it to that.
    pub coalesced: u64,
    /// Puts that found the background full, closed, or busy with the key otherwise, and so waited
    /// for their lower tiers themselves.
    pub awaited: u64,
}
