//! WebAssembly modules: canonical form and key of a binary module. Needs the feature `wasm`.
//!
//! The module is validated, then written anew from its imports, exports, segments and start
//! function. What is written is a valid module; it is what is hashed and what is compiled, so that
//! nothing that was left out of it can reach an artifact.
//!
//! ```
//! use pipeline_cache::key::wasm::WasmModule;
//! use pipeline_cache::{PipelineFingerprint, Program as _};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let one = WasmModule::new(wat::parse_str(
//!     r#"(module
//!          (func $unused)
//!          (func $double (param $x i32) (result i32) local.get $x i32.const 1 i32.shl)
//!          (func (export "run") (param i32) (result i32) local.get 0 call $double))"#,
//! )?);
//! let two = WasmModule::new(wat::parse_str(
//!     r#"(module
//!          (type (func))
//!          (type $unary (func (param i32) (result i32)))
//!          (func (export "run") (type $unary) local.get 0 call $shift)
//!          (func $shift (type $unary) local.get 0 i32.const 1 i32.shl))"#,
//! )?);
//! assert_eq!(PipelineFingerprint::of(&one)?, PipelineFingerprint::of(&two)?);
//!
//! let canonical = one.canonicalize()?;
//! assert_eq!(canonical.bytes()[..4], b"\0asm"[..]);
//! # Ok(())
//! # }
//! ```
//!
//! # What is one
//!
//! | spellings | why they mean one thing |
//! |---|---|
//! | a number with or without padding, in LEB128 | one number; a linker leaves padding behind |
//! | long and short forms: of reference types, block types, imports by groups, segments of table 0 or memory 0 | the binary format has two encodings of one thing |
//! | `(block (type $t))` and the shorthand for the same results | a block type is its parameters and results |
//! | `name`, `producers`, `.debug_*`, `sourceMappingURL`, `external_debug_info`, present or not | they are read by people and debuggers, and hold no part of the program |
//! | runs of equal locals, split or merged, empty or not there | a body sees its locals by number alone |
//! | empty sections; a data count that no body needs | they declare nothing |
//! | one type declared twice; the order of types; types that nothing uses | types are compared by structure, whole recursion groups at a time; an index is no part of a type |
//! | the order of functions; functions that no export, segment, initializer, start or reached function names | a function is known by what refers to it, and imported functions keep their numbers; stack traces, and the `name` that JavaScript gives an exported function, are of the canonical module |
//! | the order of globals; globals that nothing reaches and whose initializer is plain | an initializer without effects yields the same whenever it is evaluated |
//!
//! # What is not
//!
//! | kept | why |
//! |---|---|
//! | imports, exports, memories, tables, tags, segments, the start function: each, and their order | hosts see the order of imports and exports; segments are written in order and may trap between |
//! | a global whose initializer allocates | an allocation may fail, and then the module is not instantiated |
//! | a global whose initializer refers to a function | it may be what allows bodies to refer to that function |
//! | every instruction, and its order, dead ones and `nop` too | an instruction may trap, and hosts meter them |
//! | order of operands | the stack fixes the order of evaluation |
//! | `drop` of a value, `select` with and without a type, elements as functions and as expressions | two instructions or two segment types, told apart by validation |
//! | constants by their bits | -0.0 is not 0.0, and a NaN is its payload |
//! | two equal functions | references to them differ by their place in a table |
//! | imports that nothing uses | a host finds and provides each of them before a module starts, and one it lacks is an error |
//! | unused locals | tools that meter the stack or the cost of a call count them, as they count instructions |
//! | every other custom section, in its place, unless [the caller names it](WasmModule::ignoring_sections) | `dylink.0`, `target_features`, `component-type*` steer tools and hosts |
//!
//! `metadata.code.*` counts functions and bytes of their bodies: a module with such a section is kept
//! byte by byte, apart from the sections dropped. One with `linking`, `reloc.*`, or a custom section
//! that is not known, which may count bytes of the file, is kept whole, with the names of functions in
//! it. [`WasmModule::ignoring_sections`] names sections that are nothing to the compiler.
//!
//! An artifact therefore holds none of the source's names. Callers who need names in artifacts key
//! their source as an [`OpaqueProgram`](crate::OpaqueProgram).
//!
//! # What has no key
//!
//! Invalid modules, components, and modules that use a proposal the rules do not know:
//! shared-everything-threads, stack switching, memory control, custom descriptors,
//! acquire-release atomics, multibyte array access. Nor do modules whose imports share names so long
//! that they would take more than four times the module when written out one by one.

mod body;
mod build;
mod custom;
mod data;
mod encode;
mod indices;
mod operators;
mod parts;
mod references;
mod source;
mod types;
mod validate;
mod verbatim;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use wasmparser::{WasmFeatures, WasmFeaturesInflated};

use super::{Program, ToWire, Unkeyable, WireWriter};

/// A WebAssembly module in the binary format. Needs the feature `wasm`.
///
/// ```
/// use pipeline_cache::PipelineFingerprint;
/// use pipeline_cache::key::wasm::WasmModule;
///
/// let empty = WasmModule::new(&b"\0asm\x01\0\0\0"[..]);
/// assert!(PipelineFingerprint::of(&empty).is_ok());
///
/// let text = WasmModule::new("(module)");
/// assert!(PipelineFingerprint::of(&text).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WasmModule {
    bytes: Bytes,
    ignored: Arc<[String]>,
}

impl WasmModule {
    /// A module of these bytes. They are looked at when the module is canonicalized.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            ignored: Arc::default(),
        }
    }

    /// Leaves custom sections of these names out of the canonical form, and so out of what is
    /// compiled. The default is none. The names replace those of an earlier call.
    ///
    /// A custom section that the rules do not know pins every byte of a module, names of functions
    /// among them. Whoever knows that a section is nothing to the compiler names it here:
    /// `__wasm_bindgen_unstable` is read by `wasm-bindgen` before a module is shipped, and a
    /// `build_id` tells builds apart. The names are part of the key: modules that are keyed with
    /// others share none, whether or not they have such a section. A
    /// [front end](crate::SourceAliases) that keys with names is a front end of its own.
    ///
    /// ```
    /// use pipeline_cache::PipelineFingerprint;
    /// use pipeline_cache::key::wasm::WasmModule;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = |text| -> Result<_, Box<dyn std::error::Error>> {
    ///     let module = WasmModule::new(wat::parse_str(text)?).ignoring_sections(["build_id"]);
    ///     Ok(PipelineFingerprint::of(&module)?)
    /// };
    /// let one = key(r#"(module (@custom "build_id" "7e5f"))"#)?;
    /// let two = key(r#"(module (@custom "build_id" "03a1"))"#)?;
    /// assert_eq!(one, two);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ignoring_sections(mut self, names: impl IntoIterator<Item: Into<String>>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        self.ignored = names.into_iter().collect();
        self
    }

    /// The module's bytes, as they were given.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A WebAssembly module in the one form that all its spellings share.
///
/// ```
/// use pipeline_cache::Program as _;
/// use pipeline_cache::key::wasm::WasmModule;
///
/// let named = wat::parse_str("(module $name (func $unused))")?;
/// let canonical = WasmModule::new(named).canonicalize()?;
/// assert_eq!(canonical.bytes()[..], b"\0asm\x01\0\0\0"[..]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalModule {
    bytes: Bytes,
    ignored: Arc<[String]>,
}

impl CanonicalModule {
    /// The canonical module in the binary format: what a compile function is to compile.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Program for WasmModule {
    const DOMAIN: &'static str = "wasm";
    const SCHEMA: u32 = 2;
    type Canonical = CanonicalModule;

    /// Takes up to twice the time that validating the module takes, and memory of a few times its
    /// size. Like any computation of milliseconds, it belongs on a thread that may be blocked.
    ///
    /// The function bodies of modules with more than 256 KiB of them are validated by several
    /// threads: one for each 256 KiB, but no more than eight, nor more than the machine has
    /// processors. All of them end before this returns.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when the module is invalid, when it is a component or uses a proposal that
    /// the rules do not know, or when it is larger than 4 GiB.
    fn canonicalize(&self) -> Result<CanonicalModule, Unkeyable> {
        let bytes = build::canonicalize(&self.bytes, &self.ignored)?;
        let ignored = Arc::clone(&self.ignored);
        Ok(CanonicalModule { bytes, ignored })
    }
}

impl ToWire for CanonicalModule {
    type Program = WasmModule;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.part("ignored sections", |wire| {
            wire.seq(&self.ignored, |wire, name| wire.str(name));
        });
        wire.bytes_in_parts(&self.bytes, parts::divide);
    }
}

/// The proposals that the rules know. A new one in the parser does not compile until it stands
/// here, and is not keyed until the rules have been held against it.
fn features() -> WasmFeatures {
    WasmFeatures::from_inflated(WasmFeaturesInflated {
        mutable_global: true,
        saturating_float_to_int: true,
        sign_extension: true,
        reference_types: true,
        multi_value: true,
        bulk_memory: true,
        simd: true,
        relaxed_simd: true,
        threads: true,
        tail_call: true,
        floats: true,
        multi_memory: true,
        exceptions: true,
        memory64: true,
        extended_const: true,
        function_references: true,
        gc: true,
        gc_types: true,
        custom_page_sizes: true,
        legacy_exceptions: true,
        wide_arithmetic: true,
        call_indirect_overlong: true,
        bulk_memory_opt: true,
        compact_imports: true,
        shared_everything_threads: false,
        memory_control: false,
        stack_switching: false,
        custom_descriptors: false,
        acquire_release_atomics: false,
        multibyte_array_access: false,
        component_model: false,
        cm_values: false,
        cm_nested_names: false,
        cm_async: false,
        cm_async_stackful: false,
        cm_more_async_builtins: false,
        cm_threading: false,
        cm_error_context: false,
        cm_fixed_length_lists: false,
        cm_gc: false,
        cm_map: false,
        cm64: false,
        cm_implements: false,
        cm_canon_names: false,
        cm_forward: false,
        cm_accessors: false,
    })
}

fn invalid(error: impl std::fmt::Display) -> Unkeyable {
    Unkeyable::new(format!("the module is invalid: {error}"))
}
