//! Artifacts that their makers sign, so that readers need no secret. To sign and to verify needs the
//! feature `signatures`; without it signatures are kept.
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
//! # What each tier demands
//!
//! | tier | plain | shared secret | signed |
//! |---|---|---|---|
//! | [`RemoteCache`](crate::RemoteCache), [`ObjectStoreCache`](crate::ObjectStoreCache), [`RedisCache`](crate::RedisCache) | [`Trust::Server`](crate::Trust::Server), the default | [`Trust::Authenticated`](crate::Trust::Authenticated) | [`Trust::Signed`](crate::Trust::Signed) |
//! | [`DiskCache`](crate::DiskCache) | the default | [`trusted_keys`](crate::DiskCacheBuilder::trusted_keys) | [`trusted_signers`](crate::DiskCacheBuilder::trusted_signers), alone or with a secret |
//! | [`InMemoryPipelineCache`](crate::InMemoryPipelineCache) | the default | | [`trusting`](crate::InMemoryPipelineCache::trusting): of what is signed |
//!
//! The source aliases in a tier are held to the same. A cache is as safe as the tier that demands least:
//! what a plain tier serves is served, and promoted to the tiers that would serve it as well.
//!
//! # Revocation
//!
//! [`revoke`](TrustedSigners::revoke) reaches every tier that has a handle to the set, and source
//! aliases that were read from one. It does not reach the copies in a plain tier. So give the set to the
//! memory tier and to the folder, too. A machine that compiles for itself keeps what it compiles by a key
//! of its own, 32 random bytes, which its own folder accepts and nobody else:
//!
#![cfg_attr(feature = "signatures", doc = "```")]
#![cfg_attr(not(feature = "signatures"), doc = "```ignore")]
//! use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
//! use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let team = Signer::parse_list("ci main d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")?;
//! let own = SigningKey::from_seed([7; 32]); // random bytes, kept on this machine
//! let myself = Signer::new("this machine", "main", own.public_key());
//! let here = TrustedSigners::new(team.into_iter().chain([myself]));
//! let cache = LayeredPipelineCache::builder()
//!     .tier(InMemoryPipelineCache::new().trusting(here.clone()))
//!     .tier(DiskCache::builder().trusted_signers(here).root(folder.path()).open().await?)
//!     .signing_key(own)
//!     .build();
//! # Ok(())
//! # }
//! ```

pub use crate::artifact::{ArtifactSignature, PublicKey, PublicKeyError};
#[cfg(feature = "signatures")]
pub use crate::artifact::{Signer, SignersError, SigningKey, TrustedSigners};
