//! The 23 compute shaders of a real renderer.

use naga::Module;

/// Their names and their WGSL.
pub(crate) fn sources() -> Vec<(&'static str, &'static str)> {
    macro_rules! shaders {
        ($($name:ident)*) => {
            vec![$((stringify!($name), &*vello_shaders::SHADERS.$name.wgsl.code),)*]
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

/// Their names and their modules.
pub(crate) fn vello() -> Vec<(&'static str, Module)> {
    let parsed = |(name, source)| (name, naga::front::wgsl::parse_str(source).unwrap());
    sources().into_iter().map(parsed).collect()
}
