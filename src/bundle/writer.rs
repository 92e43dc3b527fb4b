//! Writes a bundle: a staged file beside it, which is renamed when it is complete.
//!
//! What an interrupted writer left is kept as far as it equals what the next one is told to write: each
//! frame is compared with the bytes that are there, and where they differ the file is cut off and written
//! anew. So a continued bundle has the same bytes as one that was never interrupted, whatever was left.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, SeekFrom};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;

use super::error::BundleError;
use super::file::{open_partial, partial_of, read_at};
use super::index::{self, Index, MAX_ENTRIES, Section};
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::disk::files::sync_folder;
use crate::key::PipelineFingerprint;
use crate::sync::blocking;

/// The most bytes that one poll copies and one call writes.
const MAX_WRITE: usize = 256 * 1024;

/// The bytes that are compared in one read.
const COMPARED: usize = 1024 * 1024;

/// Writes a bundle, frame by frame.
///
/// The frames go to `<path>.partial`, and [`finish`](Self::finish) makes them durable and renames the file
/// to `path`, which replaces a bundle that is there. So `path` always holds a whole bundle or none. A
/// writer that is dropped before, or whose process dies, leaves the staged file. The next writer of the
/// same path continues it: it compares each frame with what is there, and writes only what is missing. A
/// continued bundle has the same bytes as one that was written at once.
///
/// Uses 40 bytes of memory for each entry, twice as much while it finishes, and 256 KiB. Holds a lock on the
/// staged file: a second writer of the same path fails with [`BundleError::Busy`], also for the moment that
/// the file of a dropped writer takes to close.
///
/// To bundle what a disk cache holds, see [`pack`](super::pack).
///
/// ```
/// use pipeline_cache::{Artifact, BundleCache, BundleWriter, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("shaders.bundle");
/// let mut writer = BundleWriter::create(&path).await?;
/// for number in 1..=3 {
///     let key = PipelineFingerprint::from_bytes([number; 32]); // ascending
///     let frame = Artifact::new(vec![number]).to_frame(&key, None)?;
///     writer.add(&key, frame).await?;
/// }
/// assert_eq!(writer.finish().await?.entries, 3);
///
/// let bundle = BundleCache::open(&path).await?;
/// let key = PipelineFingerprint::from_bytes([2; 32]);
/// assert_eq!(bundle.get(&key).await?, Some(Artifact::new(vec![2])));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BundleWriter {
    path: PathBuf,
    partial: Partial,
    index: Index,
}

/// What [`BundleWriter::finish`] has written.
///
/// See [`BundleWriter`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BundleSummary {
    /// How many artifacts the bundle has.
    pub entries: u64,
    /// How many source aliases it has.
    pub aliases: u64,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// How many of these bytes an interrupted writer had written already.
    pub kept_bytes: u64,
}

impl BundleWriter {
    /// Begins a bundle, or continues one that was interrupted.
    ///
    /// # Errors
    ///
    /// [`BundleError::Busy`], [`BundleError::NotAFile`] where something else has the name of the staged
    /// file, [`BundleError::Io`] and [`BundleError::NoRuntime`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have created the staged file.
    pub async fn create(path: impl Into<PathBuf>) -> Result<Self, BundleError> {
        if Handle::try_current().is_err() {
            return Err(BundleError::NoRuntime);
        }
        let path = path.into();
        let (path, partial) = blocking::blocking(move || {
            // A change of the working directory must not move the bundle.
            let path = std::path::absolute(&path).map_err(BundleError::io("resolve", &path))?;
            let partial = Partial::open(partial_of(&path))?;
            Ok::<_, BundleError>((path, partial))
        })
        .await?;
        let mut writer = Self {
            path,
            partial,
            index: Index::empty(),
        };
        let header = Bytes::from_owner(index::header());
        writer.partial.append(header).await?;
        Ok(writer)
    }

    /// Adds an artifact: the frame that [`Artifact::to_frame`](crate::Artifact::to_frame) makes, with its
    /// tag and its signature as they are. Artifacts are added by ascending key, each once.
    ///
    /// The key and the lengths in the header are checked. Whoever reads the entry verifies the rest.
    ///
    /// # Errors
    ///
    /// [`BundleError::OutOfOrder`], [`BundleError::NotItsFrame`] and [`BundleError::TooManyEntries`],
    /// after which other frames can be added; [`BundleError::Io`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call has added nothing, and the writer can be used.
    pub async fn add(
        &mut self,
        key: &PipelineFingerprint,
        frame: Bytes,
    ) -> Result<(), BundleError> {
        self.add_to(Section::Artifacts, key, frame).await
    }

    /// Adds a [source alias](crate::SourceAliases), as a store of aliases keeps it. Aliases are added after
    /// all artifacts, by ascending key, each once.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// # Cancel safety
    ///
    /// As [`add`](Self::add).
    ///
    /// ```
    /// use pipeline_cache::bundle::BundleSummary;
    /// use pipeline_cache::{BundleCache, BundleWriter};
    /// use std::error::Error;
    /// use std::path::Path;
    ///
    /// /// Copies a bundle without its large artifacts, for a device with little storage.
    /// async fn copy_small(from: &BundleCache, to: &Path) -> Result<BundleSummary, Box<dyn Error>> {
    ///     let mut writer = BundleWriter::create(to).await?;
    ///     for entry in from.entries().filter(|entry| entry.bytes < 64 << 10) {
    ///         let frame = from.frame(&entry.key).await?.ok_or("it was listed")?;
    ///         writer.add(&entry.key, frame).await?;
    ///     }
    ///     if let Some(aliases) = from.aliases() {
    ///         for entry in aliases.entries() {
    ///             let frame = aliases.frame(&entry.key).await?.ok_or("it was listed")?;
    ///             writer.add_alias(&entry.key, frame).await?;
    ///         }
    ///     }
    ///     Ok(writer.finish().await?)
    /// }
    /// # use pipeline_cache::{Artifact, PipelineFingerprint};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let [whole, small] = ["whole", "small"].map(|name| folder.path().join(name));
    /// # let [first, second] = [1, 2].map(|n| PipelineFingerprint::from_bytes([n; 32]));
    /// # let mut writer = BundleWriter::create(&whole).await?;
    /// # writer.add(&first, Artifact::new("code").to_frame(&first, None)?).await?;
    /// # writer.add(&second, Artifact::new(vec![0; 64 << 10]).to_frame(&second, None)?).await?;
    /// # writer.add_alias(&first, Artifact::new(vec![0; 32]).to_frame(&first, None)?).await?;
    /// # writer.finish().await?;
    /// # let copied = copy_small(&BundleCache::open(&whole).await?, &small).await?;
    /// # assert_eq!((copied.entries, copied.aliases), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add_alias(
        &mut self,
        key: &PipelineFingerprint,
        frame: Bytes,
    ) -> Result<(), BundleError> {
        self.add_to(Section::Aliases, key, frame).await
    }

    async fn add_to(
        &mut self,
        section: Section,
        key: &PipelineFingerprint,
        frame: Bytes,
    ) -> Result<(), BundleError> {
        let key = *key;
        if !self.index.takes(section, &key) {
            return Err(BundleError::OutOfOrder { key });
        }
        let entries = self.index.len();
        if entries >= MAX_ENTRIES {
            return Err(BundleError::TooManyEntries {
                entries: entries + 1,
            });
        }
        let len = frame.len() as u64;
        let header = frame.first_chunk::<HEADER_LEN>();
        let format = FrameFormat::new(None, u64::MAX);
        let is_its_frame = header.and_then(|header| format.stored_tag(&key, header, len));
        is_its_frame.ok_or(BundleError::NotItsFrame { key })?;
        self.partial.append(frame).await?;
        self.index.push(section, key, len);
        Ok(())
    }

    /// Writes the index, makes the file durable, and renames it to its path.
    ///
    /// # Errors
    ///
    /// [`BundleError::Io`]. The staged file stays, for the next writer.
    ///
    /// # Cancel safety
    ///
    /// After a dropped call there is the whole bundle under its path, or what was there before.
    pub async fn finish(self) -> Result<BundleSummary, BundleError> {
        let Self {
            path,
            mut partial,
            index,
        } = self;
        let (end, index) = blocking::blocking(move || (Bytes::from(index.encode()), index)).await;
        partial.append(end).await?;
        partial.publish(&path).await?;
        let (entries, aliases) = (
            index.held(Section::Artifacts).0,
            index.held(Section::Aliases).0,
        );
        Ok(BundleSummary {
            entries,
            aliases,
            bytes: partial.position,
            kept_bytes: partial.kept_bytes,
        })
    }
}

/// The staged file.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    /// Writes behind `position`. `None` once it is being closed.
    out: Option<tokio::fs::File>,
    /// What an earlier writer left, as long as it equals what was appended.
    kept: Option<Arc<File>>,
    /// How many bytes were appended.
    position: u64,
    kept_bytes: u64,
    /// Whether there may be other bytes behind `position`, or the file may be written elsewhere.
    is_torn: bool,
}

impl Partial {
    /// Waits for the file system.
    fn open(path: PathBuf) -> Result<Self, BundleError> {
        let (file, len) = open_partial(&path)?;
        let kept = (len > 0).then(|| file.try_clone().map(Arc::new));
        let kept = kept.transpose().map_err(BundleError::io("open", &path))?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(MAX_WRITE);
        Ok(Self {
            path,
            out: Some(file),
            kept,
            position: 0,
            kept_bytes: 0,
            is_torn: false,
        })
    }

    /// Appends bytes, unless they are there. A dropped call has appended nothing.
    async fn append(&mut self, bytes: Bytes) -> Result<(), BundleError> {
        let appended = self.try_append(bytes).await;
        appended.map_err(BundleError::io("write", &self.path))
    }

    async fn try_append(&mut self, bytes: Bytes) -> io::Result<()> {
        let len = bytes.len() as u64;
        if let Some(kept) = &self.kept {
            let (kept, wanted, position) = (Arc::clone(kept), bytes.clone(), self.position);
            if blocking::blocking(move || has_at(&kept, position, &wanted)).await {
                self.position += len;
                self.kept_bytes += len;
                return Ok(());
            }
            blocking::discard(self.kept.take());
            self.is_torn = true;
        }
        // Until the bytes are written.
        if mem::replace(&mut self.is_torn, true) {
            self.cut().await?;
        }
        let out = out(&mut self.out)?;
        out.write_all(&bytes).await?;
        // Otherwise a failed write is told by a later call, when this frame counts as written.
        out.flush().await?;
        self.position += len;
        self.is_torn = false;
        Ok(())
    }

    /// Cuts off what is behind `position`, and goes on there.
    async fn cut(&mut self) -> io::Result<()> {
        let out = out(&mut self.out)?;
        out.flush().await?;
        out.set_len(self.position).await?;
        out.seek(SeekFrom::Start(self.position)).await?;
        Ok(())
    }

    /// Makes the file durable and renames it. It is locked until it has its name.
    async fn publish(&mut self, path: &Path) -> Result<(), BundleError> {
        let written = async {
            // An earlier writer may have left more.
            self.cut().await?;
            out(&mut self.out)?.sync_all().await
        };
        written
            .await
            .map_err(BundleError::io("write", &self.path))?;
        let renamed = tokio::fs::rename(&self.path, path).await;
        renamed.map_err(BundleError::io("rename the staged file to", path))?;
        let folder = path.parent().map(Path::to_owned);
        blocking::blocking(move || folder.map_or(Ok(()), |folder| sync_folder(&folder)))
            .await
            .map_err(BundleError::io("sync the folder of", path))
    }
}

impl Drop for Partial {
    /// A close may wait.
    fn drop(&mut self) {
        blocking::discard((self.out.take(), self.kept.take()));
    }
}

fn out(out: &mut Option<tokio::fs::File>) -> io::Result<&mut tokio::fs::File> {
    out.as_mut()
        .ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Whether the file has these bytes at this offset. What cannot be read is not there.
fn has_at(file: &File, offset: u64, bytes: &[u8]) -> bool {
    let mut offset = offset;
    bytes.chunks(COMPARED).all(|chunk| {
        let found = read_at(file, offset, chunk.len());
        offset += chunk.len() as u64;
        found.is_ok_and(|found| found == chunk)
    })
}
