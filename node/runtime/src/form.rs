//! What an artifact is to the compiler, and how a core module becomes a component.
//!
//! Preview 1 knows only files of the system. A module that asks for a scratch directory is therefore put into a component, with the
//! adapter that everybody uses for that (it speaks preview 1 to the module and 0.2 to the host), and then is like any other command.

use sedge_protocol::Manifest;
use sedge_protocol::artifact::Kind;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use wasi_preview1_component_adapter_provider::{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER};
use wit_component::ComponentEncoder;

/// What is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A component.
    Component,
    /// A core module.
    Module,
    /// A core module that becomes a component first.
    Adapted,
}

/// No such form.
#[derive(Debug, thiserror::Error)]
#[error("neither component, module nor adapted")]
pub struct FormError;

impl Form {
    const ALL: [Self; 3] = [Self::Component, Self::Module, Self::Adapted];

    /// What an artifact of this kind is with this manifest.
    pub(crate) const fn of(kind: Kind, manifest: &Manifest) -> Self {
        match kind {
            Kind::Http | Kind::Http03 | Kind::Command | Kind::Command03 => Self::Component,
            Kind::CoreCommand if manifest.access.scratch_mb > 0 => Self::Adapted,
            Kind::CoreCommand => Self::Module,
        }
    }

    /// What stands behind the digest in the name of a compiled file; empty where the digest says enough.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Component | Self::Module => "",
            Self::Adapted => "-adapted",
        }
    }

    /// The bytes that the compiler gets of an artifact.
    pub(crate) fn wasm(self, artifact: &[u8]) -> wasmtime::Result<Cow<'_, [u8]>> {
        match self {
            Self::Component | Self::Module => Ok(artifact.into()),
            Self::Adapted => adapt(artifact).map(Cow::Owned),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Module => "module",
            Self::Adapted => "adapted",
        })
    }
}

impl FromStr for Form {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        Self::ALL.into_iter().find(|form| form.to_string() == text).ok_or(FormError)
    }
}

fn adapt(module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER))
        .and_then(|encoder| encoder.encode());
    component.map_err(|cause| {
        wasmtime::Error::msg(format!(
            "access.scratch_mb needs the module as a component, and it cannot become one: {cause:#}; build it as a component, or take the \
             line out"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::artifact::inspect;

    #[test]
    fn a_module_becomes_a_command_that_imports_only_what_is_granted() {
        let module = wat::parse_str(
            r#"(module (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 1) (func (export "_start")))"#,
        )
        .unwrap();
        assert_eq!(inspect(&Form::Adapted.wasm(&module).unwrap()), Ok(Kind::Command));
        assert_eq!(*Form::Module.wasm(&module).unwrap(), *module);
    }

    #[test]
    fn what_cannot_become_a_component_is_told_what_to_do() {
        let module = wat::parse_str(r#"(module (func (export "_start") (param i32)))"#).unwrap();
        let fault = Form::Adapted.wasm(&module).unwrap_err().to_string();
        assert!(fault.starts_with("access.scratch_mb needs the module as a component") && fault.ends_with("take the line out"), "{fault}");
    }

    #[test]
    fn forms_have_names() {
        for form in Form::ALL {
            assert_eq!(form.to_string().parse::<Form>().unwrap(), form);
        }
        assert!("core".parse::<Form>().is_err());
    }
}
