//! Shader modules: canonical form and key of `naga::Module`.
