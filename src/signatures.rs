//! Artifacts that their makers sign, so that readers need no secret.
//!
//! A [`SharedSecret`](crate::SharedSecret) proves that somebody who has it made an artifact, and every
//! reader has it. A signature proves who did: the builds of one branch, say, have a [`SigningKey`], and
//! all readers have its [`PublicKey`]. A reader cannot make an artifact for others, and a build of a
//! branch cannot make one for the main branch.
//!
//! - The layered cache of a build signs what it compiles:
//!   [`signing_key`](crate::LayeredPipelineCacheBuilder::signing_key).
//! - A tier that demands signatures has a set of [`TrustedSigners`]:
//!   [`Trust::Signed`](crate::Trust::Signed) for a network tier,
//!   [`trusted_signers`](crate::DiskCacheBuilder::trusted_signers) for a folder.
//! - A signature stays with its artifact in every tier, and with
//!   [source aliases](crate::SourceAliases::signed_by) as well.
//!
//! The feature `signatures` makes and verifies them. Without it they are kept.

pub use crate::artifact::{ArtifactSignature, PublicKey, PublicKeyError};
#[cfg(feature = "signatures")]
pub use crate::artifact::{Signer, SignersError, SigningKey, TrustedSigners};
