//! The frame: the one stored form of an artifact, on disk, over HTTP and in object stores.
//!
//! A header of 144 bytes, then the metadata, then the payload to the end. Integers are
//! little-endian.
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `89 70 63 66 0d 0a 1a 0a` (`\x89pcf\r\n\x1a\n`) |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | flags: bit 0, the tag is keyed; bit 1, the payload is zstd; bit 2, it has parts; bit 3, it is signed; all others 0 |
//! | 12 | 4 | length of the metadata and of the signature before it, at most 65,536 |
//! | 16 | 8 | length of the payload as stored |
//! | 24 | 8 | length of the payload as served; the same unless a flag says otherwise |
//! | 32 | 32 | the fingerprint this artifact answers |
//! | 64 | 32 | BLAKE3 of the payload as served |
//! | 96 | 8 | id of the secret that the tag is keyed with; 0 where it is not keyed |
//! | 104 | 8 | check: the start of BLAKE3 of bytes 0 to 103 |
//! | 112 | 32 | tag: BLAKE3, keyed where a shared secret is set, of bytes 0 to 111 and the next row |
//! | 144 | m | where bit 3 says so, a public key of 32 bytes and a signature of 64; then the metadata, see [`ArtifactMetadata`] |
//! | 144 + m | p | payload; where it has parts and is unpacked, as [`parts`](super::parts) says |
//!
//! The tag binds the payload through its digest, and the fingerprint with it: a frame that was
//! renamed to another key, or whose metadata was edited, is refused as surely as one with a
//! flipped bit. The first byte of the magic is no text, and the line ends in it break when a
//! transfer "corrects" them.
//!
//! The signature is that of the artifact's maker, with Ed25519, over the fingerprint, the digest of the
//! payload, whether it has parts, and the metadata. It does not cover how the frame is stored, so that
//! it stays with the artifact from tier to tier.
//!
//! The check tells a foreign frame, which is somebody else's good entry, from a damaged one. It guards
//! against accidents, not against attackers: only the tag makes a frame acceptable. A frame is foreign
//! if it is of another version, made with another secret, without one where a secret is required,
//! signed by somebody else or by nobody where a signature is demanded, larger than the limit, or
//! compressed in an unknown way, and its header is whole. Every later
//! version keeps the magic, the version and the check where they are.
//!
//! Decoding copies nothing: the payload is a slice of the buffer that was read, unless it was
//! compressed. It is only unpacked once the tag has been checked.

use bytes::{BufMut, Bytes, BytesMut};

#[cfg(feature = "zstd")]
use super::compression;
#[cfg(all(
    feature = "zstd",
    any(feature = "remote-cache", feature = "object-store", feature = "redis")
))]
use super::compression::Compression;
use super::digest::PayloadDigest;
#[cfg(all(
    feature = "zstd",
    any(feature = "remote-cache", feature = "object-store", feature = "redis")
))]
use super::header::FLAG_ZSTD;
use super::header::{
    FLAG_KEYED, FLAG_PARTS, FLAG_SIGNED, Head, MAGIC, MAX_METADATA, VERSION, check,
};
pub(crate) use super::header::{HEADER_LEN, MAX_OVERHEAD, SIGNED_START};
use super::parts;
#[cfg(feature = "signatures")]
use super::signature::Statement;
use super::signature::{ArtifactSignature, PublicKey};
#[cfg(feature = "signatures")]
use super::signers::TrustedSigners;
use super::{Artifact, ArtifactMetadata, FrameError, SharedSecret, TrustedKeys};
use crate::key::PipelineFingerprint;
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
use crate::sync::blocking;

/// How a tier writes and what it accepts.
#[derive(Debug, Clone)]
pub(crate) struct FrameFormat {
    /// Without keys, every whole frame is accepted.
    pub(crate) keys: Option<TrustedKeys>,
    /// Where given, only artifacts that one of them signed are accepted, and written.
    #[cfg(feature = "signatures")]
    pub(crate) signers: Option<TrustedSigners>,
    /// The largest payload, in bytes.
    pub(crate) max_payload: u64,
    /// What is written compressed. What is read may be compressed in any case.
    #[cfg(all(
        feature = "zstd",
        any(feature = "remote-cache", feature = "object-store", feature = "redis")
    ))]
    pub(crate) compression: Option<Compression>,
}

impl FrameFormat {
    pub(crate) const fn new(keys: Option<TrustedKeys>, max_payload: u64) -> Self {
        Self {
            keys,
            #[cfg(feature = "signatures")]
            signers: None,
            max_payload,
            #[cfg(all(
                feature = "zstd",
                any(feature = "remote-cache", feature = "object-store", feature = "redis")
            ))]
            compression: None,
        }
    }

    /// The largest frame this format accepts, in bytes.
    pub(crate) const fn max_frame(&self) -> u64 {
        self.max_payload.saturating_add(MAX_OVERHEAD as u64)
    }

    /// Whether a frame that this format accepts may have this length, in bytes.
    pub(crate) fn may_be_frame(&self, bytes: u64) -> bool {
        (HEADER_LEN as u64..=self.max_frame()).contains(&bytes)
    }

    /// The header and metadata of an artifact. The payload follows them on the medium.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] and [`FrameError::BadMetadata`] where a limit is passed.
    pub(crate) fn encode_head(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<Bytes, FrameError> {
        self.encode_head_of(key, artifact, artifact.len() as u64, 0)
    }

    /// The head for a payload that is stored in so many bytes.
    fn encode_head_of(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        stored_len: u64,
        flags: u16,
    ) -> Result<Bytes, FrameError> {
        let payload_len = artifact.len() as u64;
        if payload_len > self.max_payload {
            return Err(FrameError::TooLarge);
        }
        if artifact.metadata().text_bytes() > MAX_METADATA {
            return Err(FrameError::BadMetadata);
        }
        let signature = artifact.signature();
        self.check_artifact(key, artifact)?;
        let metadata = artifact.metadata().encode();
        let mut region = signature.map_or_else(Vec::new, |signature| signature.encode().to_vec());
        region.extend_from_slice(&metadata);
        if region.len() > MAX_METADATA {
            return Err(FrameError::BadMetadata);
        }
        let secret = self.keys.as_ref().and_then(TrustedKeys::writing);
        let keyed = if secret.is_some() { FLAG_KEYED } else { 0 };
        let parts = if artifact.has_parts() { FLAG_PARTS } else { 0 };
        let signed = if signature.is_some() { FLAG_SIGNED } else { 0 };
        let flags = flags | keyed | parts | signed;

        let mut head = BytesMut::with_capacity(HEADER_LEN + region.len());
        head.put_slice(&MAGIC);
        head.put_u16_le(VERSION);
        head.put_u16_le(flags);
        head.put_u32_le(region.len() as u32);
        head.put_u64_le(stored_len);
        head.put_u64_le(payload_len);
        head.put_slice(key.as_bytes());
        head.put_slice(artifact.digest());
        head.put_slice(&secret.map_or([0; 8], SharedSecret::id));
        let check = check(&head);
        head.put_slice(&check);
        let tag = tag(secret, &head, &region);
        head.put_slice(tag.as_bytes());
        head.put_slice(&region);
        Ok(head.freeze())
    }

    #[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
    /// The whole frame in two parts: header and metadata, and the payload as stored.
    pub(crate) async fn encode(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(Bytes, Bytes), FrameError> {
        #[cfg(feature = "zstd")]
        if let Some(compression) = self.compression {
            let length = artifact.len();
            if length as u64 <= self.max_payload && compression.pays_for(length) {
                let payload = artifact.payload().clone();
                let stored = blocking::run(length, move || compression.compress(&payload)).await;
                if let Some(stored) = stored {
                    let stored_len = stored.len() as u64;
                    let head = self.encode_head_of(key, artifact, stored_len, FLAG_ZSTD)?;
                    return Ok((head, stored.into()));
                }
            }
        }
        let head = self.encode_head(key, artifact)?;
        Ok((head, artifact.payload().clone()))
    }

    /// Checks a whole frame and takes the artifact out of it, without a copy.
    ///
    /// Hashes the payload: call it where that much work may run.
    pub(crate) fn decode(
        &self,
        key: &PipelineFingerprint,
        frame: &Bytes,
    ) -> Result<Artifact, FrameError> {
        self.decode_digested(key, frame, PayloadDigest::default())
    }

    /// [`decode`](Self::decode) of a frame whose payload was hashed in part as it came in.
    pub(crate) fn decode_digested(
        &self,
        key: &PipelineFingerprint,
        frame: &Bytes,
        digest: PayloadDigest,
    ) -> Result<Artifact, FrameError> {
        let (head, maker) = self.check_head(key, frame, frame.len() as u64)?;
        let payload_start = HEADER_LEN + head.metadata_len;
        let (metadata, signature) = (maker.decode_metadata()?, maker.signature);

        let payload = frame.slice(payload_start..);
        #[cfg(feature = "zstd")]
        let payload = if head.is_compressed() {
            let payload = compression::decompress(&payload, head.served_len);
            Bytes::from(payload.ok_or(FrameError::BadPayload)?)
        } else {
            payload
        };
        // `blake3::Hash` compares in constant time.
        if digest.finish(&payload) != *head.digest {
            return Err(FrameError::BadPayload);
        }
        if head.has_parts() && !parts::is_joined(&payload) {
            return Err(FrameError::BadParts);
        }
        let (digest, has_parts) = (*head.digest, head.has_parts());
        Ok(Artifact::from_verified(
            payload, digest, metadata, has_parts, signature,
        ))
    }

    /// Checks all of a frame but its payload, from no more than its start.
    fn check_head<'a>(
        &self,
        key: &PipelineFingerprint,
        start: &'a [u8],
        frame_len: u64,
    ) -> Result<(Head<'a>, Maker<'a>), FrameError> {
        let head = Head::parse(start)?;
        if head.fingerprint != key.as_bytes() {
            return Err(FrameError::OtherFingerprint);
        }
        let payload_start = HEADER_LEN + head.metadata_len;
        let stored = frame_len.checked_sub(payload_start as u64);
        if stored != Some(head.payload_len)
            || (!head.is_compressed() && head.served_len != head.payload_len)
        {
            return Err(FrameError::LengthMismatch);
        }
        let maker = self.check_maker(&head, &start[HEADER_LEN..payload_start])?;
        // Last: an entry that is only too large, or only compressed, may be replaced.
        if head.payload_len.max(head.served_len) > self.max_payload {
            return Err(FrameError::TooLarge);
        }
        if head.is_compressed() && !cfg!(feature = "zstd") {
            return Err(FrameError::UnknownCompression);
        }
        Ok((head, maker))
    }

    /// Checks the tag of a frame and its signature. `region` is what stands between header and payload.
    fn check_maker<'a>(&self, head: &Head<'_>, region: &'a [u8]) -> Result<Maker<'a>, FrameError> {
        self.check_tag(head, region)?;
        let maker = Maker::decode(head, region)?;
        self.check_signature(head, &maker)?;
        Ok(maker)
    }

    /// Whether the signature of a frame is as this format demands. The tag of the frame has been
    /// checked: it stands for all that the signature covers, and for the signature.
    #[cfg(feature = "signatures")]
    fn check_signature(&self, head: &Head<'_>, maker: &Maker<'_>) -> Result<(), FrameError> {
        let Some(signers) = &self.signers else {
            return Ok(());
        };
        signers.check_frame(maker.signature.as_ref(), head.tag, || {
            let key = PipelineFingerprint::from_bytes(*head.fingerprint);
            Statement::new(&key, head.digest, head.has_parts(), maker.metadata)
        })
    }

    /// Nothing is demanded.
    #[cfg(not(feature = "signatures"))]
    const fn check_signature(&self, _: &Head<'_>, _: &Maker<'_>) -> Result<(), FrameError> {
        Ok(())
    }

    /// Whether the signature of an artifact that is to be stored is as this format demands.
    #[cfg(feature = "signatures")]
    fn check_artifact(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(), FrameError> {
        let signers = self.signers.as_ref();
        signers.map_or(Ok(()), |signers| signers.verify(key, artifact))
    }

    /// Nothing is demanded.
    #[cfg(not(feature = "signatures"))]
    const fn check_artifact(
        &self,
        _: &PipelineFingerprint,
        _: &Artifact,
    ) -> Result<(), FrameError> {
        Ok(())
    }

    /// Why a frame that is longer than [`max_frame`](Self::max_frame) is not accepted. `start` has at
    /// least its first [`MAX_OVERHEAD`] bytes.
    pub(crate) fn judge_oversized(
        &self,
        key: &PipelineFingerprint,
        start: &[u8],
        frame_len: u64,
    ) -> FrameError {
        let checked = self.check_head(key, start, frame_len);
        checked.err().unwrap_or(FrameError::TooLarge)
    }

    /// The metadata of a frame, from no more than its start. [`FrameError::LengthMismatch`] where
    /// that does not hold the metadata. The payload is not looked at.
    pub(crate) fn decode_metadata(
        &self,
        key: &PipelineFingerprint,
        start: &[u8],
    ) -> Result<ArtifactMetadata, FrameError> {
        let head = Head::parse(start)?;
        if head.fingerprint != key.as_bytes() {
            return Err(FrameError::OtherFingerprint);
        }
        let region = &start[HEADER_LEN..HEADER_LEN + head.metadata_len];
        self.check_maker(&head, region)?.decode_metadata()
    }

    /// [`decode`](Self::decode) where it may run: on the blocking pool for large frames.
    #[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
    pub(crate) async fn decode_blocking(
        &self,
        key: &PipelineFingerprint,
        frame: Bytes,
    ) -> Result<Artifact, FrameError> {
        let (format, key) = (self.clone(), *key);
        let work = decoding_work(&frame);
        blocking::run(work, move || format.decode(&key, &frame)).await
    }

    /// Whether this format accepts artifacts of whoever signed this one.
    pub(crate) fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.accepts_signer(artifact.signer())
    }

    #[cfg(feature = "signatures")]
    fn accepts_signer(&self, signer: Option<PublicKey>) -> bool {
        let signers = self.signers.as_ref();
        signers.is_none_or(|signers| signer.is_some_and(|signer| signers.accepts(&signer)))
    }

    #[cfg(not(feature = "signatures"))]
    const fn accepts_signer(&self, _: Option<PublicKey>) -> bool {
        true
    }

    /// What a frame of which this is the start says, if it may be that of this key in a file of this
    /// length. What the tag covers is not checked.
    pub(crate) fn stored_tag(
        &self,
        key: &PipelineFingerprint,
        start: &[u8],
        file_len: u64,
    ) -> Option<StoredTag> {
        let (header, rest) = start.split_first_chunk::<HEADER_LEN>()?;
        let head = Head::parse_header(header).ok()?;
        let len = (HEADER_LEN as u64 + head.metadata_len as u64).checked_add(head.payload_len);
        let is_frame = head.fingerprint == key.as_bytes() && len == Some(file_len);
        let is_of_other_secret = match &self.keys {
            Some(keys) => !head.is_keyed() || keys.of(head.secret_id).next().is_none(),
            None => head.is_keyed(),
        };
        let signer = rest.first_chunk::<32>().filter(|_| head.is_signed());
        let signer = signer.map(|bytes| PublicKey::from_bytes(*bytes));
        is_frame.then(|| StoredTag {
            tag: *head.tag,
            is_foreign: is_of_other_secret || !self.accepts_signer(signer),
        })
    }

    fn check_tag(&self, head: &Head<'_>, region: &[u8]) -> Result<(), FrameError> {
        let matches = |secret| tag(secret, head.tagged(), region) == *head.tag;
        let other_secret = || head.foreign(FrameError::OtherSecret);
        let accepted = match (head.is_keyed(), &self.keys) {
            (true, Some(keys)) => {
                let mut secrets = keys.of(head.secret_id).peekable();
                secrets.peek().ok_or_else(other_secret)?;
                secrets.any(|secret| matches(Some(secret)))
            }
            // A reader without the secret cannot tell a keyed tag from a forged one.
            (true, None) => return Err(other_secret()),
            (false, None) => matches(None),
            (false, Some(_)) if matches(None) => return Err(FrameError::Unauthenticated),
            (false, Some(_)) => false,
        };
        if accepted {
            Ok(())
        } else {
            Err(FrameError::BadTag)
        }
    }
}

/// What a frame says of the artifact between its header and its payload.
struct Maker<'a> {
    signature: Option<ArtifactSignature>,
    /// Not parsed yet.
    metadata: &'a [u8],
}

impl<'a> Maker<'a> {
    fn decode(head: &Head<'_>, region: &'a [u8]) -> Result<Self, FrameError> {
        if !head.is_signed() {
            return Ok(Self {
                signature: None,
                metadata: region,
            });
        }
        let (signature, metadata) =
            ArtifactSignature::decode(region).ok_or(FrameError::BadMetadata)?;
        // What is signed must not change where it is stored again.
        if !ArtifactMetadata::is_in_order(metadata) {
            return Err(FrameError::BadMetadata);
        }
        Ok(Self {
            signature: Some(signature),
            metadata,
        })
    }

    fn decode_metadata(&self) -> Result<ArtifactMetadata, FrameError> {
        ArtifactMetadata::decode(self.metadata).ok_or(FrameError::BadMetadata)
    }
}

/// The tag of a frame, as its header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredTag {
    pub(crate) tag: [u8; 32],
    /// Whether it says that it was made with a secret that this reader does not have, or with none
    /// where this reader has one; or that nobody signed it whom this reader accepts.
    pub(crate) is_foreign: bool,
}

/// How many bytes are read or made when a frame is decoded: of a compressed one, what comes out of
/// it.
#[cfg(any(
    target_os = "linux",
    feature = "remote-cache",
    feature = "object-store",
    feature = "redis"
))]
pub(crate) fn decoding_work(frame: &[u8]) -> usize {
    let served = Head::parse(frame).map_or(0, |head| head.served_len);
    usize::try_from(served)
        .unwrap_or(usize::MAX)
        .max(frame.len())
}

fn tag(secret: Option<&SharedSecret>, header: &[u8], region: &[u8]) -> blake3::Hash {
    let mut hasher = secret.map_or_else(blake3::Hasher::new, SharedSecret::hasher);
    hasher.update(header).update(region).finalize()
}

#[cfg(test)]
mod tests;
