//! The fixed part of a frame, see [`super::frame`] for what each field means.

use super::FrameError;

pub(super) const MAGIC: [u8; 8] = *b"\x89pcf\r\n\x1a\n";
pub(super) const VERSION: u16 = 1;
pub(super) const FLAG_KEYED: u16 = 1;
#[cfg(feature = "zstd")]
pub(super) const FLAG_ZSTD: u16 = 2;
#[cfg(feature = "zstd")]
const KNOWN_FLAGS: u16 = FLAG_KEYED | FLAG_ZSTD;
#[cfg(not(feature = "zstd"))]
const KNOWN_FLAGS: u16 = FLAG_KEYED;
pub(super) const TAG_OFFSET: usize = 96;
pub(super) const MAX_METADATA: usize = 64 * 1024;

/// The length of the header.
pub(crate) const HEADER_LEN: usize = 128;

/// The most bytes a frame adds to a payload.
pub(crate) const MAX_OVERHEAD: usize = HEADER_LEN + MAX_METADATA;

/// A header whose fields are in range; nothing else is checked yet.
pub(super) struct Head<'a> {
    pub(super) flags: u16,
    pub(super) metadata_len: usize,
    pub(super) payload_len: u64,
    pub(super) served_len: u64,
    pub(super) fingerprint: &'a [u8; 32],
    pub(super) digest: &'a [u8; 32],
    pub(super) tag: &'a [u8; 32],
}

impl<'a> Head<'a> {
    pub(super) const fn is_compressed(&self) -> bool {
        self.flags & KNOWN_FLAGS & !FLAG_KEYED != 0
    }

    /// The header at the start of a frame that goes on at least to the end of its metadata.
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let too_short = FrameError::TooShort(frame.len() as u64);
        let (header, rest) = frame.split_first_chunk::<HEADER_LEN>().ok_or(too_short)?;
        let head = Self::parse_header(header)?;
        if head.metadata_len > rest.len() {
            return Err(FrameError::LengthMismatch);
        }
        Ok(head)
    }

    pub(super) fn parse_header(header: &'a [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let (magic, header) = take::<8>(header);
        let (version, header) = take::<2>(header);
        let (flags, header) = take::<2>(header);
        let (metadata_len, header) = take::<4>(header);
        let (payload_len, header) = take::<8>(header);
        let (served_len, header) = take::<8>(header);
        let (fingerprint, header) = take::<32>(header);
        let (digest, header) = take::<32>(header);
        let (tag, _) = take::<32>(header);

        if *magic != MAGIC {
            return Err(FrameError::NotAFrame);
        }
        let flags = u16::from_le_bytes(*flags);
        if u16::from_le_bytes(*version) != VERSION || flags & !KNOWN_FLAGS != 0 {
            return Err(FrameError::UnknownFormat);
        }
        let metadata_len = u32::from_le_bytes(*metadata_len) as usize;
        if metadata_len > MAX_METADATA {
            return Err(FrameError::BadMetadata);
        }
        Ok(Self {
            flags,
            metadata_len,
            payload_len: u64::from_le_bytes(*payload_len),
            served_len: u64::from_le_bytes(*served_len),
            fingerprint,
            digest,
            tag,
        })
    }
}

/// The next `N` bytes of a header. The header is of fixed size and so are its fields.
fn take<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes
        .split_first_chunk()
        .expect("the fields of a header add up to its length")
}

/// Where the payload of a frame begins, of which there is the start, if it is stored as it is served.
/// Nothing is checked but that the header can be read.
#[cfg(target_os = "linux")]
pub(super) fn plain_payload_start(frame: &[u8]) -> Option<usize> {
    let head = Head::parse(frame).ok()?;
    (!head.is_compressed()).then_some(HEADER_LEN + head.metadata_len)
}
