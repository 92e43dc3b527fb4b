//! The fixed part of a frame, see [`super::frame`] for what each field means.

use super::FrameError;

pub(super) const MAGIC: [u8; 8] = *b"\x89pcf\r\n\x1a\n";
pub(super) const VERSION: u16 = 1;
pub(super) const FLAG_KEYED: u16 = 1;
pub(super) const FLAG_ZSTD: u16 = 2;
pub(super) const FLAG_PARTS: u16 = 4;
pub(super) const FLAG_SIGNED: u16 = 8;
const KNOWN_FLAGS: u16 = FLAG_KEYED | FLAG_ZSTD | FLAG_PARTS | FLAG_SIGNED;
const CHECK_OFFSET: usize = 104;
pub(super) const TAG_OFFSET: usize = 112;
pub(super) const MAX_METADATA: usize = 64 * 1024;

/// The length of the header.
pub(crate) const HEADER_LEN: usize = 144;

/// As much of a frame as says who signed it.
pub(crate) const SIGNED_START: usize = HEADER_LEN + 32;

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
    pub(super) secret_id: &'a [u8; 8],
    pub(super) tag: &'a [u8; 32],
    header: &'a [u8; HEADER_LEN],
}

/// The check of a header: every version has it at the same place, over the bytes before it. So a
/// reader tells a frame of another version from one whose version was damaged.
pub(super) fn check(covered: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(covered).as_bytes();
    [a, b, c, d, e, f, g, h]
}

/// `foreign` if the header matches its check, or else that it does not.
fn unless_damaged(header: &[u8; HEADER_LEN], foreign: FrameError) -> FrameError {
    let (covered, rest) = header.split_at(CHECK_OFFSET);
    if rest.starts_with(&check(covered)) {
        foreign
    } else {
        FrameError::BadHeader
    }
}

impl<'a> Head<'a> {
    pub(super) const fn is_compressed(&self) -> bool {
        self.flags & FLAG_ZSTD != 0
    }

    pub(super) const fn is_keyed(&self) -> bool {
        self.flags & FLAG_KEYED != 0
    }

    /// Whether the signature of its maker comes before the metadata.
    pub(super) const fn is_signed(&self) -> bool {
        self.flags & FLAG_SIGNED != 0
    }

    pub(super) const fn has_parts(&self) -> bool {
        self.flags & FLAG_PARTS != 0
    }

    /// What the tag covers, but for what follows the header.
    pub(super) fn tagged(&self) -> &'a [u8] {
        &self.header[..TAG_OFFSET]
    }

    /// Why this reader cannot judge the frame, unless its header is damaged.
    pub(super) fn foreign(&self, why: FrameError) -> FrameError {
        unless_damaged(self.header, why)
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
        let (magic, rest) = take::<8>(header);
        let (version, rest) = take::<2>(rest);
        let (flags, rest) = take::<2>(rest);
        let (metadata_len, rest) = take::<4>(rest);
        let (payload_len, rest) = take::<8>(rest);
        let (served_len, rest) = take::<8>(rest);
        let (fingerprint, rest) = take::<32>(rest);
        let (digest, rest) = take::<32>(rest);
        let (secret_id, rest) = take::<8>(rest);
        let (_check, rest) = take::<8>(rest);
        let (tag, _) = take::<32>(rest);

        if *magic != MAGIC {
            return Err(FrameError::NotAFrame);
        }
        let flags = u16::from_le_bytes(*flags);
        if u16::from_le_bytes(*version) != VERSION || flags & !KNOWN_FLAGS != 0 {
            return Err(unless_damaged(header, FrameError::UnknownFormat));
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
            secret_id,
            tag,
            header,
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
