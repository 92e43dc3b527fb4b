//! The file of a recorded run.
//!
//! All numbers are little-endian. Whatever its version, a file begins with the magic and the version,
//! and ends with the BLAKE3 of all bytes before. In version 1 the bytes between are the requests for
//! keys that were not kept (`u64`), the number of keys (`u64`), and the keys in the order of their first
//! use, 57 bytes each: the fingerprint, the kind (`u8`), the uses (`u64`), the payload bytes (`u64`) and
//! the nanoseconds (`u64`). A number that is not known is `u64::MAX`.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempPath;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::recorded_run::{RecordedKey, RecordedKind, RecordedRun, nanos};
use crate::key::PipelineFingerprint;
use crate::sync::blocking;

const MAGIC: [u8; 8] = *b"\x89PC-RUN\n";
const VERSION: u32 = 1;
/// Magic and version.
const START: usize = MAGIC.len() + 4;
const HEAD: usize = START + 8 + 8;
const KEY: usize = 32 + 1 + 8 + 8 + 8;
const CHECKSUM: usize = blake3::OUT_LEN;
const MAX_FILE: u64 = (HEAD + RecordedRun::MAX_KEYS * KEY + CHECKSUM) as u64;
const UNKNOWN: u64 = u64::MAX;

const ARTIFACT: u8 = 0;
const SOURCE_ALIAS: u8 = 1;

/// The most bytes that one poll copies.
const MAX_COPY: usize = 256 * 1024;

/// Why a [`RecordedRun`] could not be saved or loaded.
///
/// ```
/// use pipeline_cache::layered::{RecordedRun, RecordedRunError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = RecordedRun::load("/no such folder/build.run").await.unwrap_err();
/// assert!(matches!(error, RecordedRunError::Io { .. }));
/// # }
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordedRunError {
    /// The file could not be read or written.
    #[error("cannot {attempt} the recorded run {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file of the run.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The path is a folder, a device or a pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} is not a recorded run", path.display())]
    NotARun {
        /// The file.
        path: PathBuf,
    },
    /// Another release wrote it.
    #[error("the recorded run {} has version {version}; this release reads version {VERSION}", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version of its form.
        version: u32,
    },
    /// It is larger than any run: see [`RecordedRun::MAX_KEYS`].
    #[error("{} is larger than any recorded run of this release ({MAX_FILE} bytes)", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It was cut short or altered. Record the run again.
    #[error("the recorded run {} is damaged: record the run again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NotARun,
    OtherVersion(u32),
    Damaged,
}

impl RecordedRun {
    /// Writes the run to a file, and replaces the file that is there. Whoever reads the path meanwhile
    /// reads the old run or the new one: the run is written to a file beside it, made durable, and
    /// renamed. A process that is killed meanwhile leaves that file, `.<name>-<random>.tmp`.
    ///
    /// # Errors
    ///
    /// [`RecordedRunError::Io`]. The file that was there is as it was.
    ///
    /// # Cancel safety
    ///
    /// A dropped save has replaced the file or not.
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<(), RecordedRunError> {
        let path = path.as_ref();
        let failed = |attempt| {
            move |source| RecordedRunError::Io {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        let (run, to) = (self.clone(), path.to_owned());
        let staged = blocking::blocking(move || Ok((encode(&run), stage(&to)?)));
        let (bytes, mut staged) = staged.await.map_err(failed("write"))?;
        staged.write(&bytes).await.map_err(failed("write"))?;
        staged.rename(path).await.map_err(failed("replace"))
    }

    /// Reads a run from a file, which nobody has to be trusted for: the worst that a file can do is to
    /// name keys that nobody needs.
    ///
    /// # Errors
    ///
    /// [`RecordedRunError`]. At most 60 MB are read and held.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn load(path: impl AsRef<Path>) -> Result<Self, RecordedRunError> {
        let path = path.as_ref();
        let owned = || path.to_owned();
        let failed = |source| RecordedRunError::Io {
            attempt: "read",
            path: path.to_owned(),
            source,
        };
        // A pipe would be waited for, until somebody writes to it.
        let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
        if !metadata.is_file() {
            return Err(RecordedRunError::NotAFile { path: owned() });
        }
        let mut bytes = Vec::new();
        let mut file = File::open(path).await.map_err(failed)?;
        file.set_max_buf_size(MAX_COPY);
        let mut file = file.take(MAX_FILE + 1);
        file.read_to_end(&mut bytes).await.map_err(failed)?;
        blocking::discard(file);
        if bytes.len() as u64 > MAX_FILE {
            return Err(RecordedRunError::TooLarge { path: owned() });
        }
        let run = blocking::blocking(move || decode(&bytes)).await;
        run.map_err(|fault| match fault {
            Fault::NotARun => RecordedRunError::NotARun { path: owned() },
            Fault::OtherVersion(version) => RecordedRunError::OtherVersion {
                path: owned(),
                version,
            },
            Fault::Damaged => RecordedRunError::Damaged { path: owned() },
        })
    }
}

/// A file that is to become that of a run. Its drop removes it, on the blocking pool.
struct Staged(Option<(File, TempPath)>);

/// Makes a file beside that of a run: a rename needs the same file system. Waits for the disk.
fn stage(path: &Path) -> io::Result<Staged> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
    let file = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .suffix(".tmp")
        .make_in(folder, create)?;
    let (file, path) = file.into_parts();
    let mut file = File::from_std(file);
    file.set_max_buf_size(MAX_COPY);
    Ok(Staged(Some((file, path))))
}

impl Staged {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((file, _)) = &mut self.0 else {
            return Ok(());
        };
        file.write_all(bytes).await?;
        // A `tokio::fs::File` tells of a failed write at its next call.
        file.flush().await?;
        file.sync_all().await
    }

    async fn rename(mut self, to: &Path) -> io::Result<()> {
        let Some((_, path)) = &mut self.0 else {
            return Ok(());
        };
        tokio::fs::rename(&*path, to).await?;
        path.disable_cleanup(true);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        blocking::discard(self.0.take());
    }
}

fn encode(run: &RecordedRun) -> Vec<u8> {
    let keys = run.keys();
    let mut bytes = Vec::with_capacity(HEAD + keys.len() * KEY + CHECKSUM);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(run.not_kept().to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for key in keys {
        bytes.extend(key.key.as_bytes());
        bytes.push(match key.kind {
            RecordedKind::Artifact => ARTIFACT,
            RecordedKind::SourceAlias => SOURCE_ALIAS,
        });
        let time = key.compile_time.map_or(UNKNOWN, nanos);
        for number in [key.uses, key.bytes.unwrap_or(UNKNOWN), time] {
            bytes.extend(number.to_le_bytes());
        }
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

/// The version is looked at before the checksum: a later one may have another.
fn decode(bytes: &[u8]) -> Result<RecordedRun, Fault> {
    let (start, rest) = bytes.split_first_chunk::<START>().ok_or(Fault::NotARun)?;
    if start[..MAGIC.len()] != MAGIC {
        return Err(Fault::NotARun);
    }
    let mut version = Reader(&start[MAGIC.len()..]);
    match version.u32().ok_or(Fault::NotARun)? {
        VERSION => {}
        other => return Err(Fault::OtherVersion(other)),
    }
    let (rest, checksum) = rest.split_last_chunk::<CHECKSUM>().ok_or(Fault::Damaged)?;
    if blake3::hash(&bytes[..bytes.len() - CHECKSUM]) != *checksum {
        return Err(Fault::Damaged);
    }
    // Whoever alters a file can make its checksum too.
    read_keys(Reader(rest)).ok_or(Fault::Damaged)
}

fn read_keys(mut reader: Reader<'_>) -> Option<RecordedRun> {
    let (not_kept, count) = (reader.u64()?, reader.u64()?);
    // Before room is made for them: the number is that of whoever wrote the file.
    if usize::try_from(count).ok()?.checked_mul(KEY)? != reader.0.len() {
        return None;
    }
    let keys: Option<Vec<_>> = (0..count).map(|_| read_key(&mut reader)).collect();
    Some(RecordedRun::new(keys?, not_kept))
}

fn read_key(reader: &mut Reader<'_>) -> Option<RecordedKey> {
    let known = |number| Some(number).filter(|number| *number != UNKNOWN);
    Some(RecordedKey {
        key: PipelineFingerprint::from_bytes(reader.bytes()?),
        kind: match reader.bytes::<1>()? {
            [ARTIFACT] => RecordedKind::Artifact,
            [SOURCE_ALIAS] => RecordedKind::SourceAlias,
            _ => return None,
        },
        uses: reader.u64()?,
        bytes: known(reader.u64()?),
        compile_time: known(reader.u64()?).map(Duration::from_nanos),
    })
}

/// Reads numbers from the start of what is left.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}
