//! What every store promises, the memory tier, and what is kept beside artifacts.

#[cfg(feature = "testing")]
mod conformance;
mod explain;
#[cfg(feature = "testing")]
mod many_keys;
mod memory;
#[cfg(feature = "metrics")]
mod metrics_export;
mod outside_of_a_runtime;
mod parts;
#[cfg(feature = "metrics")]
mod prometheus;
mod source_aliases;
