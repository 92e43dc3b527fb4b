//! Variables of functions that are written more than once.

use pipeline_cache::{Program as _, ToWire as _};

/// The canonical form of a compute shader with a body, which is that of its canonical form, too.
fn wire(body: &str) -> Vec<u8> {
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
         var<private> state: u32;
         fn next() -> u32 {{ state += 3u; return state; }}
         @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             {body}
         }}"
    );
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(&source)));
    let canonical = module.canonicalize().unwrap();
    canonical.info().unwrap();
    let again = canonical.module().canonicalize().unwrap();
    assert!(again.to_wire() == canonical.to_wire(), "{body}");
    canonical.to_wire()
}

/// A variable is one value where it is written once. Written twice it is none, although what is
/// written first is never read: what that was read from would be left behind, read for nothing.
#[test]
fn a_variable_that_is_written_twice_stays_one() {
    for first in ["state", "next()", "u[id.x]", "id.x * 7u"] {
        for rest in [
            "x = 2u; u[0] = x;",
            "x = 2u; if id.y > 1u { u[0] = x; }",
            "if id.y > 1u { x = 2u; u[0] = x; }",
        ] {
            let twice = wire(&format!("var x: u32; x = {first}; {rest}"));
            let once = wire(&format!("var x: u32; {rest}"));
            assert_ne!(twice, once, "{first} {rest}");
        }
    }
}
