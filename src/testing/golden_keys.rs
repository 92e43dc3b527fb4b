//! A file of keys, kept beside the tests: it notices when a change of the code changes keys.
//!
//! One line says the domain, the schema and the version of the library's wire; each other line
//! has a key and the name of its sample.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::program_error::{ProgramFault, WRITE_KEYS_VARIABLE};
use crate::key::WIRE_VERSION;

/// A fault of the file, or of a sample in it: which, what, and the detail.
pub(super) type GoldenFault = (String, ProgramFault, String);

/// Where the file is, and whether it may be written.
#[derive(Debug, Clone)]
pub(super) struct GoldenFile {
    path: PathBuf,
    write: bool,
}

/// What a golden file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GoldenKeys {
    pub(super) domain: String,
    pub(super) schema: u32,
    wire: u16,
    /// From the name of a sample, without line breaks, to its key in hex.
    keys: BTreeMap<String, String>,
}

impl GoldenKeys {
    pub(super) fn new<'a>(
        domain: &str,
        schema: u32,
        keys: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Self {
        let keys = keys.into_iter();
        Self {
            domain: domain.escape_debug().to_string(),
            schema,
            wire: WIRE_VERSION,
            keys: keys
                .map(|(name, key)| (name.escape_debug().to_string(), key))
                .collect(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let head = lines.next()?.strip_prefix("schema ")?;
        let (schema, head) = head.split_once(" wire ")?;
        let (wire, domain) = head.split_once(" domain ")?;
        let key = |line: &str| {
            let (key, name) = line.split_once(' ')?;
            Some((name.to_owned(), key.to_owned()))
        };
        Some(Self {
            domain: domain.to_owned(),
            schema: schema.parse().ok()?,
            wire: wire.parse().ok()?,
            keys: lines.map(key).collect::<Option<_>>()?,
        })
    }

    fn print(&self) -> String {
        let Self {
            domain,
            schema,
            wire,
            keys,
        } = self;
        let mut text = format!(
            "# Keys of sample programs. Written with {WRITE_KEYS_VARIABLE}=1; not edited by hand.\n\
             schema {schema} wire {wire} domain {domain}\n"
        );
        for (name, key) in keys {
            let _ = writeln!(text, "{key} {name}");
        }
        text
    }

    /// The first way in which the code broke the promise of the file, which no rewrite mends.
    fn broken_by(&self, now: &Self) -> Option<GoldenFault> {
        if self.domain != now.domain {
            return None;
        }
        if now.schema < self.schema {
            let detail = format!("{} in the file, {} in the code", self.schema, now.schema);
            return Some((String::new(), ProgramFault::SchemaWentDown, detail));
        }
        if now.schema > self.schema || now.wire != self.wire {
            return None;
        }
        let (name, key) = now
            .keys
            .iter()
            .find(|&(name, key)| self.keys.get(name).is_some_and(|golden| golden != key))?;
        let detail = format!(
            "{} in the file, {key} now, both of schema {}",
            self.keys.get(name).map_or("", String::as_str),
            now.schema
        );
        Some((name.clone(), ProgramFault::WireChangedWithoutSchema, detail))
    }

    /// How the file differs from what it would be if it were written now.
    fn difference(&self, now: &Self) -> Option<String> {
        if self == now {
            return None;
        }
        Some(if self.domain != now.domain {
            format!("it is of the domain {}", self.domain)
        } else if self.schema != now.schema {
            format!(
                "it is of schema {}, the code of {}",
                self.schema, now.schema
            )
        } else if self.wire != now.wire {
            format!(
                "it is of wire version {}, the library of {}",
                self.wire, now.wire
            )
        } else {
            let missing = |one: &Self, other: &Self| {
                let mut names = one.keys.keys();
                names.find(|name| !other.keys.contains_key(*name)).cloned()
            };
            match (missing(now, self), missing(self, now)) {
                (Some(name), _) => format!("it has no sample \"{name}\""),
                (None, Some(name)) => format!("there is no sample \"{name}\" any more"),
                (None, None) => "keys differ".to_owned(),
            }
        })
    }
}

impl GoldenFile {
    pub(super) fn new(path: PathBuf, write: bool) -> Self {
        Self { path, write }
    }

    /// Writes only what the environment says.
    pub(super) fn from_environment(path: PathBuf) -> Self {
        let write = std::env::var_os(WRITE_KEYS_VARIABLE);
        let write = write.is_some_and(|value| !value.is_empty() && value != "0");
        Self::new(path, write)
    }

    /// Compares the file with today's keys, or writes it. A file whose promise is broken is not
    /// written over.
    pub(super) fn check(&self, now: &GoldenKeys) -> Result<(), GoldenFault> {
        let Self { path, write } = self;
        let of_file = |fault, detail: String| (path.display().to_string(), fault, detail);
        let kept = read(path).map_err(|detail| of_file(ProgramFault::GoldenFile, detail))?;
        if let Some((name, fault, detail)) = kept.as_ref().and_then(|kept| kept.broken_by(now)) {
            let place = format!("{}: {detail}", path.display());
            return Err(match name.is_empty() {
                true => of_file(fault, detail),
                false => (name, fault, place),
            });
        }
        let difference = match &kept {
            None => Some("there is no such file".to_owned()),
            Some(kept) => kept.difference(now),
        };
        match difference {
            None => Ok(()),
            Some(difference) if !write => Err(of_file(ProgramFault::GoldenFileIsOld, difference)),
            Some(_) => write_file(path, &now.print())
                .map_err(|error| of_file(ProgramFault::GoldenFile, error.to_string())),
        }
    }
}

/// What the file says; `None` where there is none.
fn read(path: &Path) -> Result<Option<GoldenKeys>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => match GoldenKeys::parse(&text) {
            Some(keys) => Ok(Some(keys)),
            None => Err("it is not a file of keys".to_owned()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
