//! Text that a writer may not make longer than a bound.

use std::fmt;

use super::not_written;
use crate::shader::ShaderError;

/// The most bytes of one artifact. A few words of source can ask for gigabytes: GLSL spells out the
/// zeros of an array.
pub(super) const MAX_ARTIFACT: usize = 16 << 20;

/// Takes text up to [`MAX_ARTIFACT`]. What would be longer is refused, which ends the writer.
#[derive(Debug, Default)]
pub(super) struct BoundedText {
    text: String,
    is_over: bool,
}

impl BoundedText {
    /// What was written, if the writer came to its end.
    pub(super) fn finish(
        self,
        language: &str,
        written: Result<(), impl fmt::Display>,
    ) -> Result<String, ShaderError> {
        if self.is_over {
            return Err(too_long(language));
        }
        written.map_err(|error| not_written(language, error))?;
        Ok(self.text)
    }
}

impl fmt::Write for BoundedText {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.is_over |= self.text.len() + more.len() > MAX_ARTIFACT;
        if self.is_over {
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}

pub(super) fn too_long(language: &str) -> ShaderError {
    let reason = format_args!("it would have more than {} MiB", MAX_ARTIFACT >> 20);
    not_written(language, reason)
}
