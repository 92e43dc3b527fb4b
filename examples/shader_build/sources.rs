//! The shaders of `vello_shaders`.

use vello_shaders::{ComputeShader, SHADERS, Shaders};

use crate::build_passes::sources::Source;

/// All shaders of vello. The pattern names every one: a release with another does not compile
/// until it is listed.
pub(crate) fn vello() -> Vec<Source> {
    let Shaders {
        backdrop,
        backdrop_dyn,
        bbox_clear,
        binning,
        clip_leaf,
        clip_reduce,
        coarse,
        draw_leaf,
        draw_reduce,
        fine_area,
        fine_msaa16,
        fine_msaa8,
        flatten,
        path_count,
        path_count_setup,
        path_tiling,
        path_tiling_setup,
        pathtag_reduce,
        pathtag_reduce2,
        pathtag_scan1,
        pathtag_scan_large,
        pathtag_scan_small,
        tile_alloc,
    } = SHADERS;
    let shaders: [ComputeShader<'static>; 23] = [
        backdrop,
        backdrop_dyn,
        bbox_clear,
        binning,
        clip_leaf,
        clip_reduce,
        coarse,
        draw_leaf,
        draw_reduce,
        fine_area,
        fine_msaa16,
        fine_msaa8,
        flatten,
        path_count,
        path_count_setup,
        path_tiling,
        path_tiling_setup,
        pathtag_reduce,
        pathtag_reduce2,
        pathtag_scan1,
        pathtag_scan_large,
        pathtag_scan_small,
        tile_alloc,
    ];
    let source = |shader: ComputeShader<'static>| Source {
        name: shader.name.into_owned(),
        text: shader.wgsl.code.into_owned().into_bytes(),
    };
    shaders.into_iter().map(source).collect()
}
