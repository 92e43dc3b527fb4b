//! Named parts in one payload: their stored form, and how they are read.
//!
//! A flag in the header of the [frame](super::frame) says that a payload has parts. Such a payload is
//! an index, then the parts. Integers are little-endian.
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 2 | length of the index, i |
//! | 2 | i | the index: one entry for each part, in ascending order of the names |
//! | 2 + i | | the parts in the order of the index, with nothing between them, to the end |
//!
//! An entry of the index:
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 1 | length of the name, n: 1 to 64 |
//! | 1 | n | the name |
//! | 1 + n | 8 | length of the part |
//!
//! The index has lengths and no offsets, so that parts cannot overlap. Parts of given names and contents
//! have one stored form. The digest of the payload covers the index.

use bytes::Bytes;
use std::fmt;
use std::ops::Range;

use super::Artifact;

/// The most parts of one artifact.
const MAX_PARTS: usize = 64;
/// The longest name of a part, in bytes.
const MAX_NAME: usize = 64;

/// Why parts do not make an artifact.
///
/// ```
/// use pipeline_cache::{Artifact, PartsError};
///
/// let twice = Artifact::builder().part("code", "a").part("code", "b").build();
/// assert_eq!(twice.unwrap_err(), PartsError::DuplicateName("code".to_owned()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// The name of a part, of which no more than the start is kept.
    #[error(
        "bad part name {0:?}: use 1 to 64 ASCII letters, digits, `-`, `_` and `.`, with a letter or a \
         digit first"
    )]
    BadName(String),
    /// Two parts have this name.
    #[error("two parts have the name {0:?}")]
    DuplicateName(String),
    /// There are so many parts.
    #[error("{0} parts are too many: an artifact has at most 64")]
    TooMany(usize),
    /// There is no memory for all parts together.
    #[error("the parts are too large for the memory")]
    TooLarge,
}

/// Whether a part may have this name. Such a name is safe to print, and as the name of a file.
fn is_name(name: &[u8]) -> bool {
    let first_is_alphanumeric = name.first().is_some_and(u8::is_ascii_alphanumeric);
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    first_is_alphanumeric && name.len() <= MAX_NAME && name.iter().all(is_allowed)
}

/// The payload of these parts.
pub(super) fn join(mut parts: Vec<(String, Bytes)>) -> Result<Bytes, PartsError> {
    if parts.len() > MAX_PARTS {
        return Err(PartsError::TooMany(parts.len()));
    }
    if let Some((name, _)) = parts.iter().find(|(name, _)| !is_name(name.as_bytes())) {
        return Err(PartsError::BadName(name.chars().take(MAX_NAME).collect()));
    }
    parts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for pair in parts.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(PartsError::DuplicateName(pair[0].0.clone()));
        }
    }

    let index_len: usize = parts.iter().map(|(name, _)| 1 + name.len() + 8).sum();
    let lens = parts.iter().map(|(_, part)| part.len());
    let mut payload = buffer(lens.chain([2 + index_len]))?;
    payload.extend_from_slice(&(index_len as u16).to_le_bytes());
    for (name, part) in &parts {
        payload.push(name.len() as u8);
        payload.extend_from_slice(name.as_bytes());
        payload.extend_from_slice(&(part.len() as u64).to_le_bytes());
    }
    for (_, part) in &parts {
        payload.extend_from_slice(part);
    }
    Ok(payload.into())
}

/// An empty buffer for so many bytes in sum.
fn buffer(mut lens: impl Iterator<Item = usize>) -> Result<Vec<u8>, PartsError> {
    let len = lens.try_fold(0_usize, usize::checked_add);
    let mut buffer = Vec::new();
    let reserved = buffer.try_reserve_exact(len.ok_or(PartsError::TooLarge)?);
    reserved.map_err(|_| PartsError::TooLarge)?;
    Ok(buffer)
}

/// Whether this payload is the stored form of parts.
pub(super) fn is_joined(payload: &[u8]) -> bool {
    let Some(mut entries) = Entries::of(payload) else {
        return false;
    };
    let mut previous = "";
    for count in 1.. {
        let Some((name, _)) = entries.next() else {
            break;
        };
        if count > MAX_PARTS || !is_name(name.as_bytes()) || name <= previous {
            return false;
        }
        previous = name;
    }
    // It stops at the end, or at an entry that is none.
    entries.index.is_empty() && entries.start == payload.len()
}

/// The names of parts, and where they are in their payload.
#[derive(Debug, Default)]
struct Entries<'a> {
    /// The rest of the index.
    index: &'a [u8],
    /// Where the next part starts.
    start: usize,
    payload_len: usize,
}

impl<'a> Entries<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        let (index_len, rest) = payload.split_first_chunk()?;
        let index = rest.get(..u16::from_le_bytes(*index_len).into())?;
        Some(Self {
            index,
            start: index_len.len() + index.len(),
            payload_len: payload.len(),
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&name_len, rest) = self.index.split_first()?;
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let (len, rest) = rest.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let end = self.start.checked_add(len)?;
        if end > self.payload_len {
            return None;
        }
        let range = self.start..end;
        (self.index, self.start) = (rest, end);
        Some((name, range))
    }
}

impl Artifact {
    /// Whether the artifact was [built of parts](Self::builder).
    #[must_use]
    pub fn has_parts(&self) -> bool {
        self.inner.has_parts
    }

    /// The part of this name, without a copy: a slice of the payload, which keeps all of it in memory.
    /// `None` where there is no such part, and for an artifact without parts.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<Bytes> {
        let (_, part) = self.parts().find(|(found, _)| *found == name)?;
        Some(part)
    }

    /// The parts and their names, in ascending order of the names, without a copy. Empty for an
    /// artifact without parts.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Bytes)> {
        let payload = self.payload();
        let entries = self.has_parts().then(|| Entries::of(payload));
        let entries = entries.flatten().unwrap_or_default();
        entries.map(|(name, range)| (name, payload.slice(range)))
    }
}

/// The names and lengths of parts, for `Debug`.
pub(super) struct Lengths<'a>(pub(super) &'a Artifact);

impl fmt::Debug for Lengths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.0.parts().map(|(name, part)| (name, part.len()));
        f.debug_map().entries(lengths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of an index: names and lengths.
    type Index<'a> = &'a [(&'a [u8], u64)];

    /// The payload with this index and this after it.
    fn payload(entries: Index<'_>, rest: &[u8]) -> Vec<u8> {
        let mut index = Vec::new();
        for (name, len) in entries {
            index.push(name.len() as u8);
            index.extend_from_slice(name);
            index.extend_from_slice(&len.to_le_bytes());
        }
        [&(index.len() as u16).to_le_bytes(), &index[..], rest].concat()
    }

    #[test]
    fn what_is_joined_is_recognized() {
        let parts = [("b", "second"), ("a", "first"), ("c", "")];
        let parts = parts.map(|(name, part)| (name.to_owned(), Bytes::from(part)));
        let joined = join(parts.to_vec()).unwrap();
        let entries: Index<'_> = &[(b"a", 5), (b"b", 6), (b"c", 0)];
        assert_eq!(joined, payload(entries, b"firstsecond"));
        assert!(is_joined(&joined));
        assert!(is_joined(&join(Vec::new()).unwrap()));
    }

    #[test]
    fn parts_that_no_memory_holds_are_an_error() {
        for lens in [[usize::MAX, 1], [isize::MAX as usize, 1]] {
            assert_eq!(buffer(lens.into_iter()), Err(PartsError::TooLarge));
        }
    }

    #[test]
    fn a_hostile_index_is_no_index() {
        let long = [b'a'; MAX_NAME + 1];
        let hostile: &[(&str, Index<'_>, &[u8])] = &[
            ("bytes of no part", &[(b"a", 1)], b"12"),
            ("bytes of no part at all", &[], b"1"),
            ("a part past the end", &[(b"a", 2)], b"1"),
            ("a part past all ends", &[(b"a", u64::MAX)], b"1"),
            ("lengths that wrap", &[(b"a", 2), (b"b", u64::MAX)], b"1"),
            ("two of one name", &[(b"a", 0), (b"a", 1)], b"1"),
            ("another order", &[(b"b", 0), (b"a", 1)], b"1"),
            ("no name", &[(b"", 1)], b"1"),
            ("a name that is a path", &[(b"../a", 1)], b"1"),
            ("a name that is no text", &[(b"a\xff", 1)], b"1"),
            ("a name with a line end", &[(b"a\n", 1)], b"1"),
            ("a long name", &[(&long, 1)], b"1"),
        ];
        for (what, entries, rest) in hostile {
            assert!(!is_joined(&payload(entries, rest)), "{what}");
        }
        let names: Vec<_> = (10..75).map(|n: u8| n.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_bytes(), 0)).collect();
        assert!(is_joined(&payload(&entries[..MAX_PARTS], b"")));
        assert!(!is_joined(&payload(&entries, b"")), "too many");
    }

    #[cfg(all(
        feature = "zstd",
        any(feature = "remote-cache", feature = "object-store", feature = "redis")
    ))]
    #[tokio::test]
    async fn parts_are_compressed_as_one_and_come_back() {
        use crate::artifact::compression::Compression;
        use crate::artifact::frame::FrameFormat;
        use crate::key::PipelineFingerprint;

        let key = PipelineFingerprint::from_bytes([1; 32]);
        let mut format = FrameFormat::new(None, 1 << 20);
        format.compression = Some(Compression::new(3, 100));
        let built = Artifact::builder()
            .part("code", vec![7; 1000])
            .part("reflection", vec![7; 1000]);
        let artifact = built.build().unwrap();
        let (head, payload) = format.encode(&key, &artifact).await.unwrap();
        assert!(payload.len() < 100, "{} bytes", payload.len());
        let frame = Bytes::from([head, payload].concat());
        let decoded = format.decode(&key, &frame).unwrap();
        assert_eq!(decoded, artifact);
        assert_eq!(decoded.part("reflection").unwrap(), vec![7; 1000]);
        assert_eq!(frame[10], 6, "the flags");
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_an_index_panics() {
        let good = payload(&[(b"code", 4), (b"warnings", 3)], b"1234567");
        assert!(is_joined(&good));
        for at in 0..good.len() {
            assert!(!is_joined(&good[..at]), "{at} bytes");
            for value in 0..=u8::MAX {
                let mut changed = good.clone();
                changed[at] = value;
                if is_joined(&changed) {
                    let artifact = Artifact::from_verified(
                        changed.into(),
                        [0; 32],
                        Default::default(),
                        true,
                        None,
                    );
                    let sum: usize = artifact.parts().map(|(_, part)| part.len()).sum();
                    assert_eq!(sum, 7, "byte {at} is {value}");
                }
            }
        }
    }
}
