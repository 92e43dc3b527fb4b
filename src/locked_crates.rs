//! The crates that a compiler is made of, as Cargo resolved them, for the scope of its artifacts.
//!
//! Cargo.lock and the manifests are part of the caller's source, so rustc builds it anew when
//! they change. The text is searched in a `const`, so what is missing stops the build.

use std::fmt;

/// The resolved versions of named crates and the features asked for, as text for a
/// [`CompileScope`](crate::CompileScope). Made by [`locked_crates!`](crate::locked_crates).
///
/// `Display` writes one part for each crate, as in `naga 30.0.2 { version = "30", features =
/// ["spv-out"] }`: the version in Cargo.lock, and the dependency as the manifests declare it. A
/// crate that is not from crates.io has its source beside the version, with the commit where that
/// is a git repository. Where Cargo.lock has several versions of a crate, all are named.
///
/// See [`locked_crates!`](crate::locked_crates) for an example.
#[derive(Debug, Clone, Copy)]
pub struct LockedCrates {
    lock: &'static str,
    manifests: &'static [&'static str],
    names: &'static [&'static str],
}

/// The resolved versions of crates, and the features asked for: a constant [`LockedCrates`] from
/// Cargo.lock, the manifests that declare the crates, and their names.
///
/// Paths are relative to the source file, as for [`include_str!`]. A scope written by hand says
/// which version somebody had in mind. This one says which was built, and changes with it.
///
/// The build fails when a crate is not in Cargo.lock, when no manifest declares it, and when it
/// comes from a folder, because then its version says nothing of its code: put a hash or a commit
/// into the scope instead. What is not seen: features that other packages of the same build ask
/// for, and changes in crates that are not named. Name all that shape an artifact. A dependency
/// with `workspace = true` needs the workspace's manifest beside the package's.
///
/// ```
/// use pipeline_cache::{CompileScope, LockedCrates, locked_crates};
///
/// // In a program: `locked_crates!("../Cargo.lock", ["../Cargo.toml"], ["naga"])`.
/// const COMPILER: LockedCrates = locked_crates!(
///     concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"),
///     [concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
///     ["naga"]
/// );
/// let scope = CompileScope::new(COMPILER.to_string(), "spirv-1.3")?;
/// assert!(scope.compiler().starts_with("naga 30."), "{COMPILER}");
/// # Ok::<(), pipeline_cache::key::CompileScopeError>(())
/// ```
///
/// What is missing is an error of the build:
///
/// ```compile_fail
/// # use pipeline_cache::{LockedCrates, locked_crates};
/// const COMPILER: LockedCrates = locked_crates!(
///     concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"),
///     [concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
///     ["no-such-compiler"]
/// );
/// ```
#[macro_export]
macro_rules! locked_crates {
    ($lock:expr, [$($manifest:expr),+ $(,)?], [$($name:literal),+ $(,)?] $(,)?) => {
        const {
            match $crate::LockedCrates::find(
                ::core::include_str!($lock),
                &[$(::core::include_str!($manifest)),+],
                &[$($name),+],
            ) {
                ::core::result::Result::Ok(crates) => crates,
                ::core::result::Result::Err(missing) => ::core::panic!("{}", missing.message()),
            }
        }
    };
}

/// Why [`locked_crates!`](crate::locked_crates) stops a build.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLocked {
    /// No package of this name.
    NotInLock,
    /// A package of this name has no source.
    FromFolder,
    /// No dependency of this name.
    NotDeclared,
}

impl NotLocked {
    /// What the build error says; the macro's call stands beside it.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotInLock => "Cargo.lock has no package of one of these names",
            Self::FromFolder => {
                "one of these crates comes from a folder: its version does not say what code it \
                 is. Put a commit or a hash of it into the scope"
            }
            Self::NotDeclared => "no manifest given here declares one of these crates",
        }
    }
}

impl LockedCrates {
    /// For the macro, which calls it in a `const`.
    #[doc(hidden)]
    pub const fn find(
        lock: &'static str,
        manifests: &'static [&'static str],
        names: &'static [&'static str],
    ) -> Result<Self, NotLocked> {
        let mut n = 0;
        while n < names.len() {
            if let Err(missing) = in_lock(lock.as_bytes(), names[n].as_bytes()) {
                return Err(missing);
            }
            let (mut m, mut declared) = (0, false);
            while m < manifests.len() {
                declared |= declares(manifests[m].as_bytes(), names[n].as_bytes());
                m += 1;
            }
            if !declared {
                return Err(NotLocked::NotDeclared);
            }
            n += 1;
        }
        Ok(Self {
            lock,
            manifests,
            names,
        })
    }

    /// The version of a crate in Cargo.lock, with its source if that is not crates.io; several
    /// are joined by commas. `None` for a crate that was not named.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<String> {
        let named = self.names.contains(&name);
        named.then(|| versions(self.lock, name).join(", "))
    }
}

impl fmt::Display for LockedCrates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, name) in self.names.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(
                f,
                "{separator}{name} {}",
                versions(self.lock, name).join(", ")
            )?;
            for manifest in self.manifests {
                for declared in declarations(manifest, name) {
                    write!(f, " {declared}")?;
                }
            }
        }
        Ok(())
    }
}

/// Whether Cargo.lock has the package, and every one of that name has a source.
///
/// One step of the outer loop for each byte: rustc warns of constants that take many more.
const fn in_lock(lock: &[u8], name: &[u8]) -> Result<(), NotLocked> {
    let (mut at, mut line_starts, mut found) = (0, true, false);
    while at < lock.len() {
        if line_starts && lock[at] == b'n' && begins(lock, at, b"name = \"") {
            let end = at + 8 + name.len();
            if begins(lock, at + 8, name) && begins(lock, end, b"\"") {
                if !has_source(lock, end) {
                    return Err(NotLocked::FromFolder);
                }
                found = true;
            }
        }
        line_starts = lock[at] == b'\n';
        at += 1;
    }
    if found {
        Ok(())
    } else {
        Err(NotLocked::NotInLock)
    }
}

/// Whether a line with the source comes before the next package.
const fn has_source(lock: &[u8], mut at: usize) -> bool {
    while at < lock.len() && !begins(lock, at, b"\n[[") {
        if begins(lock, at, b"\nsource = ") {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether a table of dependencies has a line for this one, or it has a table of its own.
const fn declares(manifest: &[u8], name: &[u8]) -> bool {
    let (mut at, mut line_starts, mut inside) = (0, true, false);
    while at < manifest.len() {
        if line_starts {
            if manifest[at] == b'[' {
                let table = Table::at(manifest, at, name);
                if matches!(table, Table::OfTheDependency) {
                    return true;
                }
                inside = matches!(table, Table::OfDependencies);
            } else if inside && is_line_of(manifest, at, name) {
                return true;
            }
        }
        line_starts = manifest[at] == b'\n';
        at += 1;
    }
    false
}

/// What a header in a manifest begins.
enum Table {
    /// `[dependencies]`, `[workspace.dependencies]`, `[target.….dev-dependencies]`
    OfDependencies,
    /// `[dependencies.name]`
    OfTheDependency,
    Other,
}

impl Table {
    const fn at(manifest: &[u8], mut at: usize, name: &[u8]) -> Self {
        while at < manifest.len() && manifest[at] != b'\n' {
            if begins(manifest, at, b"dependencies]") {
                return Self::OfDependencies;
            }
            let start = at + b"dependencies.".len();
            if begins(manifest, at, b"dependencies.")
                && begins(manifest, start, name)
                && begins(manifest, start + name.len(), b"]")
            {
                return Self::OfTheDependency;
            }
            at += 1;
        }
        Self::Other
    }
}

/// Whether a line reads `name = …` or `name.workspace = …`.
const fn is_line_of(manifest: &[u8], at: usize, name: &[u8]) -> bool {
    let end = at + name.len();
    begins(manifest, at, name)
        && (begins(manifest, end, b" =")
            || begins(manifest, end, b"=")
            || begins(manifest, end, b"."))
}

const fn begins(text: &[u8], at: usize, with: &[u8]) -> bool {
    if text.len() < at + with.len() {
        return false;
    }
    let mut n = 0;
    while n < with.len() {
        if text[at + n] != with[n] {
            return false;
        }
        n += 1;
    }
    true
}

/// Version and foreign source of every package of this name.
fn versions(lock: &str, name: &str) -> Vec<String> {
    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let field = |package: &str, field: &str| {
        let mut lines = package.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(" = \""));
        value.map(|value| value.trim_end_matches('"').to_owned())
    };
    let of_name = lock
        .split("[[package]]")
        .filter(|package| field(package, "name").as_deref() == Some(name));
    of_name
        .map(|package| {
            let version = field(package, "version").unwrap_or_default();
            match field(package, "source") {
                Some(source) if source != CRATES_IO => format!("{version} ({source})"),
                _ => version,
            }
        })
        .collect()
}

/// What follows the name in each declaration, up to where its brackets close, in one line.
fn declarations(manifest: &str, name: &str) -> Vec<String> {
    let bytes = manifest.as_bytes();
    let (mut found, mut at, mut inside) = (Vec::new(), 0, false);
    for line in manifest.split_inclusive('\n') {
        let mut text = "";
        if line.starts_with('[') {
            let table = Table::at(bytes, at, name.as_bytes());
            inside = matches!(table, Table::OfDependencies);
            if matches!(table, Table::OfTheDependency) {
                let own = &manifest[at + line.len()..];
                text = own.split("\n[").next().unwrap_or_default();
            }
        } else if inside && is_line_of(bytes, at, name.as_bytes()) {
            let rest = &manifest[at + name.len()..];
            text = &rest[..value_end(rest)];
        }
        if !text.is_empty() {
            let words: Vec<_> = text.split_whitespace().collect();
            found.push(words.join(" ").trim_start_matches("= ").to_owned());
        }
        at += line.len();
    }
    found
}

/// The end of the first line at which all brackets are closed.
fn value_end(text: &str) -> usize {
    let mut open = 0_u32;
    for (at, char) in text.char_indices() {
        match char {
            '{' | '[' => open += 1,
            '}' | ']' => open = open.saturating_sub(1),
            '\n' if open == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"version = 4

[[package]]
name = "naga"
version = "30.0.2"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "a616"
dependencies = [
 "half 2.0.0",
]

[[package]]
name = "naga-types"
version = "9.9.9"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "ours"
version = "0.1.0"
dependencies = [
 "naga",
]

[[package]]
name = "patched"
version = "1.0.0"
source = "git+https://example.com/patched#0123abcd"

[[package]]
name = "half"
version = "1.8.3"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "half"
version = "2.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
"#;

    const MANIFEST: &str = r#"[package]
name = "ours"

[features]
naga-types = ["dep:naga"]

[dependencies]
# naga = "29"
naga = { version = "30.0.1", default-features = false, features = [
    "spv-out",
    "wgsl-in",
] }
half = "2"

[dependencies.patched]
git = "https://example.com/patched"
features = ["fast"]

[dev-dependencies]
serde = "1"
"#;

    fn find(name: &'static [&'static str]) -> Result<LockedCrates, NotLocked> {
        LockedCrates::find(LOCK, &[MANIFEST], name)
    }

    #[test]
    fn the_version_is_the_resolved_one_and_features_are_those_asked_for() {
        let crates = find(&["naga", "patched"]).unwrap();
        assert_eq!(
            crates.to_string(),
            "naga 30.0.2 { version = \"30.0.1\", default-features = false, features = [ \
             \"spv-out\", \"wgsl-in\", ] }; patched 1.0.0 \
             (git+https://example.com/patched#0123abcd) git = \
             \"https://example.com/patched\" features = [\"fast\"]"
        );
        assert_eq!(crates.version("naga").as_deref(), Some("30.0.2"));
        assert_eq!(crates.version("half"), None);
    }

    #[test]
    fn all_versions_of_a_crate_are_named() {
        let crates = find(&["half"]).unwrap();
        assert_eq!(crates.version("half").as_deref(), Some("1.8.3, 2.0.0"));
    }

    #[test]
    fn what_is_missing_or_says_nothing_is_an_error() {
        assert_eq!(find(&["nag"]).unwrap_err(), NotLocked::NotInLock);
        assert_eq!(find(&["naga", "spirv"]).unwrap_err(), NotLocked::NotInLock);
        assert_eq!(find(&["ours"]).unwrap_err(), NotLocked::FromFolder);
        assert_eq!(find(&["naga-types"]).unwrap_err(), NotLocked::NotDeclared);
    }

    #[test]
    fn line_ends_of_windows_change_nothing() {
        let windows: &'static str = LOCK.replace('\n', "\r\n").leak();
        let crates = LockedCrates::find(windows, &[MANIFEST], &["naga"]).unwrap();
        assert_eq!(crates.version("naga").as_deref(), Some("30.0.2"));
        let ours = LockedCrates::find(windows, &[MANIFEST], &["ours"]);
        assert_eq!(ours.unwrap_err(), NotLocked::FromFolder);
    }
}
