//! Frames.

use bytes::Bytes;
use pipeline_cache::{Artifact, PipelineFingerprint, SharedSecret, TrustedKeys};

/// The largest payload that [`check`] lets a frame unpack to.
const MAX_PAYLOAD: u64 = 1 << 16;

/// The length of a frame without metadata and payload.
const HEADER_LEN: usize = 144;

/// Any bytes are a frame or are not, within bounds; any payload comes back from its frame, and
/// from no other.
pub(crate) fn check(data: &[u8]) {
    let keys = || Some(TrustedKeys::new(SharedSecret::new("secret")));
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(artifact) = Artifact::from_frame(&key, &bytes, None, MAX_PAYLOAD) {
        assert!(artifact.len() as u64 <= MAX_PAYLOAD);
        check_parts(&artifact);
        assert!(Artifact::from_frame(&key, &bytes, keys().as_ref(), MAX_PAYLOAD).is_err());
    }

    // As an index of parts and what follows, also where the rest of the frame was changed.
    for payload in [bytes.clone(), bytes.slice(bytes.len().min(HEADER_LEN)..)] {
        let frame = frame_of_parts(&key, &payload);
        if let Ok(artifact) = Artifact::from_frame(&key, &frame, None, u64::MAX) {
            assert_eq!(artifact.payload(), &payload);
            check_parts(&artifact);
        }
    }

    let half = bytes.slice(..bytes.len() / 2);
    let parts = Artifact::builder()
        .part("whole", bytes.clone())
        .part("half", half.clone());
    let parts = parts.build().unwrap();
    assert_eq!(parts.part("whole").as_ref(), Some(&bytes));
    assert_eq!(parts.part("half"), Some(half));
    for artifact in [parts, Artifact::new(bytes)] {
        check_frame_of(&artifact, data);
    }
}

/// A frame that says that its payload, which may be any bytes, has parts.
fn frame_of_parts(key: &PipelineFingerprint, payload: &Bytes) -> Bytes {
    let mut frame = Artifact::new(payload.clone())
        .to_frame(key, None)
        .unwrap()
        .to_vec();
    frame[10] = 4;
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
    let tag = blake3::hash(&frame[..112]);
    frame[112..144].copy_from_slice(tag.as_bytes());
    frame.into()
}

/// Parts are apart, in order, under names that can be printed, and whoever puts the same again gets
/// the same artifact.
fn check_parts(artifact: &Artifact) {
    let parts: Vec<_> = artifact.parts().collect();
    assert!(parts.len() <= 64);
    assert!(parts.is_sorted_by(|(a, _), (b, _)| a < b));
    let sum: usize = parts.iter().map(|(_, part)| part.len()).sum();
    assert!(sum <= artifact.len());
    let mut again = Artifact::builder();
    for (name, part) in parts {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(artifact.part(name).as_ref(), Some(&part));
        again = again.part(name, part);
    }
    if artifact.has_parts() {
        assert_eq!(&again.build().unwrap(), artifact);
    }
}

/// An artifact comes back from its frame, and from no other. `data` chooses how the frame is changed.
fn check_frame_of(artifact: &Artifact, data: &[u8]) {
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let secret = TrustedKeys::new(SharedSecret::new("secret"));
    for keys in [None, Some(secret)] {
        let frame = artifact.to_frame(&key, keys.as_ref()).unwrap();
        let decoded = Artifact::from_frame(&key, &frame, keys.as_ref(), u64::MAX);
        assert_eq!(decoded.as_ref(), Ok(artifact));
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
