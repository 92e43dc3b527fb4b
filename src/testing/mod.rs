//! For tests of your own tier or program, or of what uses the cache. Needs the feature `testing`.

mod conformance;
mod faulty;
mod golden_keys;
mod program;
mod program_error;

pub use conformance::{ConformanceError, check_conformance};
pub use faulty::{Fault, FaultyStore};
pub use program::{ProgramSamples, check_program};
pub use program_error::{ProgramError, ProgramFault, WRITE_KEYS_VARIABLE};
