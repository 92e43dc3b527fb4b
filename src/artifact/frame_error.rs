//! What can be wrong with a frame.

/// Why bytes are not the frame of an artifact, or why an artifact does not fit a frame.
///
/// To the reader of a tier each of these is a miss. A *damaged* frame is counted as corrupt, and a disk
/// tier sets it aside. A [*foreign*](Self::is_foreign) frame may be another reader's good entry: it is
/// counted as refused, and left where it is.
///
/// See [`Artifact::to_frame`](crate::Artifact::to_frame) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// There are fewer bytes than a header has, or none at all.
    #[error("{0} bytes are too few for a frame")]
    TooShort(u64),
    /// The bytes do not begin as a frame does.
    #[error("not a frame: the magic bytes differ")]
    NotAFrame,
    /// The header does not match its check.
    #[error("the header does not match its check")]
    BadHeader,
    /// The frame is of a version, or uses a feature, that this release does not know.
    #[error("the frame is of an unknown version or uses an unknown feature")]
    UnknownFormat,
    /// The payload is compressed with zstd, and this build lacks the feature `zstd`.
    #[error("the payload is compressed with zstd, and this build lacks the feature `zstd`")]
    UnknownCompression,
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
    /// The header or the metadata were changed, or the tag was forged.
    #[error("tag mismatch: header or metadata damaged or forged")]
    BadTag,
    /// The frame was made with a secret that this reader does not have.
    #[error("the frame was made with a secret that this reader does not have")]
    OtherSecret,
    /// The frame was made without a secret, and the tier requires one.
    #[error("the frame was made without a secret, and this tier requires one")]
    Unauthenticated,
    /// The frame has no signature of its maker, and the tier demands one.
    #[error("the artifact is not signed by its maker, and this tier demands it")]
    Unsigned,
    /// The frame is signed by somebody whose signatures this reader does not accept.
    #[error("the artifact is signed by somebody whom this tier does not trust")]
    OtherSigner,
    /// The signature is not that of the signer it names.
    #[error(
        "the signature is not that of the signer it names: forged, or of another key or artifact"
    )]
    BadSignature,
    /// The response was transformed on its way, with the encoding of this name, though the request
    /// asks for none.
    #[error("the response has the content encoding {0}: switch it off for artifacts")]
    ContentEncoded(&'static str),
    /// The payload was changed.
    #[error("the payload does not match its digest")]
    BadPayload,
    /// The payload is said to have parts, and does not begin with an index of parts.
    #[error("the payload has no sound index of its parts")]
    BadParts,
}

impl FrameError {
    /// Whether the frame may be good for a reader with other settings: a newer release, a larger limit,
    /// another secret, or more features. Nothing that such a frame holds is served.
    ///
    /// ```
    /// use pipeline_cache::FrameError;
    ///
    /// assert!(FrameError::OtherSecret.is_foreign());
    /// assert!(!FrameError::BadPayload.is_foreign());
    /// ```
    #[must_use]
    pub const fn is_foreign(self) -> bool {
        match self {
            Self::UnknownFormat
            | Self::UnknownCompression
            | Self::TooLarge
            | Self::OtherSecret
            | Self::Unauthenticated
            | Self::Unsigned
            | Self::OtherSigner => true,
            Self::TooShort(_)
            | Self::NotAFrame
            | Self::BadHeader
            | Self::OtherFingerprint
            | Self::LengthMismatch
            | Self::BadMetadata
            | Self::BadTag
            | Self::BadSignature
            | Self::BadPayload
            | Self::BadParts
            | Self::ContentEncoded(_) => false,
        }
    }

    /// Whether whoever can read the frame can also read the one that this reader writes in its place.
    pub(crate) const fn is_replaceable(self) -> bool {
        !self.is_foreign()
            || matches!(
                self,
                Self::TooLarge | Self::UnknownCompression | Self::Unsigned
            )
    }

    /// Whether the frame carries no valid tag of an accepted secret.
    #[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
    pub(crate) const fn is_unauthenticated(self) -> bool {
        matches!(
            self,
            Self::BadTag
                | Self::OtherSecret
                | Self::Unauthenticated
                | Self::Unsigned
                | Self::OtherSigner
                | Self::BadSignature
        )
    }
}
