//! For those who test a tier, or a program that stands on the cache.

mod faulty;

pub use faulty::{Fault, FaultyStore};
