//! Payloads in fewer bytes.
//!
//! What comes out is bounded twice: by the length that the header declares, which is checked
//! against the tier's limit before anything is unpacked, and by what really comes out, which may
//! not be a byte more. The buffer grows with what has come.

use std::io::Read as _;

#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
/// When and how a tier compresses what it writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compression {
    level: i32,
    min_bytes: u64,
}

/// The largest window a frame may ask for, as a power of two: that of the highest level here.
const MAX_WINDOW_LOG: u32 = 23;
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
const MAX_LEVEL: i32 = 19;

#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
impl Compression {
    pub(crate) fn new(level: i32, min_bytes: u64) -> Self {
        Self {
            level: level.clamp(1, MAX_LEVEL),
            min_bytes,
        }
    }

    pub(super) const fn pays_for(self, bytes: usize) -> bool {
        bytes as u64 >= self.min_bytes
    }

    /// The compressed payload; `None` where that is no shorter.
    pub(super) fn compress(self, payload: &[u8]) -> Option<Vec<u8>> {
        let compressed = zstd::bulk::compress(payload, self.level).ok()?;
        (compressed.len() < payload.len()).then_some(compressed)
    }
}

/// The payload of exactly this length; `None` where it is none, or of another.
pub(super) fn decompress(stored: &[u8], length: u64) -> Option<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).ok()?;
    decoder.window_log_max(MAX_WINDOW_LOG).ok()?;
    let mut payload = Vec::new();
    let limited = decoder.take(length.saturating_add(1));
    { limited }.read_to_end(&mut payload).ok()?;
    payload.shrink_to_fit();
    (payload.len() as u64 == length).then_some(payload)
}

#[cfg(all(
    test,
    any(feature = "remote-cache", feature = "object-store", feature = "redis")
))]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_is_left_as_it_is() {
        let compression = Compression::new(3, 10);
        assert!(compression.pays_for(10) && !compression.pays_for(9));
        assert_eq!(compression.compress(b"0123456789"), None);
        let zeros = vec![0; 100_000];
        let stored = compression.compress(&zeros).unwrap();
        assert!(stored.len() < 100);
        assert_eq!(decompress(&stored, 100_000), Some(zeros));
    }

    #[test]
    fn nothing_comes_out_but_what_was_declared() {
        let bomb = Compression::new(19, 0)
            .compress(&vec![0; 64 << 20])
            .unwrap();
        assert!(bomb.len() < 64 << 10);
        for declared in [0, 1, 1000, (64 << 20) - 1, (64 << 20) + 1] {
            assert_eq!(decompress(&bomb, declared), None, "{declared}");
        }
        assert_eq!(decompress(b"no zstd", 7), None);
        assert_eq!(decompress(b"", 7), None);
        assert_eq!(decompress(&bomb[..bomb.len() / 2], 64 << 20), None);
    }

    #[test]
    fn every_level_is_read_back() {
        let payload: Vec<u8> = (0..200_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for level in [i32::MIN, 1, 3, 12, 19, i32::MAX] {
            let stored = Compression::new(level, 0).compress(&payload).unwrap();
            let length = payload.len() as u64;
            assert!(
                decompress(&stored, length).as_ref() == Some(&payload),
                "{level}"
            );
        }
    }
}
