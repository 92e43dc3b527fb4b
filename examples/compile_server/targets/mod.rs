//! What shaders are compiled to. Each target names every option of its writer in its scope.

mod bounded;
mod glsl;
mod hlsl;
mod msl;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use naga::Module;
use naga::back::spv;
use naga::valid::{Capabilities, ModuleInfo};
use pipeline_cache::key::CompileScopeError;
use pipeline_cache::key::naga::ValidatedModule;
use pipeline_cache::{CompileInput, CompileScope};
use serde::Deserialize;

use crate::naga_compiler::spirv::Spirv;
use crate::naga_compiler::{NAGA, VALIDATION};
use crate::shader::ShaderError;
use bounded::{MAX_ARTIFACT, too_long};
use glsl::Glsl;
use hlsl::Hlsl;
use msl::Msl;

/// How many targets with choices of their own are kept. Others are made anew for each request.
const KEPT: usize = 256;

/// The longest name of an entry point.
const MAX_ENTRY_BYTES: usize = 256;

/// What is compiled to, as the path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    Spirv,
    Msl,
    Hlsl,
    Glsl,
}

impl Language {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "spirv" => Some(Self::Spirv),
            "msl" => Some(Self::Msl),
            "hlsl" => Some(Self::Hlsl),
            "glsl" => Some(Self::Glsl),
            _ => None,
        }
    }

    /// What the writer can write.
    fn capabilities(self) -> Capabilities {
        match self {
            Self::Spirv => spv::supported_capabilities(),
            Self::Msl => naga::back::msl::supported_capabilities(),
            Self::Hlsl => naga::back::hlsl::supported_capabilities(),
            Self::Glsl => naga::back::glsl::supported_capabilities(),
        }
    }
}

/// What the query of a request may choose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choices {
    /// The version of the target language, in its own notation.
    pub(crate) version: Option<String>,
    /// The entry point, for GLSL, which has one a file.
    pub(crate) entry: Option<String>,
    /// Whether accesses out of bounds are caught.
    pub(crate) bounds_checks: Option<bool>,
}

/// What of a query cannot be had, for its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadChoice(pub(crate) String);

impl From<CompileScopeError> for BadChoice {
    fn from(error: CompileScopeError) -> Self {
        Self(error.to_string())
    }
}

/// A writer, and all that decides what it writes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) scope: CompileScope,
    /// What decides what a source means, and whether it is valid.
    pub(crate) front_end: String,
    pub(crate) capabilities: Capabilities,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Spirv(Box<Spirv>),
    Msl(Box<Msl>),
    Hlsl(Box<Hlsl>),
    Glsl(Box<Glsl>),
}

impl Target {
    pub(crate) fn new(language: Language, choices: &Choices) -> Result<Self, BadChoice> {
        let Choices {
            version,
            entry,
            bounds_checks,
        } = choices;
        if entry.is_some() && language != Language::Glsl {
            return Err(BadChoice(
                "entry: only GLSL has one entry point a file; the others hold all".to_owned(),
            ));
        }
        let version = version.as_deref();
        let bounds_checks = bounds_checks.unwrap_or(true);
        let (writer, scope) = match language {
            Language::Spirv => {
                let spirv =
                    Spirv::new(major_minor(version.unwrap_or("1.3"), SPIRV)?, bounds_checks);
                let scope = spirv.scope()?;
                (Writer::Spirv(Box::new(spirv)), scope)
            }
            Language::Msl => {
                let version = major_minor(version.unwrap_or("2.4"), msl::VERSIONS)?;
                let msl = Msl::new(version, bounds_checks);
                let scope = msl.scope()?;
                (Writer::Msl(Box::new(msl)), scope)
            }
            Language::Hlsl => {
                let hlsl = Hlsl::new(hlsl::shader_model(version.unwrap_or("6.0"))?, bounds_checks);
                let scope = hlsl.scope()?;
                (Writer::Hlsl(Box::new(hlsl)), scope)
            }
            Language::Glsl => {
                let version = glsl::version(version.unwrap_or("450"))?;
                let entry = match entry {
                    Some(entry) if entry.len() > MAX_ENTRY_BYTES => {
                        return Err(BadChoice(format!(
                            "entry: longer than {MAX_ENTRY_BYTES} bytes"
                        )));
                    }
                    entry => entry.clone(),
                };
                let glsl = Glsl::new(version, entry, bounds_checks);
                let scope = glsl.scope()?;
                (Writer::Glsl(Box::new(glsl)), scope)
            }
        };
        let capabilities = language.capabilities();
        Ok(Self {
            scope,
            front_end: format!("{NAGA} wgsl, validated {VALIDATION:?} with {capabilities:?}"),
            capabilities,
            writer,
        })
    }

    /// The artifact of a module.
    /// What a compile request has for its compile function.
    pub(crate) fn compile(
        &self,
        input: &CompileInput<ValidatedModule>,
    ) -> Result<Vec<u8>, ShaderError> {
        match input {
            CompileInput::Canonical(canonical) => self.write(canonical.module(), canonical.info()?),
            CompileInput::Unkeyable(program, _) | CompileInput::PassedBy(program) => {
                self.write(program.module(), program.info())
            }
        }
    }

    pub(crate) fn write(&self, module: &Module, info: &ModuleInfo) -> Result<Vec<u8>, ShaderError> {
        match &self.writer {
            Writer::Spirv(spirv) => match spirv.write(module, info) {
                Ok(code) if code.len() > MAX_ARTIFACT => Err(too_long("SPIR-V")),
                Ok(code) => Ok(code),
                Err(error) => Err(ShaderError::new(format!("{error:#}"))),
            },
            Writer::Msl(msl) => msl.write(module, info).map(String::into_bytes),
            Writer::Hlsl(hlsl) => hlsl.write(module, info).map(String::into_bytes),
            Writer::Glsl(glsl) => glsl.write(module, info).map(String::into_bytes),
        }
    }
}

const SPIRV: &[(u8, u8)] = &[(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)];

/// A version such as `1.3`, if it is one of these.
fn major_minor(text: &str, known: &[(u8, u8)]) -> Result<(u8, u8), BadChoice> {
    let named = |version: &&(u8, u8)| format!("{}.{}", version.0, version.1);
    match known.iter().find(|version| named(version) == text) {
        Some(version) => Ok(*version),
        None => Err(unknown_version(known.iter().map(|version| named(&version)))),
    }
}

fn unknown_version(known: impl Iterator<Item = impl fmt::Display>) -> BadChoice {
    let known: Vec<_> = known.map(|version| version.to_string()).collect();
    BadChoice(format!("version: none of {}", known.join(", ")))
}

/// The targets that were asked for: a scope of twenty options takes longer than a hit.
#[derive(Debug, Default)]
pub(crate) struct Targets(Mutex<HashMap<(Language, Choices), Arc<Target>>>);

impl Targets {
    pub(crate) fn get(
        &self,
        language: Language,
        choices: Choices,
    ) -> Result<Arc<Target>, BadChoice> {
        let known = |kept: &HashMap<_, _>, key| kept.get(key).map(Arc::clone);
        let key = (language, choices);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = known(&lock(), &key) {
            return Ok(target);
        }
        let target = Arc::new(Target::new(key.0, &key.1)?);
        // Names of entry points are the clients' own, and would fill the table.
        let is_common = key.1.entry.is_none();
        let mut kept = lock();
        if is_common && kept.len() < KEPT {
            kept.insert(key, Arc::clone(&target));
        }
        Ok(target)
    }
}

/// A writer's own error: it has no span, because a canonical form has none.
fn not_written(language: &str, error: impl fmt::Display) -> ShaderError {
    ShaderError::new(format!(
        "naga cannot write this module as {language}: {error}"
    ))
}
