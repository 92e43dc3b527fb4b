//! For tests of your own tier, or of a program that uses the cache.

mod conformance;
mod faulty;

pub use conformance::{ConformanceError, check_conformance};
pub use faulty::{Fault, FaultyStore};
