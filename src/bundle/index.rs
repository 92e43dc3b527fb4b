//! The form of a bundle: a header, frames, an index of the frames, and a trailer. Integers are
//! little-endian. Let `n` be the number of entries, and `i` where the index begins.
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `89 70 63 62 0d 0a 1a 0a` (`\x89pcb\r\n\x1a\n`) |
//! | 8 | 8 | format version, 1 |
//! | 16 | to `i` | the frames of the artifacts by ascending key, then those of the aliases by ascending key, each as [`frame`](crate::artifact::frame) says, without a gap |
//! | `i` | 40 × `n` | the index: for each frame, in the same order, its key (32 bytes) and its offset in the file (8) |
//! | `i` + 40 × `n` | 8 | how many artifacts there are |
//! | + 8 | 8 | how many aliases there are |
//! | + 16 | 8 | the length of the file |
//! | + 24 | 32 | BLAKE3 of the header, the index, and the 24 bytes before this row |
//!
//! The trailer, which is the last three numbers and the digest, ends the file. A reader finds it there,
//! and the index before it, and need not read a frame. A frame ends where the next one begins, and the
//! last one where the index does: so no two frames can overlap.
//!
//! The same entries make the same bytes: there is no time, no path and no name in them.
//!
//! The digest guards against accidents, not against attackers. Whoever can write a bundle can leave an
//! entry out. What is served is what its frame proves: each frame holds its own key and its own tag, and
//! is verified when it is read.

use std::ops::Range;

use crate::artifact::frame;
use crate::key::PipelineFingerprint;

const MAGIC: [u8; 8] = *b"\x89pcb\r\n\x1a\n";
const VERSION: u64 = 1;
pub(super) const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 40;
pub(super) const TRAILER_LEN: usize = 56;
/// The bytes of the trailer that its digest covers.
const COUNTS_LEN: usize = 24;

/// The most entries of a bundle, artifacts and aliases together: 4,194,304. An open bundle keeps 40 bytes
/// of memory for each.
pub const MAX_ENTRIES: u64 = 1 << 22;

/// What is wrong with a file that should be a bundle.
///
/// See [`BundleError`](super::BundleError) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleDamage {
    /// It does not begin as a bundle does.
    #[error("it is no bundle")]
    NotABundle,
    /// It is of a version that this release does not know.
    #[error("it is of version {0}, which this release does not know")]
    UnknownVersion(u64),
    /// It does not have the length it was finished with.
    #[error("it does not have the length it was finished with: copy it again")]
    Torn,
    /// Its index does not match its digest, or is not in order.
    #[error("its index is damaged: copy it again")]
    BadIndex,
    /// It says that it has more than [`MAX_ENTRIES`](super::MAX_ENTRIES) entries.
    #[error("it says that it has {0} entries, and this release reads {MAX_ENTRIES}")]
    TooManyEntries(u64),
}

/// Which entries: of the cache, or of the source aliases beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Artifacts,
    Aliases,
}

/// A frame in the file.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: PipelineFingerprint,
    offset: u64,
}

/// Where the frames are.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// How many of the entries are artifacts. The others are aliases.
    artifacts: usize,
    /// Where the last frame ends.
    end: u64,
}

/// What every bundle begins with.
pub(super) fn header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Whether this reader knows the form of what begins so.
pub(super) fn check_header(header: &[u8]) -> Result<(), BundleDamage> {
    let Some((magic, version)) = header.split_first_chunk::<8>() else {
        return Err(BundleDamage::NotABundle);
    };
    if *magic != MAGIC {
        return Err(BundleDamage::NotABundle);
    }
    match version.try_into().map(u64::from_le_bytes) {
        Ok(VERSION) => Ok(()),
        Ok(version) => Err(BundleDamage::UnknownVersion(version)),
        Err(_) => Err(BundleDamage::Torn),
    }
}

/// The end of a file, as it describes itself.
#[derive(Debug)]
pub(super) struct Trailer {
    artifacts: usize,
    aliases: usize,
    /// The bytes of the index in the file.
    pub(super) index: Range<u64>,
    counts: [u8; COUNTS_LEN],
    digest: [u8; 32],
}

impl Trailer {
    /// Reads the last bytes of a file of this length. Nothing is allocated for what they promise.
    pub(super) fn parse(trailer: &[u8; TRAILER_LEN], file_len: u64) -> Result<Self, BundleDamage> {
        let (artifacts, rest) = take::<8>(trailer);
        let (aliases, rest) = take::<8>(rest);
        let (len, digest) = take::<8>(rest);
        let (digest, _) = take::<32>(digest);
        let [artifacts, aliases, len] = [artifacts, aliases, len].map(|n| u64::from_le_bytes(*n));
        if len != file_len {
            return Err(BundleDamage::Torn);
        }
        let entries = artifacts.saturating_add(aliases);
        if entries > MAX_ENTRIES {
            return Err(BundleDamage::TooManyEntries(entries));
        }
        let index_end = file_len.checked_sub(TRAILER_LEN as u64);
        let index_len = entries * ENTRY_LEN as u64;
        let index_start = index_end.and_then(|end| end.checked_sub(index_len));
        let index = index_start.zip(index_end).map(|(start, end)| start..end);
        let index = index.filter(|index| index.start >= HEADER_LEN as u64);
        let (counts, _) = take::<COUNTS_LEN>(trailer);
        Ok(Self {
            // At most MAX_ENTRIES.
            artifacts: artifacts as usize,
            aliases: aliases as usize,
            index: index.ok_or(BundleDamage::BadIndex)?,
            counts: *counts,
            digest: *digest,
        })
    }
}

impl Index {
    /// Reads the index. Hashes it: 40 bytes for each entry.
    pub(super) fn parse(index: &[u8], trailer: &Trailer) -> Result<Self, BundleDamage> {
        if digest(index, &trailer.counts) != trailer.digest {
            return Err(BundleDamage::BadIndex);
        }
        let entries = index.chunks_exact(ENTRY_LEN).map(|entry| {
            let (key, offset) = take::<32>(entry);
            let (offset, _) = take::<8>(offset);
            Entry {
                key: PipelineFingerprint::from_bytes(*key),
                offset: u64::from_le_bytes(*offset),
            }
        });
        let parsed = Self {
            entries: entries.collect(),
            artifacts: trailer.artifacts,
            end: trailer.index.start,
        };
        let is_whole = parsed.entries.len() == trailer.artifacts + trailer.aliases;
        match is_whole && parsed.is_in_order() {
            true => Ok(parsed),
            false => Err(BundleDamage::BadIndex),
        }
    }

    /// Whether keys ascend, and frames follow each other without a gap and without an overlap.
    fn is_in_order(&self) -> bool {
        let sections = [Section::Artifacts, Section::Aliases];
        let ascend = sections.iter().all(|section| {
            let entries = &self.entries[self.numbers(*section)];
            entries.is_sorted_by(|a, b| a.key < b.key)
        });
        let offsets = self.entries.iter().map(|entry| entry.offset);
        let mut offsets = offsets.chain([self.end]);
        let begins = offsets.next() == Some(HEADER_LEN as u64);
        let mut last = HEADER_LEN as u64;
        let mut follow = offsets.all(|offset| {
            let len = offset.checked_sub(std::mem::replace(&mut last, offset));
            len.is_some_and(|len| len >= frame::HEADER_LEN as u64)
        });
        follow &= begins;
        ascend && follow
    }

    /// The index and the trailer, as they end the file. Hashes them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let index_len = self.entries.len() * ENTRY_LEN;
        let mut bytes = Vec::with_capacity(index_len + TRAILER_LEN);
        for Entry { key, offset } in &self.entries {
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        let aliases = self.entries.len() - self.artifacts;
        let file_len = self.end + (index_len + TRAILER_LEN) as u64;
        let mut counts = [0; COUNTS_LEN];
        counts[..8].copy_from_slice(&(self.artifacts as u64).to_le_bytes());
        counts[8..16].copy_from_slice(&(aliases as u64).to_le_bytes());
        counts[16..].copy_from_slice(&file_len.to_le_bytes());
        let digest = digest(&bytes, &counts);
        bytes.extend_from_slice(&counts);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// An index without entries, to push to.
    pub(super) fn empty() -> Self {
        Self {
            end: HEADER_LEN as u64,
            ..Self::default()
        }
    }

    /// Whether the frame of this key may be the next. Artifacts come before aliases.
    pub(super) fn takes(&self, section: Section, key: &PipelineFingerprint) -> bool {
        let entries = &self.entries[self.numbers(section)];
        let ascends = entries.last().is_none_or(|last| last.key < *key);
        let has_aliases = self.artifacts < self.entries.len();
        ascends && (section == Section::Aliases || !has_aliases)
    }

    /// Adds the next frame, of so many bytes.
    pub(super) fn push(&mut self, section: Section, key: PipelineFingerprint, len: u64) {
        let offset = self.end;
        self.entries.push(Entry { key, offset });
        self.artifacts += usize::from(section == Section::Artifacts);
        self.end += len;
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many entries there are, and the bytes of their frames.
    pub(super) fn held(&self, section: Section) -> (u64, u64) {
        let numbers = self.numbers(section);
        let start_of = |number: usize| self.entries.get(number).map_or(self.end, |e| e.offset);
        let bytes = start_of(numbers.end) - start_of(numbers.start);
        (numbers.len() as u64, bytes)
    }

    /// The place of a frame in the file.
    pub(super) fn find(&self, section: Section, key: &PipelineFingerprint) -> Option<Range<u64>> {
        let numbers = self.numbers(section);
        let found = self.entries[numbers.clone()].binary_search_by(|entry| entry.key.cmp(key));
        Some(self.place(numbers.start + found.ok()?))
    }

    /// The keys by ascending order, and the places of their frames.
    pub(super) fn iter(
        &self,
        section: Section,
    ) -> impl Iterator<Item = (PipelineFingerprint, Range<u64>)> {
        let numbers = self.numbers(section);
        numbers.map(|number| (self.entries[number].key, self.place(number)))
    }

    fn place(&self, number: usize) -> Range<u64> {
        let end = self.entries.get(number + 1).map_or(self.end, |e| e.offset);
        self.entries[number].offset..end
    }

    fn numbers(&self, section: Section) -> Range<usize> {
        match section {
            Section::Artifacts => 0..self.artifacts,
            Section::Aliases => self.artifacts..self.entries.len(),
        }
    }
}

fn digest(index: &[u8], counts: &[u8; COUNTS_LEN]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header()).update(index).update(counts);
    hasher.finalize()
}

/// The next `N` bytes of a part whose length was checked.
fn take<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes
        .split_first_chunk()
        .expect("the fields of a part add up to its length")
}
