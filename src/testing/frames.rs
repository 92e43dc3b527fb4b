//! Frames by hand: what a server, or a tier's own tests, need to make and read stored entries.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::artifact::frame::FrameFormat;
use crate::artifact::{Artifact, FrameError, TrustedKeys};
use crate::key::PipelineFingerprint;

/// The stored form of an artifact: what a [`DiskCache`](crate::DiskCache) has in the file
/// `<hex>.bin`, and a server sends for it. Tagged with the signing secret of `keys`, where there
/// are any. Copies the payload.
///
/// # Errors
///
/// [`FrameError::BadMetadata`] where the metadata does not fit.
///
/// ```
/// use pipeline_cache::testing::{decode_frame, encode_frame};
/// use pipeline_cache::{Artifact, FrameError, PipelineFingerprint};
///
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let frame = encode_frame(&key, &Artifact::new("code"), None)?;
/// assert_eq!(decode_frame(&key, &frame, None, 1 << 20)?, Artifact::new("code"));
///
/// let other = PipelineFingerprint::from_bytes([2; 32]);
/// let refused = decode_frame(&other, &frame, None, 1 << 20);
/// assert!(matches!(refused, Err(FrameError::OtherFingerprint)));
/// # Ok::<(), FrameError>(())
/// ```
pub fn encode_frame(
    key: &PipelineFingerprint,
    artifact: &Artifact,
    keys: Option<TrustedKeys>,
) -> Result<Bytes, FrameError> {
    let head = FrameFormat::new(keys, u64::MAX).encode_head(key, artifact)?;
    let mut frame = BytesMut::with_capacity(head.len() + artifact.len());
    frame.put_slice(&head);
    frame.put_slice(artifact.payload());
    Ok(frame.freeze())
}

/// The artifact in a frame, checked as every tier checks it, without a copy of the payload.
/// Nothing larger than `max_payload_bytes` is taken or unpacked. Hashes the payload on the calling
/// thread.
///
/// # Errors
///
/// [`FrameError`], with what is wrong.
pub fn decode_frame(
    key: &PipelineFingerprint,
    frame: &Bytes,
    keys: Option<TrustedKeys>,
    max_payload_bytes: u64,
) -> Result<Artifact, FrameError> {
    FrameFormat::new(keys, max_payload_bytes).decode(key, frame)
}
