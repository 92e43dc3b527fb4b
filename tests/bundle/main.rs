//! Bundles: one file with many artifacts, and the tier that serves it.

mod damage;
mod figures;
mod read_only;
mod replaced;
mod resume;
mod same_bytes;
mod scales;
mod support;
mod transfer;
mod trust;
