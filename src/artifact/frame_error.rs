//! What can be wrong with a frame.

/// Why bytes are not the frame of an artifact, or why an artifact does not fit a frame.
///
/// To the reader of a tier each of these is a miss, counted as corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// There are fewer bytes than a header has, or none at all.
    #[error("{0} bytes are too few for a frame")]
    TooShort(u64),
    /// The bytes do not begin as a frame does.
    #[error("not a frame: the magic bytes differ")]
    NotAFrame,
    /// The frame is of a version, or uses a feature, that this release does not know.
    #[error("the frame is of an unknown version or uses an unknown feature")]
    UnknownFormat,
    /// The frame belongs to another key.
    #[error("the frame belongs to another key")]
    OtherFingerprint,
    /// The lengths in the header do not match the length of the frame.
    #[error("the lengths in the header do not match the frame")]
    LengthMismatch,
    /// The artifact is larger than the tier accepts.
    #[error("the artifact exceeds max_artifact_bytes")]
    TooLarge,
    /// The metadata is larger than 64 KiB, or not metadata.
    #[error("the metadata is too large or malformed")]
    BadMetadata,
    /// The header or the metadata were changed, or the tag was made with another secret.
    #[error("tag mismatch: header or metadata damaged, or signed with another secret")]
    BadTag,
    /// The frame is not signed, and the tier requires a signature.
    #[error("the frame is not signed, and this tier requires a signature")]
    Unauthenticated,
    /// The response was transformed on its way, with the encoding of this name, though the request
    /// asks for none.
    #[error("the response has the content encoding {0}: switch it off for artifacts")]
    ContentEncoded(&'static str),
    /// The payload was changed.
    #[error("the payload does not match its digest")]
    BadPayload,
}
