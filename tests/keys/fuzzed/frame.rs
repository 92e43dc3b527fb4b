//! Frames.

use bytes::Bytes;
use pipeline_cache::{Artifact, PipelineFingerprint, SharedSecret, TrustedKeys};

/// The largest payload that [`check`] lets a frame unpack to.
const MAX_PAYLOAD: u64 = 1 << 16;

/// Any bytes are a frame or are not, within bounds; any payload comes back from its frame, and
/// from no other.
pub(crate) fn check(data: &[u8]) {
    let keys = || Some(TrustedKeys::new(SharedSecret::new("secret")));
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(artifact) = Artifact::from_frame(&key, &bytes, None, MAX_PAYLOAD) {
        assert!(artifact.len() as u64 <= MAX_PAYLOAD);
        assert!(Artifact::from_frame(&key, &bytes, keys().as_ref(), MAX_PAYLOAD).is_err());
    }

    let artifact = Artifact::new(bytes);
    for keys in [None, keys()] {
        let frame = artifact.to_frame(&key, keys.as_ref()).unwrap();
        let decoded = Artifact::from_frame(&key, &frame, keys.as_ref(), u64::MAX);
        assert_eq!(decoded.unwrap(), artifact);
        let other = PipelineFingerprint::from_bytes([2; 32]);
        assert!(Artifact::from_frame(&other, &frame, keys.as_ref(), u64::MAX).is_err());
        // One bit of it, chosen by the input.
        let mut changed = frame.to_vec();
        let chosen = data.iter().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
        });
        let at = chosen % changed.len();
        changed[at] ^= 1 << (data.len() % 8);
        assert!(Artifact::from_frame(&key, &changed.into(), keys.as_ref(), u64::MAX).is_err());
        let cut = frame.slice(..at);
        assert!(Artifact::from_frame(&key, &cut, keys.as_ref(), u64::MAX).is_err());
    }
}
