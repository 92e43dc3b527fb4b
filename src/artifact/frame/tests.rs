//! The stored form and what a reader makes of a frame that is not its own.

use super::super::header::TAG_OFFSET;
use super::*;
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);

fn format(secret: Option<&str>) -> FrameFormat {
    FrameFormat::new(secret.map(|secret| SharedSecret::new(secret).into()), 1024)
}

fn artifact() -> Artifact {
    let metadata = ArtifactMetadata::new()
        .with_provenance("ci")
        .with_compile_time(Duration::from_micros(5));
    Artifact::with_metadata("payload", metadata)
}

fn frame(format: &FrameFormat, artifact: &Artifact) -> Vec<u8> {
    let mut bytes = format.encode_head(&KEY, artifact).unwrap().to_vec();
    bytes.extend_from_slice(artifact.payload());
    bytes
}

fn decode(format: &FrameFormat, bytes: Vec<u8>) -> Result<Artifact, FrameError> {
    format.decode(&KEY, &bytes.into())
}

#[test]
fn what_is_encoded_is_decoded_without_a_copy() {
    for secret in [None, Some("s")] {
        let format = format(secret);
        let bytes = Bytes::from(frame(&format, &artifact()));
        let decoded = format.decode(&KEY, &bytes).unwrap();
        assert_eq!(decoded, artifact());
        assert_eq!(decoded.metadata(), artifact().metadata());
        assert!(bytes.as_ptr_range().contains(&decoded.payload().as_ptr()));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for secret in [None, Some("s")] {
        let format = format(secret);
        let good = frame(&format, &artifact());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&format, bad).is_err(), "bit {bit} of the frame");
        }
    }
}

/// Readers who cannot read a frame leave it only as long as its header is whole.
#[test]
fn a_flipped_bit_makes_no_frame_foreign() {
    let readers = [None, Some("a"), Some("b")].map(format);
    let small = FrameFormat::new(None, 6);
    for writer in &readers {
        let good = frame(writer, &artifact());
        for reader in readers.iter().chain([&small]) {
            let is_foreign = |bytes| decode(reader, bytes).is_err_and(FrameError::is_foreign);
            let was_foreign = decode(reader, good.clone());
            // Beyond the header, only its owner can tell.
            for bit in 0..HEADER_LEN * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let in_tag = bit / 8 >= TAG_OFFSET;
                let unjudged = in_tag && was_foreign == Err(FrameError::OtherSecret);
                assert_eq!(is_foreign(bad), unjudged, "bit {bit}, {was_foreign:?}");
            }
        }
    }
}

#[test]
fn a_whole_frame_of_another_version_is_foreign() {
    let format = format(None);
    for (byte, value) in [(8, 2), (8, 0), (9, 1), (10, 16), (11, 0x80)] {
        let mut other = frame(&format, &artifact());
        other[byte] = value;
        assert_eq!(decode(&format, other.clone()), Err(FrameError::BadHeader));
        let check = check(&other[..104]);
        other[104..112].copy_from_slice(&check);
        assert_eq!(decode(&format, other), Err(FrameError::UnknownFormat));
    }
}

/// Who has no secret can claim to have one, and gains nothing by it.
#[test]
fn a_forged_id_makes_no_frame_acceptable() {
    let (ours, theirs) = (format(Some("a")), format(Some("b")));
    let mut forged = frame(&theirs, &artifact());
    forged[96..104].copy_from_slice(&SharedSecret::new("a").id());
    assert_eq!(decode(&ours, forged.clone()), Err(FrameError::BadTag));
    let check = check(&forged[..104]);
    forged[104..112].copy_from_slice(&check);
    assert_eq!(decode(&ours, forged), Err(FrameError::BadTag));
}

#[cfg(not(feature = "zstd"))]
#[test]
fn without_the_feature_a_compressed_frame_is_foreign() {
    let mut bytes = frame(&format(None), &artifact());
    bytes[10] = 2;
    let check = check(&bytes[..104]);
    bytes[104..112].copy_from_slice(&check);
    let metadata = bytes[HEADER_LEN..bytes.len() - artifact().len()].to_vec();
    let tag = tag(None, &bytes[..TAG_OFFSET], &metadata);
    bytes[TAG_OFFSET..HEADER_LEN].copy_from_slice(tag.as_bytes());
    let error = decode(&format(None), bytes).unwrap_err();
    assert_eq!(error, FrameError::UnknownCompression);
    assert!(error.is_foreign() && error.is_replaceable());
}

#[test]
fn every_prefix_and_every_extension_is_refused() {
    let format = format(None);
    let good = frame(&format, &artifact());
    for end in 0..good.len() {
        assert!(
            decode(&format, good[..end].to_vec()).is_err(),
            "{end} bytes"
        );
    }
    for extra in 1..200 {
        let mut bad = good.clone();
        bad.resize(good.len() + extra, 0);
        assert_eq!(decode(&format, bad), Err(FrameError::LengthMismatch));
    }
}

#[test]
fn a_frame_of_another_key_is_refused() {
    let format = format(None);
    let other = PipelineFingerprint::from_bytes([0x12; 32]);
    let bytes = Bytes::from(frame(&format, &artifact()));
    let error = format.decode(&other, &bytes).unwrap_err();
    assert_eq!(error, FrameError::OtherFingerprint);
}

#[test]
fn a_secret_accepts_its_own_tags_and_no_others() {
    let plain = frame(&format(None), &artifact());
    let keyed = frame(&format(Some("a")), &artifact());
    let with_secret = format(Some("a"));
    assert!(decode(&with_secret, keyed.clone()).is_ok());
    assert_eq!(
        decode(&with_secret, plain),
        Err(FrameError::Unauthenticated)
    );
    for other in [Some("b"), None] {
        let other = format(other);
        assert_eq!(decode(&other, keyed.clone()), Err(FrameError::OtherSecret));
    }
}

#[test]
fn while_a_secret_is_rotated_one_signs_and_both_are_accepted() {
    let keys = TrustedKeys::new(SharedSecret::new("new"));
    let both = keys.also_accepting(SharedSecret::new("old"));
    let rotating = FrameFormat::new(Some(both), 1024);
    let old = frame(&format(Some("old")), &artifact());
    assert!(decode(&rotating, old.clone()).is_ok());
    let new = frame(&rotating, &artifact());
    let other_secret = Err(FrameError::OtherSecret);
    assert!(decode(&rotating, new.clone()).is_ok());
    assert!(decode(&format(Some("new")), new.clone()).is_ok());
    assert_eq!(decode(&format(Some("old")), new), other_secret);
    assert_eq!(decode(&format(Some("new")), old), other_secret);
    let strange = frame(&format(Some("strange")), &artifact());
    assert_eq!(decode(&rotating, strange), other_secret);
    let plain = frame(&format(None), &artifact());
    assert_eq!(decode(&rotating, plain), Err(FrameError::Unauthenticated));
}

#[test]
fn lengths_that_lie_neither_panic_nor_allocate() {
    let format = format(None);
    let good = frame(&format, &artifact());
    for field in [12..16, 16..24, 24..32] {
        for byte in [0x00, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[field.clone()].fill(byte);
            assert!(decode(&format, bad).is_err());
        }
    }
}

#[test]
fn limits_hold_for_writers_and_readers() {
    let small = FrameFormat::new(None, 6);
    let error = small.encode_head(&KEY, &artifact()).unwrap_err();
    assert_eq!(error, FrameError::TooLarge);
    let bytes = frame(&format(None), &artifact());
    assert_eq!(decode(&small, bytes), Err(FrameError::TooLarge));

    let metadata = ArtifactMetadata::new().with_device("x".repeat(MAX_METADATA));
    let artifact = Artifact::with_metadata("", metadata);
    let error = format(None).encode_head(&KEY, &artifact).unwrap_err();
    assert_eq!(error, FrameError::BadMetadata);
}

/// The stored form is a promise to every folder and server that holds it already.
#[cfg(feature = "signatures")]
mod signed {
    use super::*;
    use crate::artifact::{Signer, SigningKey, TrustedSigners};

    fn maker() -> SigningKey {
        SigningKey::from_seed([7; 32])
    }

    fn demanding() -> FrameFormat {
        let listed = Signer::new("ci", "main", maker().public_key());
        FrameFormat {
            signers: Some(TrustedSigners::new([listed])),
            ..format(None)
        }
    }

    /// So its cost does not depend on the size of the payload, which is hashed once, for its digest.
    #[test]
    fn a_signature_is_judged_without_the_payload() {
        let signed = artifact().signed(&KEY, &maker());
        let mut head = demanding().encode_head(&KEY, &signed).unwrap().to_vec();
        let found = demanding().decode_metadata(&KEY, &head).unwrap();
        assert_eq!(&found, signed.metadata());
        // Another signature, under a tag that is right.
        head[200] ^= 1;
        let tag = tag(None, &head[..112], &head[144..]);
        head[112..144].copy_from_slice(tag.as_bytes());
        let found = demanding().decode_metadata(&KEY, &head);
        assert_eq!(found, Err(FrameError::BadSignature));
    }

    #[test]
    fn an_artifact_of_a_later_release_keeps_its_signature() {
        let mut metadata = artifact().metadata().encode();
        metadata.extend([9, 1, 0, 0, 0, b'x']);
        let metadata = ArtifactMetadata::decode(&metadata).unwrap();
        let signed = Artifact::with_metadata("code", metadata).signed(&KEY, &maker());
        let stored = frame(&format(None), &signed);
        assert!(stored.ends_with(b"\x09\x01\0\0\0xcode"));
        let found = decode(&format(None), stored).unwrap();
        assert_eq!(found.signature(), signed.signature());
        // Where it is stored again, it is still what was signed.
        let again = frame(&demanding(), &found);
        assert!(decode(&demanding(), again).is_ok());
    }
}

#[test]
fn golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let plain = frame(&format(None), &artifact());
    assert_eq!(
        hex(&plain),
        concat!(
            "897063660d0a1a0a010000001400000007000000000000000700000000000000",
            "1111111111111111111111111111111111111111111111111111111111111111",
            "ec90915fa26ab012a89a88ecc8b47e4dd76c4adfd6abd1fc10e321b0fca18d1d",
            "0000000000000000ceb7a2536b6d7a8c",
            "64bb21279a7337ad2321bac12c40f979c8c1b24108c508e1902e6371de4de9ba",
            "01020000006369040800000088130000000000007061796c6f6164",
        )
    );
    let keyed = frame(&format(Some("secret")), &artifact());
    assert_eq!(
        hex(&keyed[96..HEADER_LEN]),
        concat!(
            "75718ad9afb28fed56dec516d7058b2e",
            "60197baf35b8e2f6991ad8a01d3e37003c2bec29c3634887bf5d3aba8e578eb8",
        )
    );
}

#[cfg(all(
    feature = "zstd",
    any(feature = "remote-cache", feature = "object-store", feature = "redis")
))]
mod compressed {
    use super::*;

    fn compressing(secret: Option<&str>) -> FrameFormat {
        let mut format = format(secret);
        format.compression = Some(Compression::new(3, 100));
        format
    }

    async fn frame(format: &FrameFormat, payload: &[u8]) -> Vec<u8> {
        let artifact = Artifact::new(payload.to_vec());
        let (head, payload) = format.encode(&KEY, &artifact).await.unwrap();
        [head, payload].concat()
    }

    /// The header with other fields and its tag made anew, as an attacker without a secret can.
    fn forged(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        change(&mut frame);
        let check = check(&frame[..104]);
        frame[104..112].copy_from_slice(&check);
        let metadata_len = u32::from_le_bytes(frame[12..16].try_into().unwrap()) as usize;
        let tag = tag(
            None,
            &frame[..TAG_OFFSET],
            &frame[HEADER_LEN..HEADER_LEN + metadata_len],
        );
        frame[TAG_OFFSET..HEADER_LEN].copy_from_slice(tag.as_bytes());
        frame
    }

    /// Of what compressors write only this much is a promise: that it is read. The payload here
    /// is one run of a hundred sevens.
    #[test]
    fn golden_bytes() {
        let hex = concat!(
            "897063660d0a1a0a01000200000000000a000000000000006400000000000000",
            "1111111111111111111111111111111111111111111111111111111111111111",
            "065e9dc90a3ebac447458e5c8146571def200c7718b9a0cd38d0929d2572c96f",
            "0000000000000000b820d872b98600c9",
            "c32c304058db4e7e460420c48c0ae19a2c8645c88badb74ffe6dc54cf0b5d7af",
            "28b52ffd206423030007",
        );
        let bytes = (0..hex.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let served = decode(&format(None), bytes.collect()).unwrap();
        assert_eq!(served, Artifact::new(vec![7; 100]));
    }

    #[tokio::test]
    async fn what_is_compressed_is_read_back_by_all_and_what_is_small_is_left() {
        for secret in [None, Some("s")] {
            let bytes = frame(&compressing(secret), &[7; 1000]).await;
            assert!(bytes.len() < 200);
            let served = decode(&format(secret), bytes).unwrap();
            assert_eq!(served.payload(), &vec![7; 1000]);
            let small = frame(&compressing(secret), &[7; 99]).await;
            assert_eq!(small.len(), HEADER_LEN + 99);
        }
    }

    #[tokio::test]
    async fn every_flipped_bit_of_it_is_refused() {
        let format = compressing(None);
        let good = frame(&format, &[7; 1000]).await;
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // zstd has bits that say nothing about what comes out.
            if let Ok(served) = decode(&format, bad) {
                assert_eq!(served.payload(), &vec![7; 1000], "bit {bit}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_by_its_declared_length_and_by_the_limit() {
        let mut generous = compressing(None);
        generous.max_payload = 64 << 20;
        let bomb = frame(&generous, &vec![0; 32 << 20]).await;
        assert!(bomb.len() < 8192);
        let format = compressing(None);
        assert_eq!(decode(&format, bomb.clone()), Err(FrameError::TooLarge));
        // It says that it is small.
        let liar = forged(bomb.clone(), |frame| {
            frame[24..32].copy_from_slice(&1000_u64.to_le_bytes());
        });
        let reader = FrameFormat::new(None, 1 << 20);
        assert_eq!(decode(&reader, liar), Err(FrameError::BadPayload));
        // It says that it is not compressed.
        let plain = forged(bomb, |frame| frame[10] = 0);
        assert_eq!(decode(&reader, plain), Err(FrameError::LengthMismatch));
    }

    #[tokio::test]
    async fn large_ones_are_read_back() {
        let mut format = compressing(None);
        format.max_payload = 4 << 20;
        let payload: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 1000) as u8).collect();
        let bytes = frame(&format, &payload).await;
        assert!(bytes.len() < 100_000);
        let served = format.decode_blocking(&KEY, bytes.into()).await.unwrap();
        assert!(served.payload() == &payload);
    }
}
