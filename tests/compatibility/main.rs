//! What one release wrote, later ones read; and what a later one wrote, this one leaves alone.
//!
//! `v0_1` and its like hold what each release wrote. They are never changed: a release that writes
//! something else adds a folder, and still reads the older ones. See [`versions`] for how.

mod bundles;
mod folder;
mod frames;
mod keys;
mod later;
#[cfg(feature = "metrics")]
mod metric_names;
mod names;
mod oldest_rust;
mod runs;
#[cfg(any(feature = "remote-cache", all(feature = "redis", unix)))]
mod support;
mod versions;
