//! What artifacts of named parts promise wherever they are stored.

use bytes::Bytes;
use pipeline_cache::{
    Artifact, ArtifactMetadata, FrameError, PipelineFingerprint, SharedSecret, TrustedKeys,
};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const LIMIT: u64 = 1 << 20;

fn artifact() -> Artifact {
    Artifact::builder()
        .part("code", "12345")
        .part("warnings", "line 1")
        .metadata(ArtifactMetadata::new().with_provenance("ci"))
        .build()
        .unwrap()
}

fn decode(frame: Vec<u8>) -> Result<Artifact, FrameError> {
    Artifact::from_frame(&KEY, &frame.into(), None, LIMIT)
}

/// The frame of this payload with these flags, as anybody can make it who has no secret.
fn forged(payload: &[u8], flags: u8) -> Vec<u8> {
    let artifact = Artifact::new(Bytes::copy_from_slice(payload));
    let mut frame = artifact.to_frame(&KEY, None).unwrap().to_vec();
    frame[10] = flags;
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
    let tag = blake3::hash(&frame[..112]);
    frame[112..144].copy_from_slice(tag.as_bytes());
    frame
}

/// The stored form is a promise to every folder and server that holds it already.
#[test]
fn golden_bytes() {
    let frame = artifact().to_frame(&KEY, None).unwrap();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = concat!(
        "897063660d0a1a0a01000400070000002b000000000000002b00000000000000",
        "1111111111111111111111111111111111111111111111111111111111111111",
        "b571f63760d41228878ae5fb018ac0943f38241de2caccbe8133da9992bdf662",
        "00000000000000000aade4b07e923899",
        "233e45d155cab861ba9d81cfe9f8212482860a0bc520bbc8656867e036cd9b78",
        "01020000006369",
        "1e0004636f64650500000000000000",
        "087761726e696e67730600000000000000",
        "31323334356c696e652031",
    );
    assert_eq!(hex, golden);
    assert_eq!(decode(frame.to_vec()), Ok(artifact()));
}

#[test]
fn parts_come_out_of_a_frame_without_a_copy() {
    for keys in [None, Some(TrustedKeys::from(SharedSecret::new("s")))] {
        let frame = artifact().to_frame(&KEY, keys.as_ref()).unwrap();
        let decoded = Artifact::from_frame(&KEY, &frame, keys.as_ref(), LIMIT).unwrap();
        assert_eq!(decoded, artifact());
        assert_eq!(decoded.metadata(), artifact().metadata());
        let names: Vec<_> = decoded.parts().map(|(name, _)| name).collect();
        assert_eq!(names, ["code", "warnings"]);
        let warnings = decoded.part("warnings").unwrap();
        assert_eq!(warnings, "line 1");
        assert!(frame.as_ptr_range().contains(&warnings.as_ptr()));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = artifact().to_frame(&KEY, None).unwrap().to_vec();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = decode(bad).unwrap_err();
        assert!(!error.is_foreign(), "bit {bit}: {error}");
    }
}

/// A payload is read in the form it was put in, whatever its bytes are.
#[test]
fn the_bytes_of_parts_in_a_simple_artifact_are_no_parts() {
    let plain = Artifact::new(artifact().payload().clone());
    let decoded = decode(plain.to_frame(&KEY, None).unwrap().to_vec()).unwrap();
    assert_eq!(decoded, plain);
    assert!(!decoded.has_parts());
    assert_ne!(decoded, artifact());
}

#[test]
fn an_index_that_lies_makes_a_damaged_frame() {
    const PARTS: u8 = 4;
    let good = artifact().payload().to_vec();
    assert_eq!(decode(forged(&good, PARTS)), Ok(artifact()));
    let changed = |at: usize, value: u8| {
        let mut changed = good.clone();
        changed[at] = value;
        changed
    };
    // The index: 2 bytes of length, then an entry of 1 + 4 + 8 bytes and one of 1 + 8 + 8.
    for (what, payload) in [
        ("nothing", vec![]),
        ("half a length", vec![0]),
        ("no index", b"just code".to_vec()),
        ("a longer index than payload", changed(1, 0xff)),
        ("a shorter index than it has", changed(0, 29)),
        ("a name past the index", changed(2, 0xff)),
        ("a path for a name", changed(3, b'/')),
        ("names out of order", changed(3, b'x')),
        ("a part past the end", changed(7, 200)),
        ("a part of more bytes than there are", changed(14, 0xff)),
        ("bytes that no part has", [&good[..], b"x"].concat()),
        ("too few bytes", good[..good.len() - 1].to_vec()),
        ("an endless index", [&[0xff; 2][..], &[0; 0xffff]].concat()),
    ] {
        let error = decode(forged(&payload, PARTS)).unwrap_err();
        assert_eq!(error, FrameError::BadParts, "{what}");
        assert!(!error.is_foreign());
    }
}
