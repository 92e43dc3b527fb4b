//! A shader module that has been validated already.

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags};

use super::limits;
use super::validate::{InvalidModule, validate};

/// A shader module together with what naga's validator found out about it. Needs the feature `naga`.
///
/// A compile server validates what it is sent before it does anything else. The key of a bare
/// [`Module`] validates the module once more; the key of this one does not, and takes
/// three fifths of the time. Both have the same key.
///
/// ```
/// use naga::valid::Capabilities;
/// use pipeline_cache::PipelineFingerprint;
/// use pipeline_cache::key::naga::ValidatedModule;
///
/// let module = naga::front::wgsl::parse_str("@compute @workgroup_size(1) fn main() {}")?;
/// let bare = PipelineFingerprint::of(&module)?;
/// let validated = ValidatedModule::new(module, Capabilities::empty())?;
/// assert_eq!(PipelineFingerprint::of(&validated)?, bare);
///
/// // To compile it without a cache.
/// let (module, info) = validated.into_parts();
/// # let _ = (module, info);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ValidatedModule {
    module: Module,
    info: ModuleInfo,
    depth: usize,
}

impl ValidatedModule {
    /// Validates a module with all that naga can check.
    ///
    /// # Errors
    ///
    /// [`InvalidModule`] when naga finds the module invalid, when it needs a capability that is
    /// not among `capabilities`, or when it could harm the validator.
    pub fn new(module: Module, capabilities: Capabilities) -> Result<Self, InvalidModule> {
        let depth = limits::check(&module)?;
        let info = validate(&module, depth, ValidationFlags::all(), capabilities)?;
        Ok(Self {
            module,
            info,
            depth,
        })
    }

    /// The module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// What naga's validator found out about [`module`](Self::module).
    #[must_use]
    pub const fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// How deep the module nests.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// The module and its info.
    #[must_use]
    pub fn into_parts(self) -> (Module, ModuleInfo) {
        (self.module, self.info)
    }
}
