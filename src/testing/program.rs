//! The contract of a program and its wire, as checks that any implementation can be put to.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::thread;

use super::golden_keys::{GoldenFile, GoldenKeys};
use super::program_error::{ProgramError, ProgramFault};
use crate::key::{PipelineFingerprint, Program, ToWire as _, Unkeyable, WireWriter, write_program};

/// How many threads make every sample anew.
const THREADS: usize = 4;

/// How often each of them does. With two entries in a hash table, one run in 2^32 sees no
/// difference.
const ROUNDS: usize = 8;

type Make<P> = Box<dyn Fn() -> P + Send + Sync>;
type Again<P> = Box<dyn Fn(&<P as Program>::Canonical) -> P + Send + Sync>;

/// Sample programs for [`check_program`], and which of them are the same program. Needs the feature
/// `testing`.
///
/// See [`check_program`] for an example.
pub struct ProgramSamples<P: Program> {
    again: Again<P>,
    samples: Vec<(String, Make<P>)>,
    golden: Option<GoldenFile>,
}

impl<P: Program> ProgramSamples<P> {
    /// No samples yet. `again` makes a program of a canonical form, to check that its canonical
    /// form is the same one.
    #[must_use]
    pub fn new(again: impl Fn(&P::Canonical) -> P + Send + Sync + 'static) -> Self {
        Self {
            again: Box::new(again),
            samples: Vec::new(),
            golden: None,
        }
    }

    /// Adds a sample. Samples of one name are spellings of one program and must share a key;
    /// samples of two names must not.
    ///
    /// `make` is called many times, on several threads. Let it build the program from the start,
    /// as a parser does, and not clone one: a clone can hide what depends on addresses or on the
    /// order of a hash table.
    ///
    /// The checks find a field that is left out only if two samples differ in that field alone.
    /// Give a sample for each variant, for each field changed, and for sequences that are empty,
    /// short and long.
    #[must_use]
    pub fn program(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        self.samples.push((name.into(), Box::new(make)));
        self
    }

    /// Compares the keys with those in a file, which is kept with the tests. By default, none.
    ///
    /// The check fails when a key changed and [`Program::SCHEMA`] did not go up: artifacts of the
    /// old code would be found, or lost, without anyone's decision. The file is written when the
    /// environment variable [`WRITE_KEYS_VARIABLE`](super::WRITE_KEYS_VARIABLE) is set: the first
    /// time, for new samples, and after a new schema. Even then a key that changed under one schema
    /// is an error, and the file is left as it is.
    #[must_use]
    pub fn golden(mut self, path: impl Into<PathBuf>) -> Self {
        self.golden = Some(GoldenFile::from_environment(path.into()));
        self
    }

    /// Like [`golden`](Self::golden), and writes the file, whatever the environment says.
    ///
    /// ```
    /// use pipeline_cache::OpaqueProgram;
    /// use pipeline_cache::testing::{ProgramFault, ProgramSamples, check_program};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("opaque.keys");
    /// let samples = || {
    ///     ProgramSamples::new(OpaqueProgram::clone)
    ///         .program("empty", || OpaqueProgram::new("text", ""))
    ///         .program("short", || OpaqueProgram::new("text", "a"))
    /// };
    /// let missing = check_program(&samples().golden(&path)).unwrap_err();
    /// assert_eq!(missing.fault, ProgramFault::GoldenFileIsOld);
    ///
    /// // In a tool that makes the file, and in each test from then on:
    /// check_program(&samples().write_golden(&path))?;
    /// check_program(&samples().golden(&path))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn write_golden(mut self, path: impl Into<PathBuf>) -> Self {
        self.golden = Some(GoldenFile::new(path.into(), true));
        self
    }
}

impl<P: Program> fmt::Debug for ProgramSamples<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.samples.iter().map(|(name, _)| name).collect();
        f.debug_struct("ProgramSamples")
            .field("domain", &P::DOMAIN)
            .field("samples", &names)
            .field("golden", &self.golden)
            .finish_non_exhaustive()
    }
}

/// Checks that a representation keeps the contract of [`Program`] and [`ToWire`](crate::ToWire). Needs
/// the feature `testing`.
///
/// - The wire of a sample is the same each time the sample is made, on any thread.
/// - The key is BLAKE3 of the whole wire, header included, so that a change of any byte changes it.
/// - The canonical form of a canonical form is that form.
/// - Samples of one name share a key, samples of two names do not.
/// - No wire is the beginning of another: each sequence has its count, each choice its tag.
/// - The keys are those of the [golden file](ProgramSamples::golden), if there is one.
///
/// Takes 32 canonical forms of each sample.
///
/// # Errors
///
/// The first fault that was found.
///
/// ```
/// use pipeline_cache::testing::{ProgramSamples, check_program};
/// use pipeline_cache::{Program, ToWire, Unkeyable, WireWriter};
///
/// /// A set of flags, spelled in any order and as often as one likes.
/// #[derive(Clone)]
/// struct Flags(Vec<String>);
///
/// impl Program for Flags {
///     const DOMAIN: &'static str = "example.com/flags";
///     const SCHEMA: u32 = 1;
///     type Canonical = Self;
///
///     fn canonicalize(&self) -> Result<Self, Unkeyable> {
///         let mut flags = self.0.clone();
///         flags.sort();
///         flags.dedup();
///         Ok(Self(flags))
///     }
/// }
///
/// impl ToWire for Flags {
///     type Program = Self;
///
///     fn write_body(&self, wire: &mut WireWriter) {
///         wire.seq(&self.0, |wire, flag| wire.str(flag));
///     }
/// }
///
/// let flags = |line: &'static str| move || Flags(line.split_whitespace().map(Into::into).collect());
/// let samples = ProgramSamples::new(Flags::clone)
///     .program("none", flags(""))
///     .program("a and b", flags("a b"))
///     .program("a and b", flags("b a b"))
///     .program("ab", flags("ab"));
/// // In a test: `.golden(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flags.keys"))`.
/// check_program(&samples)?;
/// # Ok::<(), pipeline_cache::testing::ProgramError>(())
/// ```
pub fn check_program<P: Program>(samples: &ProgramSamples<P>) -> Result<(), ProgramError> {
    let check = Check { samples };
    let wires = check.wires()?;
    check.tells_apart(&wires)?;
    check.frames(&wires)?;
    check.keeps_golden_keys(&wires)
}

/// A representation under examination.
struct Check<'a, P: Program> {
    samples: &'a ProgramSamples<P>,
}

/// A sample and its wire.
struct Sample<'a> {
    name: &'a str,
    /// The name, and which of its spellings this is if it is not the first.
    label: String,
    wire: Vec<u8>,
}

/// A fault of one sample, before it is known which.
type Found = (ProgramFault, String);

impl<P: Program> Check<'_, P> {
    fn error(
        sample: impl Into<String>,
        fault: ProgramFault,
        detail: impl Into<String>,
    ) -> ProgramError {
        ProgramError {
            domain: P::DOMAIN,
            sample: sample.into(),
            fault,
            detail: detail.into(),
        }
    }

    /// The wire of each sample, which it has however often and wherever the sample is made.
    fn wires(&self) -> Result<Vec<Sample<'_>>, ProgramError> {
        if self.samples.samples.is_empty() {
            return Err(Self::error("", ProgramFault::NoSamples, "nothing to check"));
        }
        let mut spellings: HashMap<&str, u32> = HashMap::new();
        let samples = self.samples.samples.iter();
        samples
            .map(|(name, make)| {
                let spelling = spellings.entry(name).or_default();
                *spelling += 1;
                let label = match *spelling {
                    1 => name.clone(),
                    n => format!("{name} (spelling {n})"),
                };
                match self.examine(make) {
                    Ok(wire) => Ok(Sample { name, label, wire }),
                    Err((fault, detail)) => Err(Self::error(label, fault, detail)),
                }
            })
            .collect()
    }

    /// First whether the wire is always the same: with one that is not, nothing else can be said.
    fn examine(&self, make: &Make<P>) -> Result<Vec<u8>, Found> {
        let wires = || {
            (0..ROUNDS)
                .map(|_| Self::wire(make))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut wires = on_threads(THREADS, wires)?.into_iter().flatten();
        let wire = wires.next().unwrap_or_default();
        if let Some(at) = wires.find_map(|other| difference(&wire, &other)) {
            return Err((ProgramFault::NotDeterministic, at));
        }
        on_threads(1, || self.is_canonical(make, &wire))?;
        Ok(wire)
    }

    /// Makes the sample once, and checks its key against its wire.
    fn wire(make: &Make<P>) -> Result<Vec<u8>, Found> {
        let canonical = canonical(&make())?;
        let wire = wire_of::<P>(&canonical);
        if let Some(at) = difference(&wire, &wire_of::<P>(&canonical)) {
            return Err((ProgramFault::NotDeterministic, at));
        }
        let hash = PipelineFingerprint::from_bytes(*blake3::hash(&wire).as_bytes());
        let whole = [
            ("to_wire", canonical.to_wire() == wire),
            ("fingerprint", canonical.fingerprint() == hash),
        ];
        match whole.into_iter().find(|(_, holds)| !holds) {
            Some((method, _)) => {
                let detail =
                    format!("`{method}` is not of the header and what `write_body` writes");
                Err((ProgramFault::KeyIsNotTheHashOfTheWire, detail))
            }
            None => Ok(wire),
        }
    }

    fn is_canonical(&self, make: &Make<P>, wire: &[u8]) -> Result<(), Found> {
        let again = (self.samples.again)(&canonical(&make())?).canonicalize();
        let again = again.map_err(|error| (ProgramFault::NotIdempotent, error.to_string()))?;
        match difference(wire, &wire_of::<P>(&again)) {
            Some(at) => Err((ProgramFault::NotIdempotent, at)),
            None => Ok(()),
        }
    }

    fn tells_apart(&self, samples: &[Sample<'_>]) -> Result<(), ProgramError> {
        let mut by_name: HashMap<&str, &Sample<'_>> = HashMap::new();
        let mut by_wire: HashMap<&[u8], &Sample<'_>> = HashMap::new();
        for sample in samples {
            let first = *by_name.entry(sample.name).or_insert(sample);
            if let Some(at) = difference(&first.wire, &sample.wire) {
                let detail = format!("against \"{}\", {at}", first.label);
                return Err(Self::error(
                    &sample.label,
                    ProgramFault::SpellingsDiffer,
                    detail,
                ));
            }
            let same = *by_wire.entry(&sample.wire).or_insert(sample);
            if same.name != sample.name {
                let detail = format!("its wire is that of \"{}\"", same.label);
                return Err(Self::error(
                    &sample.label,
                    ProgramFault::SamplesCollide,
                    detail,
                ));
            }
        }
        Ok(())
    }

    /// In sorted order, a wire that begins others stands right before one of them.
    fn frames(&self, samples: &[Sample<'_>]) -> Result<(), ProgramError> {
        let mut sorted: Vec<_> = samples.iter().collect();
        sorted.sort_by_key(|sample| &sample.wire);
        let faulty = sorted.windows(2).find_map(|pair| {
            let [short, long] = pair else { return None };
            let begins = long.wire.len() > short.wire.len() && long.wire.starts_with(&short.wire);
            begins.then_some((short, long))
        });
        match faulty {
            Some((short, long)) => {
                let detail = format!("its wire begins with the whole wire of \"{}\"", short.label);
                Err(Self::error(&long.label, ProgramFault::NotFramed, detail))
            }
            None => Ok(()),
        }
    }

    fn keeps_golden_keys(&self, samples: &[Sample<'_>]) -> Result<(), ProgramError> {
        let Some(golden) = &self.samples.golden else {
            return Ok(());
        };
        let key = |sample: &Sample<'_>| blake3::hash(&sample.wire).to_hex().to_string();
        let keys = samples.iter().map(|sample| (sample.name, key(sample)));
        golden
            .check(&GoldenKeys::new(P::DOMAIN, P::SCHEMA, keys))
            .map_err(|(sample, fault, detail)| Self::error(sample, fault, detail))
    }
}

/// Runs the code of a program where its panic is an answer too.
fn on_threads<T: Send>(
    count: usize,
    work: impl Fn() -> Result<T, Found> + Sync,
) -> Result<Vec<T>, Found> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err((
                ProgramFault::Panicked,
                "its message is on stderr".to_owned(),
            )),
        });
        // All are joined, whatever the first of them says.
        let results: Vec<_> = joined.collect();
        results.into_iter().collect()
    })
}

fn canonical<P: Program>(program: &P) -> Result<P::Canonical, Found> {
    let unkeyable = |error: Unkeyable| (ProgramFault::Unkeyable, error.to_string());
    program.canonicalize().map_err(unkeyable)
}

/// Header and body, whatever the implementation makes of `to_wire`.
fn wire_of<P: Program>(canonical: &P::Canonical) -> Vec<u8> {
    let mut wire = WireWriter::collecting();
    write_program(canonical, &mut wire);
    wire.into_vec()
}

/// Where two wires part.
fn difference(one: &[u8], other: &[u8]) -> Option<String> {
    let bytes = one.iter().zip(other);
    let at = bytes.take_while(|(one, other)| one == other).count();
    let lengths = (one.len(), other.len());
    (lengths != (at, at)).then(|| {
        format!(
            "the wires of {} and {} bytes differ from byte {at} on",
            lengths.0, lengths.1
        )
    })
}
