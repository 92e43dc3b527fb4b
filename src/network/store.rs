//! The public face of every store across a network, written once.

/// Makes a type a store: each method delegates to the method of the same name of the `NetworkTier`
/// in its field `tier`.
macro_rules! delegate_to_network_tier {
    ($store:ident) => {
        impl $store {
            /// The state of the circuit breaker of the reads: whether lookups are sent at all.
            #[must_use]
            pub fn breaker_state(&self) -> $crate::network::BreakerState {
                self.tier.breaker_state()
            }

            /// The state of the circuit breaker of the writes: whether puts and removals are sent at
            /// all. It has no part in lookups.
            #[must_use]
            pub fn write_breaker_state(&self) -> $crate::network::BreakerState {
                self.tier.write_breaker_state()
            }

            /// The state of the circuit breaker of the reads, and each change of it: for a status
            /// line.
            #[must_use]
            pub fn watch_breaker(
                &self,
            ) -> tokio::sync::watch::Receiver<$crate::network::BreakerState> {
                self.tier.watch_breaker()
            }

            /// The state of the circuit breaker of the writes, and each change of it.
            #[must_use]
            pub fn watch_write_breaker(
                &self,
            ) -> tokio::sync::watch::Receiver<$crate::network::BreakerState> {
                self.tier.watch_write_breaker()
            }

            fn require_runtime(
                &self,
                operation: $crate::store::StoreOperation,
            ) -> Result<(), $crate::store::StoreError> {
                $crate::store::runtime::require_runtime(|| self.tier.name.clone(), operation)
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::PipelineCacheStore for $store {
            async fn fetch(
                &self,
                key: &$crate::key::PipelineFingerprint,
            ) -> Result<$crate::store::Fetched, $crate::store::StoreError> {
                self.require_runtime($crate::store::StoreOperation::Get)?;
                self.tier.fetch(key).await
            }

            async fn fetch_many(
                &self,
                keys: &[$crate::key::PipelineFingerprint],
            ) -> Vec<Result<$crate::store::Fetched, $crate::store::StoreError>> {
                match self.require_runtime($crate::store::StoreOperation::GetMany) {
                    Ok(()) => self.tier.fetch_many(keys).await,
                    Err(error) => vec![Err(error); keys.len()],
                }
            }

            /// Waits until the server has the whole artifact.
            async fn put(
                &self,
                key: &$crate::key::PipelineFingerprint,
                artifact: $crate::artifact::Artifact,
            ) -> Result<(), $crate::store::StoreError> {
                self.require_runtime($crate::store::StoreOperation::Put)?;
                self.tier.put(key, artifact).await
            }

            /// Requests the head of the entry and does not verify the entry.
            async fn contains(
                &self,
                key: &$crate::key::PipelineFingerprint,
            ) -> Result<bool, $crate::store::StoreError> {
                self.require_runtime($crate::store::StoreOperation::Contains)?;
                self.tier.contains(key).await
            }

            /// Returns `true` also where the server does not say whether there was an entry.
            async fn remove(
                &self,
                key: &$crate::key::PipelineFingerprint,
            ) -> Result<bool, $crate::store::StoreError> {
                self.require_runtime($crate::store::StoreOperation::Remove)?;
                self.tier.remove(key).await
            }

            /// Returns at once: a put has waited for its upload.
            async fn flush(&self) -> Result<(), $crate::store::StoreError> {
                self.tier.flush();
                Ok(())
            }

            /// Takes no more writes, and grants no more compile leases. Lookups go on. Waits until
            /// the server knows of the leases that have ended.
            async fn close(
                &self,
                deadline: std::time::Duration,
            ) -> Result<(), $crate::store::StoreError> {
                self.tier.close(deadline).await;
                Ok(())
            }

            fn compile_leases(&self) -> Option<&dyn $crate::store::CompileLeases> {
                self.tier.compile_leases()
            }

            fn forget_miss(&self, key: &$crate::key::PipelineFingerprint) {
                self.tier.forget_miss(key);
            }

            /// In the folder `aliases` below the base.
            fn alias_stores(&self) -> Vec<std::sync::Arc<dyn $crate::store::PipelineCacheStore>> {
                let aliases = self.tier.aliases.iter().map(std::sync::Arc::clone);
                aliases
                    .map(|tier| std::sync::Arc::new(Self { tier }) as _)
                    .collect()
            }

            fn metrics(&self) -> $crate::store::PipelineCacheMetrics {
                self.tier.metrics()
            }

            fn locality(&self) -> $crate::store::Locality {
                $crate::store::Locality::Network
            }

            fn is_writable(&self) -> bool {
                self.tier.is_writable()
            }

            fn is_trusted_source(&self) -> bool {
                self.tier.promotable
            }

            fn max_artifact_bytes(&self) -> u64 {
                self.tier.backend.format.max_payload
            }

            fn accepts_maker(&self, artifact: &$crate::artifact::Artifact) -> bool {
                self.tier.backend.format.accepts_maker(artifact)
            }
        }

        impl std::fmt::Display for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.tier.name)
            }
        }
    };
}

pub(crate) use delegate_to_network_tier;
