//! WebAssembly modules.

use pipeline_cache::explain::KeyParts;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{Program as _, ToWire as _};

/// Any bytes are a module with one form, or have no key; the form is its own, and not much larger.
pub(crate) fn check(data: &[u8]) {
    let module = WasmModule::new(data.to_vec());
    let Ok(canonical) = module.canonicalize() else {
        return;
    };
    let bytes = canonical.bytes();
    assert!(
        bytes.len() <= 8 * data.len(),
        "{} of {}",
        bytes.len(),
        data.len()
    );
    let again = WasmModule::new(bytes.clone()).canonicalize().unwrap();
    assert_eq!(again, canonical);
    let parts = KeyParts::of(&module).unwrap();
    assert_eq!(parts.key(), canonical.fingerprint());
}
