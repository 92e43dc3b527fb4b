//! What a later release wrote is a miss for this one, counted as refused, and stays as it is.

mod folder;
#[cfg(any(
    feature = "remote-cache",
    feature = "object-store",
    all(feature = "redis", unix)
))]
mod remote;
mod whole_files;

use pipeline_cache::{Artifact, PipelineFingerprint};

pub(crate) fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn artifact() -> Artifact {
    Artifact::new("what the compiler makes of it")
}

/// What every version has in common: the magic, and a check of the bytes before it.
fn check(frame: &mut [u8]) {
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
}

/// Frames of this key as later releases may write them, with what is new in each.
pub(crate) fn frames(key: &PipelineFingerprint) -> Vec<(&'static str, Vec<u8>)> {
    let today = artifact().to_frame(key, None).unwrap().to_vec();
    let changed = |what, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = today.clone();
        change(&mut frame);
        check(&mut frame);
        (what, frame)
    };
    vec![
        changed("the next version", &|frame| frame[8] = 2),
        changed("a far version", &|frame| frame[8..10].fill(0xff)),
        changed("a new flag, such as a compression", &|frame| {
            frame[10] |= 0x10
        }),
        changed("another flag", &|frame| frame[11] |= 0x80),
        changed("a longer header", &|frame| {
            frame[8] = 2;
            frame.splice(112..112, [0xee; 64]);
        }),
        changed("other fields", &|frame| {
            frame[8] = 2;
            frame[12..104].fill(0xdd);
        }),
        changed("hardly more than a check", &|frame| {
            frame[8] = 2;
            frame.truncate(144);
        }),
    ]
}
