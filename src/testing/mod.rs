//! For those who test a tier, or a program that stands on the cache.

mod conformance;
mod faulty;

pub use conformance::{ConformanceError, check_conformance};
pub use faulty::{Fault, FaultyStore};
