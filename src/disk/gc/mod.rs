//! The folder kept within its bounds.
//!
//! - [`bounds`]: what the bounds are, and when a trim is due
//! - [`collector`]: who trims, and when
//! - [`survey`]: the folder's names, in steps
//! - [`trim`]: the folder brought back within its bounds
//! - [`evict`]: the oldest entries, removed unless they were used
//! - [`usage`]: how much there is, by the count of all who bound it

pub(super) mod bounds;
pub(super) mod collector;
pub(super) mod evict;
pub(super) mod survey;
pub(super) mod trim;
pub(super) mod usage;
