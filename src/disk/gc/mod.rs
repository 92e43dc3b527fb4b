//! Garbage collection: the folder is kept within its bounds.
//!
//! - [`bounds`]: the bounds, and when a trim is due
//! - [`order`]: which entries are evicted first
//! - [`usage`]: how much there is, by a count that all bounded caches share
//! - [`survey`]: lists the folder's names in steps
//! - [`evict`]: removes the first entries in that order
//! - [`trim`]: brings the folder back within its bounds
//! - [`room`]: slows puts down that outrun the evictions
//! - [`collector`]: starts trims in the background

pub(super) mod bounds;
pub(super) mod collector;
pub(super) mod evict;
pub(super) mod order;
pub(super) mod room;
pub(super) mod survey;
pub(super) mod trim;
pub(super) mod usage;
