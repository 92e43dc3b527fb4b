//! Passes that not every compiler has.

use std::future::ready;
use std::path::Path;

use anyhow::Result;

use super::compiler::Compiler;
use super::pass::Pass;
use super::programs::Checked;

/// The passes of one compiler.
#[derive(Debug, Default)]
pub(crate) struct OwnPasses {
    pub(crate) passes: Vec<Pass>,
    pub(crate) notes: Vec<String>,
}

/// A compiler that may have passes of its own.
pub(crate) trait WithOwnPasses: Compiler {
    /// Runs them in an empty folder, and says what the figures do not.
    fn own_passes(
        &self,
        _programs: &[Checked<Self>],
        _folder: &Path,
    ) -> impl Future<Output = Result<OwnPasses>>
    where
        Self: Sized,
    {
        ready(Ok(OwnPasses::default()))
    }
}
