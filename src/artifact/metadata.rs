//! Metadata: what is worth knowing of an artifact without reading it.

use std::time::Duration;

/// Where an artifact came from and where it runs. Every part is optional.
///
/// A [`RemoteCache`](crate::RemoteCache) can be told to refuse artifacts of another provenance or
/// device. Texts are limited to 64 KiB in sum, which is checked when the artifact is stored.
///
/// ```
/// use pipeline_cache::ArtifactMetadata;
///
/// let metadata = ArtifactMetadata::new()
///     .with_provenance("ci.example.com/main")
///     .with_device("vulkan-1.3")
///     .with_toolchain("naga 30.0.1");
/// assert_eq!(metadata.provenance(), Some("ci.example.com/main"));
/// assert_eq!(metadata.device(), Some("vulkan-1.3"));
/// assert_eq!(metadata.toolchain(), Some("naga 30.0.1"));
/// assert_eq!(metadata.compile_time(), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct ArtifactMetadata {
    provenance: Option<String>,
    device: Option<String>,
    toolchain: Option<String>,
    compile_time: Option<Duration>,
    /// Fields of a later release, as they are stored: what was signed stays as it was.
    #[cfg_attr(feature = "serde", serde(skip))]
    later: Vec<u8>,
}

/// The tags of the fields in the stored form. A tag is never used again for something else.
mod tag {
    pub(super) const PROVENANCE: u8 = 1;
    pub(super) const DEVICE: u8 = 2;
    pub(super) const TOOLCHAIN: u8 = 3;
    pub(super) const COMPILE_TIME: u8 = 4;
}

impl ArtifactMetadata {
    /// Metadata that says nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the origin of the artifact: a build, a branch, a signer.
    #[must_use]
    pub fn with_provenance(mut self, provenance: impl Into<String>) -> Self {
        self.provenance = Some(provenance.into());
        self
    }

    /// Sets the device, or class of devices, on which the artifact runs.
    #[must_use]
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Sets the toolchain that made the artifact. Informational: the
    /// [`CompileScope`](crate::CompileScope) in the key tells toolchains apart.
    #[must_use]
    pub fn with_toolchain(mut self, toolchain: impl Into<String>) -> Self {
        self.toolchain = Some(toolchain.into());
        self
    }

    /// Sets how long the compile took: what a hit saves. Kept in whole nanoseconds, at most
    /// `u64::MAX` of them (584 years).
    #[must_use]
    pub fn with_compile_time(mut self, compile_time: Duration) -> Self {
        let nanos = u64::try_from(compile_time.as_nanos()).unwrap_or(u64::MAX);
        self.compile_time = Some(Duration::from_nanos(nanos));
        self
    }

    /// The origin of the artifact.
    #[must_use]
    pub fn provenance(&self) -> Option<&str> {
        self.provenance.as_deref()
    }

    /// The device, or class of devices, on which the artifact runs.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The toolchain that made the artifact.
    #[must_use]
    pub fn toolchain(&self) -> Option<&str> {
        self.toolchain.as_deref()
    }

    /// How long the compile took.
    #[must_use]
    pub const fn compile_time(&self) -> Option<Duration> {
        self.compile_time
    }

    /// The heap bytes of the texts, for budgets.
    pub(crate) fn text_bytes(&self) -> usize {
        let texts = [&self.provenance, &self.device, &self.toolchain];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        texts + self.later.len()
    }

    /// The stored form: for each field that is set, in the order of the tags, one byte of tag,
    /// the length as `u32` and the value (text, or nanoseconds as `u64`). All little-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self {
            provenance,
            device,
            toolchain,
            compile_time,
            later,
        } = self;
        let mut bytes = Vec::new();
        let mut field = |tag: u8, value: &[u8]| {
            bytes.push(tag);
            // A text of 4 GiB would wrap here; the frame refuses it long before, by its length.
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        };
        let texts = [
            (tag::PROVENANCE, provenance),
            (tag::DEVICE, device),
            (tag::TOOLCHAIN, toolchain),
        ];
        for (tag, text) in texts {
            if let Some(text) = text {
                field(tag, text.as_bytes());
            }
        }
        if let Some(compile_time) = compile_time {
            let nanos = u64::try_from(compile_time.as_nanos()).unwrap_or(u64::MAX);
            field(tag::COMPILE_TIME, &nanos.to_le_bytes());
        }
        bytes.extend_from_slice(later);
        bytes
    }

    /// Reads the stored form. Fields of unknown tag are kept as they are: a later release may have
    /// written them. `None` where the bytes are no metadata at all.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut metadata = Self::default();
        while let Some((&tag, rest)) = bytes.split_first() {
            let field = bytes;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            let text = || std::str::from_utf8(value).ok().map(str::to_owned);
            match tag {
                tag::PROVENANCE => metadata.provenance = Some(text()?),
                tag::DEVICE => metadata.device = Some(text()?),
                tag::TOOLCHAIN => metadata.toolchain = Some(text()?),
                tag::COMPILE_TIME => {
                    let nanos = u64::from_le_bytes(value.try_into().ok()?);
                    metadata.compile_time = Some(Duration::from_nanos(nanos));
                }
                _ => {
                    let len = field.len() - rest.len();
                    metadata.later.extend_from_slice(&field[..len]);
                }
            }
            bytes = rest;
        }
        Some(metadata)
    }

    /// Whether the tags of this stored form, which was decoded, ascend. Then it is what
    /// [`encode`](Self::encode) makes of it.
    pub(crate) fn is_in_order(mut bytes: &[u8]) -> bool {
        let mut last = 0;
        while let Some((&tag, rest)) = bytes.split_first() {
            let Some((length, rest)) = rest.split_first_chunk::<4>() else {
                return false;
            };
            let length = u32::from_le_bytes(*length) as usize;
            if tag <= last || length > rest.len() {
                return false;
            }
            (last, bytes) = (tag, &rest[length..]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back() {
        let metadata = ArtifactMetadata::new()
            .with_provenance("p")
            .with_device("")
            .with_toolchain("naga 30")
            .with_compile_time(Duration::from_nanos(1_234_567_891));
        assert_eq!(ArtifactMetadata::decode(&metadata.encode()), Some(metadata));
        assert_eq!(ArtifactMetadata::decode(&[]), Some(ArtifactMetadata::new()));
    }

    #[test]
    fn a_field_from_a_later_release_is_kept_as_it_is() {
        let mut bytes = ArtifactMetadata::new().with_device("d").encode();
        bytes.extend([200, 3, 0, 0, 0, b'x', b'y', b'z']);
        let metadata = ArtifactMetadata::decode(&bytes).unwrap();
        assert_eq!((metadata.device(), metadata.text_bytes()), (Some("d"), 9));
        assert_eq!(metadata.encode(), bytes);
    }

    #[test]
    fn what_is_in_order_is_encoded_as_it_was() {
        let field = |tag: u8| [tag, 1, 0, 0, 0, b'x'];
        for (tags, is_in_order) in [
            (&[][..], true),
            (&[2], true),
            (&[1, 2, 9, 200], true),
            (&[2, 1], false),
            (&[9, 2], false),
            (&[1, 1], false),
            (&[9, 9], false),
            (&[0, 1], false),
        ] {
            let bytes: Vec<_> = tags.iter().flat_map(|tag| field(*tag)).collect();
            assert_eq!(
                ArtifactMetadata::is_in_order(&bytes),
                is_in_order,
                "{tags:?}"
            );
            let decoded = ArtifactMetadata::decode(&bytes).unwrap();
            assert!(!is_in_order || decoded.encode() == bytes, "{tags:?}");
        }
        assert!(!ArtifactMetadata::is_in_order(&[1, 9, 0, 0, 0, b'x']));
    }

    #[test]
    fn no_prefix_of_metadata_is_taken_for_metadata_by_panicking() {
        let bytes = ArtifactMetadata::new()
            .with_device("sm_90")
            .with_compile_time(Duration::from_secs(1))
            .encode();
        for end in 0..bytes.len() {
            let _ = ArtifactMetadata::decode(&bytes[..end]);
        }
        assert_eq!(ArtifactMetadata::decode(&[1, 255, 255, 255, 255]), None);
        assert_eq!(ArtifactMetadata::decode(&[4, 1, 0, 0, 0, 9]), None);
        assert_eq!(ArtifactMetadata::decode(&[1, 1, 0, 0, 0, 0xff]), None);
    }
}
