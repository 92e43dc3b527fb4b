//! What is known of a source, and on whose word.

use std::any::Any;
use std::sync::{Arc, Weak};

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::PipelineCacheStore;

/// What is known of a source.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) fingerprint: PipelineFingerprint,
    /// What was parsed, while a caller who waited for the parse still has it: those who come a little
    /// later need not parse again.
    pub(super) made: Weak<dyn Any + Send + Sync>,
    pub(super) signed: Option<SignedAlias>,
}

/// A signed alias, and the store that it comes from.
#[derive(Debug, Clone)]
pub(super) struct SignedAlias {
    store: Arc<dyn PipelineCacheStore>,
    alias: Artifact,
}

/// An alias that a store has.
pub(super) struct KeptAlias {
    pub(super) fingerprint: PipelineFingerprint,
    /// As its maker wrote it. A copy in another store keeps the signature.
    pub(super) stored: Artifact,
}

impl Known {
    /// What a parse in this process has shown.
    pub(super) fn parsed(
        fingerprint: PipelineFingerprint,
        made: Weak<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            fingerprint,
            made,
            signed: None,
        }
    }

    /// What a store knew.
    pub(super) fn kept(store: &Arc<dyn PipelineCacheStore>, alias: &KeptAlias) -> Self {
        let is_signed = alias.stored.signature().is_some();
        Self {
            fingerprint: alias.fingerprint,
            made: Weak::<()>::new(),
            signed: is_signed.then(|| SignedAlias {
                store: Arc::clone(store),
                alias: alias.stored.clone(),
            }),
        }
    }

    /// Whether the signer of its alias is still accepted, if it has one.
    pub(super) fn is_trusted(&self) -> bool {
        let signed = self.signed.as_ref();
        signed.is_none_or(SignedAlias::is_accepted)
    }
}

impl SignedAlias {
    pub(super) fn is_accepted(&self) -> bool {
        self.store.accepts_maker(&self.alias)
    }
}
