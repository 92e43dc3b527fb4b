//! Shader modules: canonical form and key of `naga::Module`.
//!
//! The canonical form is written anew from the entry points, as bytes. These are hashed, and the
//! module that is compiled is read back from them, so that nothing that was left out of them can
//! reach an artifact. It is read and validated before it is compiled, by [`CanonicalModule::info`];
//! a hit does not pay for that.
//!
//! A module without an entry point is a library. Its canonical form holds all its functions, with
//! their names.
//!
//! ```
//! use pipeline_cache::{PipelineFingerprint, Program as _};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let one = naga::front::wgsl::parse_str(
//!     "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
//!      const STEP = 3u;
//!      @compute @workgroup_size(64)
//!      fn main(@builtin(global_invocation_id) id: vec3<u32>) {
//!          let next = STEP + id.x;
//!          if id.y > 0u { data[id.x] = next; }
//!      }",
//! )?;
//! let two = naga::front::wgsl::parse_str(
//!     "@compute @workgroup_size(64)
//!      fn main(@builtin(global_invocation_id) at: vec3<u32>) {
//!          if 0u < at.y { out[at.x] = at.x + 3u; }
//!      }
//!      @group(0) @binding(0) var<storage, read_write> out: array<u32>;",
//! )?;
//! assert_eq!(PipelineFingerprint::of(&one)?, PipelineFingerprint::of(&two)?);
//!
//! let canonical = one.canonicalize()?;
//! let spirv = naga::back::spv::write_vec(
//!     canonical.module(),
//!     canonical.info()?,
//!     &naga::back::spv::Options::default(),
//!     None,
//! )?;
//! # assert_eq!(spirv[0], 0x0723_0203);
//! # Ok(())
//! # }
//! ```
//!
//! # What is one
//!
//! | spellings | why they mean one thing |
//! |---|---|
//! | spans, comments | no back end reads them |
//! | diagnostic filters, but those around a derivative | they allow nothing else |
//! | names of functions, arguments, variables, constants, types, members | pipelines bind by group, binding and location; a back end makes up what names it needs, and its reflection tables name handles of the canonical module |
//! | what no entry point reaches: types, constants, functions, variables, anonymous overrides | nothing of it is executed or bound |
//! | equal types under several names | WGSL's named structs have one layout and one meaning |
//! | the order of declarations | entry points go by stage and name, overrides by id and name, resources by group and binding, functions before their callers, all else by first use |
//! | a named constant and its value | a constant is its value; arrays and structs stay constants, once each, since back ends copy a table to each place where it is written |
//! | `{ }` around statements | handles need no scopes |
//! | pure expressions: bound by `let` or written out, once or twice, used or not | they read nothing but their operands, so that the place and the number of evaluations cannot be seen; a small value that several branches share is computed in each of them, a large one before them |
//! | an unused load from private, function or workgroup memory; an unused derivative | nothing but its value comes of it |
//! | `a > b` and `b < a`, `a >= b` and `b <= a` | one comparison; on NaN all are false |
//! | `!(a != b)` and `a == b`, `!(a < b)` and `b <= a` on integers and booleans | one holds where the other does not; floats have NaN |
//! | `vec3(x, x, x)` and `vec3(x)` | the same components |
//! | `@interpolate(perspective)`, `@interpolate(perspective, center)` and none; `linear` alike | what is interpolated is sampled at the center unless it says otherwise |
//! | operands of `+ * & \| ^ == !=` on integers and booleans | exact and commutative; what operands read is read at its own place, before |
//! | `16.0 - 1.0` and `15.0`: float sums and products of normal literals that are exact and normal | no rounding mode, contraction or flush to zero can change them |
//! | components of a swizzle past its size | never read |
//!
//! # What is not
//!
//! | kept | why |
//! |---|---|
//! | loads, samples, derivatives, calls, atomics, barriers, stores: each, and their order | memory and neighbours in control flow make the place part of the meaning; so does a `continue` |
//! | work done before a loop | it would be as right inside, and slower |
//! | what neighbours are compared by, computed before one of them may `discard` or branch away | a target may stop it there, and derivatives would compare with what it has not computed |
//! | order of float operands; `min`, `max`; `x + 0.0`, `x * 1.0`, `!(a < b)` on floats | NaN payloads, signed zeros and NaN itself tell them apart |
//! | `a && b` and `b && a` | some back ends write the operator of their language, whose left operand guards the right one |
//! | `@interpolate(flat)` and `@interpolate(flat, first)` | naga's GLSL back end writes the one and refuses the other |
//! | literals by type and bits | -0.0 is not 0.0 |
//! | all other arithmetic on literals that naga's front ends have left | a device may round otherwise than its compiler |
//! | names and ids of overrides, used or not; names of entry points | pipelines set and choose by them |
//! | names of functions in a module without an entry point | who imports it calls by them |
//! | a resource that an entry point names to no effect, as in `_ = buffer;` | it is part of the interface, from which layouts are made |
//! | names of `modf`'s results and their like | back ends look members up by name |
//! | an error of what is used for nothing, as `let x = 1u / N;` with an override `N` of 0 | not kept: that module makes no pipeline, its canonical form does, and computes the same but for it |
//! | unused samples, unused loads from resources | they use a resource: the same |
//!
//! An artifact's debug information therefore holds none of the source's names. Callers who need
//! names in artifacts key their source as an [`OpaqueProgram`](crate::OpaqueProgram).
//!
//! # Versions
//!
//! [`Program::DOMAIN`] names naga's major version, since another IR is another program. The minor
//! version belongs into the [`CompileScope`](crate::CompileScope), as any compiler's build does.

mod build;
mod canonical;
mod carried;
mod compared;
mod context;
mod deep;
mod effects;
mod filters;
mod function;
mod global_set;
mod items;
mod limits;
mod live;
mod module;
mod nodes;
mod place;
mod placer;
mod rebase;
mod roots;
mod rules;
mod scratch;
mod shallow;
mod shared;
mod special;
mod spelling;
mod timing;
mod validate;
mod validated;
mod values;
mod wire;

pub use canonical::CanonicalModule;
pub use validate::InvalidModule;
pub use validated::ValidatedModule;

use naga::Module;
use naga::valid::{Capabilities, ValidationFlags};

use super::{Program, Unkeyable};

/// Names the major version of naga: another IR is another program.
const DOMAIN: &str = "naga/30";
const SCHEMA: u32 = 2;

/// How deep blocks may nest in blocks, and types and constants in their like. Beyond it a module
/// is not keyed, so that no module can exhaust the stack.
///
/// A module that nests deeper than 48 levels is validated and keyed on a thread of its own, with
/// a stack of 40 KiB a level. naga's front ends and back ends recurse as well: whoever parses or
/// compiles such a module needs a stack for it. A back end takes up to 20 KiB a level in a debug
/// build. Expressions need none: those of a [`CanonicalModule`] nest no deeper than 32 before a part
/// of them has a name, which back ends keep in a variable.
pub const MAX_NESTING: usize = 1000;

impl Program for Module {
    /// Names the major version of naga: another IR is another program.
    const DOMAIN: &'static str = DOMAIN;
    const SCHEMA: u32 = SCHEMA;
    type Canonical = CanonicalModule;

    /// Takes about one and a half times as long as naga's validator, beside its validation, which is
    /// a part of it: two and a half times as long in all.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when naga finds the module invalid with every capability allowed or its
    /// validator panics on it, when it nests deeper than [`MAX_NESTING`], when an override can be
    /// neither set nor computed, or when the module has neither an entry point nor functions that
    /// all have a name of their own.
    ///
    /// # Panics
    ///
    /// Not by itself. naga's validator panics on some invalid modules, which this catches, and
    /// which ends a program that was built with `panic = "abort"`. Such a program takes modules
    /// from naga's front ends alone, or keys in a process of its own.
    fn canonicalize(&self) -> Result<CanonicalModule, Unkeyable> {
        let depth = limits::check(self)?;
        let (flags, capabilities) = (ValidationFlags::all(), Capabilities::all());
        let info = validate::validate(self, depth, flags, capabilities)?;
        let wire = build::canonicalize(self, &info, depth)?;
        Ok(CanonicalModule::new(wire, depth))
    }
}

impl Program for ValidatedModule {
    /// The same as that of the bare module, whose keys it shares.
    const DOMAIN: &'static str = DOMAIN;
    const SCHEMA: u32 = SCHEMA;
    type Canonical = CanonicalModule<Self>;

    /// Takes about one and a half times as long as naga's validator took.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] as for the bare module.
    fn canonicalize(&self) -> Result<CanonicalModule<Self>, Unkeyable> {
        let depth = self.depth();
        let wire = build::canonicalize(self.module(), self.info(), depth)?;
        Ok(CanonicalModule::new(wire, depth))
    }
}
