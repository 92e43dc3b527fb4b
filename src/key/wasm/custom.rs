//! Custom sections: which are dropped, which are kept, and which pin the whole module.

/// What becomes of a custom section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// For people and debuggers, or named by the caller. A section not known is never dropped.
    Dropped,
    /// Part of the program, and free of indices and offsets into it, so that the rest of the
    /// module may be numbered anew.
    Kept,
    /// Part of the program, and full of numbers of functions and offsets into their bodies: the
    /// program stays as it is.
    PinsProgram,
    /// Perhaps full of offsets into the file, or counts of its sections: nothing is dropped either.
    PinsFile,
}

/// The names in `ignored` are in order.
pub(super) fn fate(name: &str, ignored: &[String]) -> Fate {
    let is_ignored = ignored
        .binary_search_by(|one| one.as_str().cmp(name))
        .is_ok();
    // Names of things, tools that wrote the module, and where the source is: no engine's code
    // depends on them.
    let dropped = matches!(
        name,
        "name" | "producers" | "sourceMappingURL" | "external_debug_info"
    ) || name.starts_with(".debug_");
    // Sizes, names of libraries, features and interfaces, and build ids. Whatever of the module
    // they mention, they mention by the name of an import or export.
    let free_of_indices = matches!(
        name,
        "dylink" | "dylink.0" | "target_features" | "build_id" | "go:buildid"
    ) || name.starts_with("component-type");
    if dropped || is_ignored {
        Fate::Dropped
    } else if free_of_indices {
        Fate::Kept
    } else if name.starts_with("metadata.code.") {
        Fate::PinsProgram
    } else {
        // `linking`, `reloc.*`, and all that is not known.
        Fate::PinsFile
    }
}
