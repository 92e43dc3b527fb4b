//! The metadata that an artifact must have for the tier to serve it.

use crate::artifact::ArtifactMetadata;

/// Each part that is set must be there and equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requirement {
    pub(crate) provenance: Option<String>,
    pub(crate) device: Option<String>,
}

impl Requirement {
    pub(crate) fn is_met_by(&self, metadata: &ArtifactMetadata) -> bool {
        let met = |required: &Option<String>, found: Option<&str>| {
            required.is_none() || required.as_deref() == found
        };
        met(&self.provenance, metadata.provenance()) && met(&self.device, metadata.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_must_be_there_and_equal() {
        let required = |provenance: Option<&str>, device: Option<&str>| Requirement {
            provenance: provenance.map(str::to_owned),
            device: device.map(str::to_owned),
        };
        let nothing = ArtifactMetadata::new();
        let ci = ArtifactMetadata::new().with_provenance("ci");
        let both = ci.clone().with_device("sm_90");

        for metadata in [&nothing, &ci, &both] {
            assert!(required(None, None).is_met_by(metadata));
        }
        assert!(!required(Some("ci"), None).is_met_by(&nothing));
        assert!(required(Some("ci"), None).is_met_by(&ci));
        assert!(required(Some("ci"), None).is_met_by(&both));
        assert!(!required(Some("c"), None).is_met_by(&both));
        assert!(!required(Some(""), None).is_met_by(&nothing));
        assert!(!required(Some("ci"), Some("sm_90")).is_met_by(&ci));
        assert!(required(Some("ci"), Some("sm_90")).is_met_by(&both));
        assert!(!required(None, Some("sm_80")).is_met_by(&both));
    }
}
