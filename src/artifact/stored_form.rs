//! Artifacts to frames and back, for servers and tools that handle stored entries themselves.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::FrameFormat;
use super::{Artifact, FrameError, TrustedKeys};
use crate::key::PipelineFingerprint;

impl Artifact {
    /// The frame of this artifact under `key`: the bytes of the file `<hex>.bin` of a
    /// [`DiskCache`](crate::DiskCache), and the body that a server sends for it. Its tag is made with
    /// the writing secret of `keys`, if there are any. Copies the payload.
    ///
    /// # Errors
    ///
    /// [`FrameError::BadMetadata`] where the metadata is larger than 64 KiB.
    ///
    /// ```
    /// use pipeline_cache::{Artifact, FrameError, PipelineFingerprint};
    ///
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// let frame = Artifact::new("code").to_frame(&key, None)?;
    /// assert_eq!(Artifact::from_frame(&key, &frame, None, 1 << 20)?, Artifact::new("code"));
    ///
    /// let other = PipelineFingerprint::from_bytes([2; 32]);
    /// let refused = Artifact::from_frame(&other, &frame, None, 1 << 20);
    /// assert!(matches!(refused, Err(FrameError::OtherFingerprint)));
    /// # Ok::<(), FrameError>(())
    /// ```
    pub fn to_frame(
        &self,
        key: &PipelineFingerprint,
        keys: Option<&TrustedKeys>,
    ) -> Result<Bytes, FrameError> {
        let head = FrameFormat::new(keys.cloned(), u64::MAX).encode_head(key, self)?;
        let mut frame = BytesMut::with_capacity(head.len() + self.len());
        frame.put_slice(&head);
        frame.put_slice(self.payload());
        Ok(frame.freeze())
    }

    /// The artifact in a frame, verified as every tier does: it is the frame of `key`, whole, and
    /// made with an accepted secret of `keys`, if there are any. Its payload, unpacked, has at most
    /// `max_payload_bytes` bytes. Copies nothing, unless the payload is compressed.
    ///
    /// Hashes the payload on the calling thread: call it on the blocking pool for large frames.
    ///
    /// # Errors
    ///
    /// [`FrameError`], which says what is wrong.
    pub fn from_frame(
        key: &PipelineFingerprint,
        frame: &Bytes,
        keys: Option<&TrustedKeys>,
        max_payload_bytes: u64,
    ) -> Result<Self, FrameError> {
        FrameFormat::new(keys.cloned(), max_payload_bytes).decode(key, frame)
    }
}
