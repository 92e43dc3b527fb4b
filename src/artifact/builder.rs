//! Makes an artifact of named parts.

use bytes::Bytes;
use std::fmt;

use super::parts::{PartsError, join};
use super::{Artifact, ArtifactMetadata};
use crate::sync::blocking;

impl Artifact {
    /// Starts an artifact of named parts, for a compiler that makes more than one thing: code,
    /// reflection, warnings, a dependency file. Whoever hits the artifact has all of them.
    ///
    /// At most 64 parts. A name is unique and has 1 to 64 ASCII letters, digits, `-`, `_` and `.`, with
    /// a letter or a digit first. The order in which parts are given means nothing.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache, OpaqueProgram,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .build();
    /// let program = OpaqueProgram::new("text", "let unused = 1;");
    /// let scope = CompileScope::new("example 1.0", "any")?;
    ///
    /// // Warnings are printed each time, also when nothing is compiled.
    /// for _ in 0..2 {
    ///     let compiled = cache
    ///         .get_or_compile(&program, &scope, |_input, _scope| async {
    ///             Artifact::builder()
    ///                 .part("code", vec![0x90])
    ///                 .part("warnings", "line 1: `unused` is never read")
    ///                 .hash()
    ///                 .await
    ///         })
    ///         .await?;
    ///     if let Some(warnings) = compiled.artifact.part("warnings") {
    ///         eprintln!("{}", String::from_utf8_lossy(&warnings));
    ///     }
    ///     # assert!(compiled.artifact.part("warnings").is_some());
    ///     let code = compiled.artifact.part("code").ok_or("no code")?;
    ///     assert_eq!(code[..], [0x90]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ArtifactBuilder {
        ArtifactBuilder::default()
    }
}

/// Makes an artifact of named parts. [`Artifact::builder`] has an example within a cache.
///
/// ```
/// use pipeline_cache::{Artifact, ArtifactMetadata, PartsError};
///
/// let artifact = Artifact::builder()
///     .part("warnings", "line 1: `unused` is never read")
///     .part("code", vec![0x90])
///     .metadata(ArtifactMetadata::new().with_device("sm_90"))
///     .build()?;
/// assert!(artifact.has_parts());
/// let names: Vec<_> = artifact.parts().map(|(name, _)| name).collect();
/// assert_eq!(names, ["code", "warnings"]);
/// assert_eq!(artifact.metadata().device(), Some("sm_90"));
/// # Ok::<(), PartsError>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "nothing is made before `build` or `hash`"]
pub struct ArtifactBuilder {
    parts: Vec<(String, Bytes)>,
    metadata: ArtifactMetadata,
}

impl ArtifactBuilder {
    /// Adds a part. Names and number are checked when the artifact is built.
    pub fn part(mut self, name: impl Into<String>, part: impl Into<Bytes>) -> Self {
        self.parts.push((name.into(), part.into()));
        self
    }

    /// Sets the metadata. By default it says nothing.
    pub fn metadata(mut self, metadata: ArtifactMetadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Makes the artifact. Copies the parts into one payload and hashes it on the calling thread. On a
    /// runtime worker use [`hash`](Self::hash) for more than 64 KiB.
    ///
    /// # Errors
    ///
    /// [`PartsError`] where a name is bad or not unique, or where the parts are too many or too large
    /// for the memory. What a tier accepts at most is checked when the artifact is stored.
    pub fn build(self) -> Result<Artifact, PartsError> {
        let payload = join(self.parts)?;
        let digest = *blake3::hash(&payload).as_bytes();
        Ok(Artifact::from_verified(
            payload,
            digest,
            self.metadata,
            true,
            None,
        ))
    }

    /// Makes the artifact as [`build`](Self::build) does, on the blocking pool when the parts have more
    /// than 64 KiB and inline when they have not.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the parts; nothing else was touched.
    pub async fn hash(self) -> Result<Artifact, PartsError> {
        let sizes = self.parts.iter().map(|(_, part)| part.len());
        let size = sizes.fold(0, usize::saturating_add);
        blocking::run(size, move || self.build()).await
    }
}

impl fmt::Debug for ArtifactBuilder {
    /// A part is shown by its name and length, never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.parts.iter().map(|(name, part)| (name, part.len()));
        f.debug_struct("ArtifactBuilder")
            .field("parts", &lengths.collect::<Vec<_>>())
            .field("metadata", &self.metadata)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Artifact, PartsError> {
        let with = |builder: ArtifactBuilder, name: &&str| builder.part(*name, "x");
        names.iter().fold(Artifact::builder(), with).build()
    }

    #[test]
    fn parts_come_back_in_the_order_of_their_names_without_a_copy() {
        let artifact = Artifact::builder()
            .part("warnings", "line 1")
            .part("code", vec![1, 2, 3])
            .part("empty", "")
            .metadata(ArtifactMetadata::new().with_device("d"))
            .build()
            .unwrap();
        let parts: Vec<_> = artifact.parts().collect();
        let expected = [
            ("code", Bytes::from(vec![1, 2, 3])),
            ("empty", Bytes::new()),
            ("warnings", Bytes::from("line 1")),
        ];
        assert_eq!(parts, expected);
        assert_eq!(artifact.metadata().device(), Some("d"));
        assert_eq!(artifact.part("code").unwrap(), vec![1, 2, 3]);
        assert_eq!(artifact.part("Code"), None);
        assert_eq!(artifact.part(""), None);
        let whole = artifact.payload().as_ptr_range();
        assert!(
            parts
                .iter()
                .all(|(_, part)| part.is_empty() || whole.contains(&part.as_ptr()))
        );
        assert_eq!(artifact.len(), artifact.payload().len());
        assert_eq!(
            artifact.digest(),
            blake3::hash(artifact.payload()).as_bytes()
        );
    }

    #[test]
    fn equality_is_that_of_names_and_contents() {
        let build = |parts: &[(&'static str, &'static str)]| {
            let with = |builder: ArtifactBuilder, part: &(&'static str, &'static str)| {
                builder.part(part.0, part.1)
            };
            parts
                .iter()
                .fold(Artifact::builder(), with)
                .build()
                .unwrap()
        };
        let artifact = build(&[("a", "12"), ("b", "3")]);
        assert_eq!(artifact, build(&[("b", "3"), ("a", "12")]));
        for other in [
            build(&[("a", "1"), ("b", "23")]),
            build(&[("a", "12"), ("c", "3")]),
            build(&[("a", "12"), ("b", "4")]),
            build(&[("a", "123")]),
            build(&[]),
        ] {
            assert_ne!(artifact, other);
            assert_ne!(artifact.digest(), other.digest());
        }
        // The same bytes, and another meaning.
        let plain = Artifact::new(artifact.payload().clone());
        assert_ne!(artifact, plain);
        assert!(!plain.has_parts() && plain.parts().next().is_none() && plain.part("a").is_none());
    }

    #[test]
    fn names_and_numbers_are_bounded() {
        let longest = "n".repeat(64);
        assert!(of(&["code", "main.d", "a-b_c.9", "0", &longest]).is_ok());
        let too_long = "n".repeat(65);
        for name in [
            "", ".hidden", "-o", "../up", "a/b", "a b", "a\n", "é", "a\0", &too_long,
        ] {
            let error = of(&["code", name]).unwrap_err();
            assert!(matches!(error, PartsError::BadName(_)), "{name:?}: {error}");
        }
        let endless = "é".repeat(1 << 20);
        assert!(of(&[&endless]).unwrap_err().to_string().len() < 400);
        assert_eq!(
            of(&["a", "b", "a"]),
            Err(PartsError::DuplicateName("a".into()))
        );

        let names: Vec<_> = (0..65).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(of(&names), Err(PartsError::TooMany(65)));
        assert_eq!(of(&names[..64]).unwrap().parts().count(), 64);
    }

    #[test]
    fn no_content_is_printed() {
        let builder = Artifact::builder().part("warnings", "hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        let printed = format!("{:?}", builder.build().unwrap());
        assert!(printed.contains(r#"{"warnings": 7}"#), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
