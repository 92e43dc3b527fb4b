//! Shader modules.

use pipeline_cache::explain::KeyParts;
use pipeline_cache::{Program as _, ToWire as _};

/// Any text that is a shader has one valid form, or no key. (SPIR-V is not tried: its front end
/// panics on some of what is no module.)
pub(crate) fn check(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    let module = text.and_then(|text| naga::front::wgsl::parse_str(text).ok());
    let Some(module) = module else { return };
    let Ok(canonical) = module.canonicalize() else {
        return;
    };
    canonical.info().unwrap();
    let again = canonical.module().canonicalize().unwrap();
    assert_eq!(again.to_wire(), canonical.to_wire());
    let parts = KeyParts::of(&module).unwrap();
    assert_eq!(parts.key(), canonical.fingerprint());
}
