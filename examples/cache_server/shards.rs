//! The folders that blobs are spread over, and the blobs in them.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folders that blobs are spread over.
pub(crate) fn shards(root: &Path) -> impl Iterator<Item = PathBuf> {
    (0..=u8::MAX).map(move |shard| root.join(format!("{shard:02x}")))
}

/// The bytes of all blobs.
pub(crate) fn held(root: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    each(root, |_, _, length| {
        bytes += length;
        Ok(())
    })?;
    Ok(bytes)
}

/// Looks at all blobs that can be looked at. The first failure is told once all have been.
pub(crate) fn each(
    root: &Path,
    mut look: impl FnMut(&DirEntry, SystemTime, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut told = Ok(());
    for shard in shards(root) {
        let blobs = match fs::read_dir(shard) {
            Ok(blobs) => blobs,
            // A cleaner has removed the empty folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                told = told.and(Err(error));
                continue;
            }
        };
        for blob in blobs {
            let looked = blob.and_then(|blob| {
                let metadata = blob.metadata()?;
                match metadata.is_file() {
                    true => look(&blob, metadata.modified()?, metadata.len()),
                    false => Ok(()),
                }
            });
            match looked {
                // One that is gone meanwhile is of no more interest.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    told = told.and(Err(error));
                }
                _ => {}
            }
        }
    }
    told
}
