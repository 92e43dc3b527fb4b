//! Shaders that mean one thing share one key, and shaders that do not never do.
#![cfg(feature = "naga")]

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use pipeline_cache::program::naga::CanonicalModule;
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

fn validate(module: &Module) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .unwrap()
}

fn canonical(module: &Module) -> CanonicalModule {
    module.canonicalize().unwrap()
}

/// The module as naga prints it, read back.
fn respelled(module: &Module) -> Module {
    let flags = naga::back::wgsl::WriterFlags::empty();
    parse(&naga::back::wgsl::write_string(module, &validate(module), flags).unwrap())
}

fn vello() -> Vec<(&'static str, Module)> {
    macro_rules! shaders {
        ($($name:ident)*) => {
            vec![$((stringify!($name), parse(&vello_shaders::SHADERS.$name.wgsl.code)),)*]
        };
    }
    shaders!(
        backdrop
        backdrop_dyn
        bbox_clear
        binning
        clip_leaf
        clip_reduce
        coarse
        draw_leaf
        draw_reduce
        fine_area
        fine_msaa16
        fine_msaa8
        flatten
        path_count
        path_count_setup
        path_tiling
        path_tiling_setup
        pathtag_reduce
        pathtag_reduce2
        pathtag_scan1
        pathtag_scan_large
        pathtag_scan_small
        tile_alloc
    )
}

#[test]
fn respelled_vello_shaders() {
    let mut unified = 0;
    for (name, module) in vello() {
        let one = canonical(&module);
        let two = canonical(&respelled(&module));
        assert_eq!(one.to_wire(), canonical(one.module()).to_wire(), "{name}");
        if one.to_wire() == two.to_wire() {
            unified += 1;
        } else {
            println!("{name} differs");
            if let Ok(dir) = std::env::var("DUMP") {
                std::fs::write(format!("{dir}/{name}.a"), format!("{:#?}", one.module())).unwrap();
                std::fs::write(format!("{dir}/{name}.b"), format!("{:#?}", two.module())).unwrap();
            }
        }
    }
    println!("{unified} of 23");
}
