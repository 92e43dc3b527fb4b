//! Shader modules: canonical form and key of `naga::Module`. Needs the feature `naga`.
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
//! | what follows a `return`, `break` or `continue`, or an `if` both of whose branches end so; a `return` without a value at the end | it is never executed; a `discard` is none of these, since some targets go on after it |
//! | `if` on `true` or `false`, and the branch that is taken | no invocation takes the other one |
//! | an `if` or a `switch` that does nothing, and nothing | all neighbours meet again right after it; its condition is a value, and what it reads of resources is kept |
//! | `if c {} else { … }` and `if !c { … }` | the same neighbours take the same branch |
//! | `for`, `while` and `loop { if !c { break } … }`; `continuing` and `break if` at the end of a body without a `continue` | one way leads through each round |
//! | a `var` that is written once at most, before all reads and around them, and a `let`; a `var` that nothing reads | nobody but its reads can see it, and all of them find the one value; a `let` of any value is legal where a `var` is |
//! | parts of such a `var` and of its whole value | a part of what was stored |
//! | an entry point that passes its arguments and results through private variables to and from the one function that it calls, as those read from SPIR-V do, and the plain one; with it, what SPIR-V has one spelling for and WGSL two: see below | a call does what the body does, and nobody else sees these variables |
//! | two functions with equal signatures and bodies | a call sees nothing else of them; those with names that count stay two |
//! | pure expressions: bound by `let` or written out, once or twice, used or not | they read nothing but their operands, so that the place and the number of evaluations cannot be seen; a small value that several branches share is computed in each of them, a large one before them |
//! | an unused load from private, function or workgroup memory; an unused derivative | nothing but its value comes of it |
//! | `a > b` and `b < a`, `a >= b` and `b <= a` | one comparison; on NaN all are false |
//! | `!(a != b)` and `a == b`, `!(a < b)` and `b <= a` on integers and booleans | one holds where the other does not; floats have NaN |
//! | `b == true`, `b != false`, `!!b` and `b`; `b == false` and `!b` | booleans have two values |
//! | `f32(x)` and `bitcast<f32>(x)` of an `f32`, and so on | a conversion to the type that a value has changes none of its bits |
//! | `i32(u)` and `bitcast<i32>(u)` of a `u32`, and so on | a conversion between integers of one width keeps the bits |
//! | `vec3(x, x, x)`, `vec3(x)`, `v.xxx` | the same components |
//! | `vec3(v.x, v.y, v.z)`, `v.xyz` and `v`; `vec2(v.y, v.x)` and `v.yx`; `v.yx.x` and `v.y`; `S(a, b).x` and `a` | a component is what it was made of, bit for bit |
//! | `vec3()`, `vec3(0.0)`; `S()` and `S(0.0, 0u)`; `var v: T;` and `var v = T();` | every bit is zero, and back ends write so; -0.0 has one that is not |
//! | `@interpolate(perspective)`, `@interpolate(perspective, center)` and none; `linear` alike | what is interpolated is sampled at the center unless it says otherwise |
//! | operands of `+ * & \| ^ == !=` on integers and booleans | exact and commutative; what operands read is read at its own place, before |
//! | `7u & 3u` and `3u`, `u32(true)` and `1u`, `2 < 1` and `false`: sums and products of integer literals that do not overflow, bits, comparisons, conversions between integers and booleans | exact on every device |
//! | `16.0 - 1.0` and `15.0`: float sums and products of normal literals that are exact and normal | no rounding mode, contraction or flush to zero can change them |
//! | components of a swizzle past its size | never read |
//!
//! # What is not
//!
//! | kept | why |
//! |---|---|
//! | loads, samples, derivatives, calls, atomics, barriers, stores: each, and their order | memory and neighbours in control flow make the place part of the meaning; so does a `continue` |
//! | `v.x` and `x` of a load of all of `v`, where `v` is a resource, or is written more than once | another invocation may write between two loads, and a target may check the bounds of each; a place in memory would need a history of its stores |
//! | a `var` that is indexed by what is no constant, and a `let` | back ends copy a `let` into memory to index it, and bound the index by other policies |
//! | `for` and `while`, where a `continue` skips what one of them does at the end of the body | they are two loops |
//! | `if c { a } else { b }` and `if !c { b } else { a }` | not worth a rule; with an empty branch there is one |
//! | a loop that is left in its first round, and its body | not worth a rule |
//! | what follows a `discard` | SPIR-V ends the invocation there, other targets go on with it for its neighbours |
//! | what follows a `switch` or a loop that never ends by itself | compilers of some targets ask for a value after it |
//! | work done before a loop | it would be as right inside, and slower |
//! | what neighbours are compared by, computed before one of them may `discard` or branch away | a target may stop it there, and derivatives would compare with what it has not computed; `quadSwapX`, `subgroupShuffle` and their like would read it |
//! | order of float operands; `min`, `max`; `x + 0.0`, `x * 1.0`, `!(a < b)` on floats | NaN payloads, signed zeros and NaN itself tell them apart |
//! | `a && b` and `b && a` | some back ends write the operator of their language, whose left operand guards the right one |
//! | `@interpolate(flat)` and `@interpolate(flat, first)` | naga's GLSL back end writes the one and refuses the other |
//! | literals by type and bits | -0.0 is not 0.0 |
//! | all other arithmetic on literals that naga's front ends have left | a device may round otherwise than its compiler; overflow and division have rules of their own |
//! | an index that is a literal, as `let k = 1u; v[k]`, and a part by its number | bounds are checked by other rules. Where it is out of bounds, naga refuses the canonical form, and the module is compiled and not cached |
//! | a divisor that is 0, or a shift as wide as its type, once a `var` is the value that it holds | naga refuses such a canonical form, and the module is compiled and not cached |
//! | names and ids of overrides, used or not; names of entry points | pipelines set and choose by them |
//! | names of functions in a module without an entry point | who imports it calls by them |
//! | a resource that an entry point names to no effect, as in `_ = buffer;` | it is part of the interface, from which layouts are made |
//! | a canonical module, and what is parsed from the WGSL that naga writes of it, where that leaves out a resource that is only named or folds constants of other rules | the same two reasons |
//! | names of `modf`'s results and their like | back ends look members up by name |
//! | the structure that a fragment shader returns, and an equal one | naga's HLSL back end takes the locations in that type for those of targets, wherever it is used |
//! | an error of what is used for nothing, as `let x = 1u / N;` with an override `N` of 0 | not kept: that module makes no pipeline, its canonical form does, and computes the same but for it |
//! | unused samples, unused loads from resources | they use a resource: the same |
//!
//! # SPIR-V
//!
//! A module that naga reads from SPIR-V has the key of the WGSL that it came from where the way
//! there can be gone back. Its entry points become plain ones, their inputs and outputs arguments
//! and results again; a buffer loses the structure of one member that SPIR-V wants around it. Where
//! SPIR-V has one spelling for two of WGSL, a module with such entry points has the one that most
//! shaders are written in: `u32(b)` for `select(0u, 1u, b)`, `v[1]` for `let k = 1u; v[k]`, `switch u`
//! for `switch i32(u)`, `textureDimensions(t)` for `textureDimensions(t, 0)`, a `for` without
//! `continue` at its end. Of 154 shaders of wgpu and of the WebGPU samples, 58 % have the key of
//! their own SPIR-V where naga writes it without guards, and 23 % of 150 where it writes all that it
//! writes unless it is told otherwise. What is lost on the way stays apart:
//!
//! | kept | why |
//! |---|---|
//! | guards that a compiler has written: bounds of loops, of divisors, of floats before they become integers, zeros for workgroup memory | they are code, and other targets may lack them |
//! | `v * s` of a vector and a scalar, and `s * v` | the order of float operands; SPIR-V knows the first alone |
//! | a value that is indexed by what is no constant, and the variable that SPIR-V needs for it | see above |
//! | atomics that the shader does not touch, and plain integers | SPIR-V does not tell them apart, WGSL does |
//! | a buffer that is a structure of one member in WGSL | SPIR-V does not tell it from the structure that it wants around a buffer |
//! | a private variable that the wrapped function hands on, or that another function uses | what else is done with it would have to be followed |
//! | a structure that a buffer holds too, and its parts as inputs or outputs | naga's HLSL back end loses the layout of a structure whose members are bound |
//! | a structure of an index of vertices or instances or a number of workgroups, that is handed on whole | naga's HLSL back end corrects such an index where the argument itself is read |
//! | an entry point that does more than pass values on to and from one function, which nothing else calls, or names a resource | it is code, or part of the interface |
//! | a function with so many `return`s that what follows it would have to be written thousands of times | the canonical form would be larger than the source |
//!
//! Such a module is copied and validated once more: its key takes about three and a half times as
//! long as naga's validator does, that of a [`ValidatedModule`] two and a half times.
//!
//! An artifact's debug information holds none of the source's names. Callers who need
//! names in artifacts key their source as an [`OpaqueProgram`](crate::OpaqueProgram).
//!
//! # Versions
//!
//! [`Program::DOMAIN`] names naga's major version, since another IR is another program. The minor
//! version belongs into the [`CompileScope`](crate::CompileScope), as any compiler's build does.

mod build;
mod canonical;
mod carried;
mod context;
mod deep;
mod effects;
mod events;
mod filters;
mod flow;
mod function;
mod global_set;
mod items;
mod kept;
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
mod settled;
mod shallow;
mod shared;
mod special;
mod timing;
mod twins;
mod uses;
mod validate;
mod validated;
mod values;
mod wire;
mod wrapped;

pub use canonical::CanonicalModule;
pub use validate::InvalidModule;
pub use validated::ValidatedModule;

use naga::Module;
use naga::valid::{Capabilities, ValidationFlags};

use super::{Program, Unkeyable};

/// Names the major version of naga: another IR is another program.
const DOMAIN: &str = "naga/30";
const SCHEMA: u32 = 3;

/// How deep blocks may nest in blocks, and types and constants in their like. Beyond it a module
/// is not keyed, so that no module can exhaust the stack.
///
/// A module that nests deeper than 48 levels is validated and keyed on a thread of its own, with
/// a stack of 40 KiB a level. naga's front ends and back ends recurse as well: whoever parses or
/// compiles such a module needs a stack for it. A back end takes up to 22 KiB a level in a debug
/// build. Expressions need none: those of a [`CanonicalModule`] nest no deeper than 12 before a part
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
