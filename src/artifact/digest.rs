//! The digest of a frame's payload, taken while the frame comes in.
//!
//! A part that was just read is still in the processor's caches. Hashing in parts also lets a reader
//! yield between them.

#[cfg(target_os = "linux")]
use super::header::plain_payload_start;

/// The hash of the part of a payload that has come so far; by default, of nothing.
#[derive(Debug, Default)]
pub(crate) struct PayloadDigest {
    /// Boxed, because it is large and small frames do not need it.
    hasher: Option<Box<blake3::Hasher>>,
    hashed: usize,
}

impl PayloadDigest {
    /// Hashes what has come of the frame since the last call. `None` where the stored payload is not
    /// what the digest covers (it is compressed), or where these bytes are not a frame.
    #[cfg(target_os = "linux")]
    pub(crate) fn update(&mut self, frame: &[u8]) -> Option<()> {
        /// Such a part is hashed as one tree, with all that the processor can do at once.
        const PART: usize = 64 * 1024;
        let payload = frame.get(plain_payload_start(frame)?..)?;
        let end = payload.len() - payload.len() % PART;
        if let Some(part) = payload.get(self.hashed..end) {
            self.hasher.get_or_insert_default().update(part);
            self.hashed = end;
        }
        Some(())
    }

    /// The digest of the payload, whose start is what was hashed already.
    pub(super) fn finish(self, payload: &[u8]) -> blake3::Hash {
        match self.hasher {
            Some(mut hasher) => {
                let rest = payload.get(self.hashed..).unwrap_or_default();
                hasher.update(rest).finalize()
            }
            None => blake3::hash(payload),
        }
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::frame::FrameFormat;
    use crate::artifact::header::HEADER_LEN;
    use crate::artifact::{Artifact, ArtifactMetadata, FrameError};
    use crate::key::PipelineFingerprint;
    use bytes::Bytes;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
    const FORMAT: FrameFormat = FrameFormat::new(None, 1 << 20);

    fn frame(len: usize) -> Vec<u8> {
        let mut payload = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut payload);
        let metadata = ArtifactMetadata::new().with_provenance("a test");
        let artifact = Artifact::with_metadata(payload, metadata);
        let head = FORMAT.encode_head(&KEY, &artifact).unwrap();
        [&head[..], &artifact.payload()[..]].concat()
    }

    /// What a frame is decoded to, which came in parts of such a length.
    fn decode_in_parts(frame: &[u8], part: usize) -> Result<Artifact, FrameError> {
        let mut digest = PayloadDigest::default();
        for end in (part..frame.len()).step_by(part) {
            digest.update(&frame[..end]).unwrap();
        }
        FORMAT.decode_digested(&KEY, &Bytes::copy_from_slice(frame), digest)
    }

    #[test]
    fn a_frame_in_parts_is_decoded_as_a_whole_one() {
        for len in [0, 1, 65_535, 65_536, 65_537, 200_000, 1 << 18] {
            let mut frame = frame(len);
            let whole = FORMAT.decode(&KEY, &Bytes::copy_from_slice(&frame));
            for part in [HEADER_LEN + 100, 10_000, 65_536, 70_000, 150_000] {
                assert_eq!(decode_in_parts(&frame, part), whole, "{len} by {part}");
            }
            let payload = frame.len() - len;
            for byte in [0, len / 2, len.saturating_sub(1)] {
                let Some(byte) = frame.get_mut(payload + byte) else {
                    continue;
                };
                *byte ^= 1;
                let decoded = decode_in_parts(&frame, 70_000);
                assert_eq!(decoded, Err(FrameError::BadPayload));
                frame[payload..].copy_from_slice(&whole.as_ref().unwrap().payload()[..]);
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_not_hashed() {
        let mut digest = PayloadDigest::default();
        assert!(digest.update(&[0; 200]).is_none());
        assert!(digest.update(&frame(10)[..HEADER_LEN - 1]).is_none());
    }
}
