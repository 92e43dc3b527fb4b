//! What neighbours read of each other is computed on the side of a parting that the source has it on.

use naga::Module;
use pipeline_cache::{PipelineFingerprint, Program as _};

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

/// The key of a fragment shader with a body, which is that of its canonical form, too.
fn key(body: &str) -> PipelineFingerprint {
    let source = format!(
        "fn stop(a: u32) {{ if a > 5u {{ discard; }} }}
         fn swapped(a: u32) -> u32 {{ return quadSwapX(a); }}
         @fragment fn main(@location(0) @interpolate(flat) a: u32) -> @location(0) vec4<u32> {{
             {body}
         }}"
    );
    let canonical = parse(&source).canonicalize().unwrap();
    canonical.info().unwrap();
    let again = PipelineFingerprint::of(canonical.module()).unwrap();
    let key = PipelineFingerprint::of(&parse(&source)).unwrap();
    assert_eq!(again, key, "{body}");
    key
}

/// A target may stop the invocations that have discarded, or that take another branch. What others
/// read of them is there only if it was computed before.
#[test]
fn what_is_read_of_neighbours_stays_on_its_side_of_a_parting() {
    let product = "let c = a * 77u + 3u;";
    let reads = [
        "quadSwapX(c)",
        "quadBroadcast(c, 1u)",
        "subgroupBroadcast(c, 1u)",
        "subgroupShuffle(c, a)",
        "subgroupShuffleXor(c, 1u)",
        "subgroupShuffleUp(c, 1u)",
        "subgroupShuffleDown(c, 1u)",
        "swapped(c)",
    ];
    for read in reads {
        let returned = format!("return vec4({read});");
        for parting in [
            "if a > 5u { discard; }",
            "stop(a);",
            "if a > 5u { return vec4(0u); }",
        ] {
            let before = key(&format!("{product} {parting} {returned}"));
            let after = key(&format!("{parting} {product} {returned}"));
            assert_ne!(before, after, "{parting} {read}");
        }
        let before = key(&format!(
            "{product} if a > 5u {{ {returned} }} return vec4(0u);"
        ));
        let within = key(&format!(
            "if a > 5u {{ {product} {returned} }} return vec4(0u);"
        ));
        assert_ne!(before, within, "{read}");
    }
}

/// These read nothing of whoever is not there, so that the place does not matter.
#[test]
fn what_is_read_of_those_that_are_there_may_be_computed_anywhere() {
    let product = "let c = a * 77u + 3u;";
    let parting = "if a > 5u { discard; }";
    for read in [
        "subgroupAdd(c)",
        "subgroupBroadcastFirst(c)",
        "subgroupBallot(c > 9u).x",
        "c",
    ] {
        let before = key(&format!("{product} {parting} return vec4({read});"));
        let after = key(&format!("{parting} {product} return vec4({read});"));
        assert_eq!(before, after, "{read}");
    }
    // Nobody parts in between.
    let before = key(&format!(
        "{product} let d = a + 9u; return vec4(quadSwapX(c) + d);"
    ));
    let after = key(&format!(
        "let d = a + 9u; {product} return vec4(quadSwapX(c) + d);"
    ));
    assert_eq!(before, after);
    // The number of the neighbour is not read of it.
    let before = key(&format!(
        "{product} {parting} return vec4(subgroupShuffle(a, c));"
    ));
    let after = key(&format!(
        "{parting} {product} return vec4(subgroupShuffle(a, c));"
    ));
    assert_eq!(before, after);
}
