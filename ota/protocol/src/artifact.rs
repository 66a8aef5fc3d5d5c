//! Looks into an artifact without running it: is it a component or a command, and does it import only what is granted?
//!
//! The same check runs at `sedge publish`, at the fleet and again at the node. [`GRANTED`] is the one list of what may be imported;
//! the node's linker is tested against it.

mod bounds;

use crate::assets::{self, AssetsError};
use crate::limits::ARTIFACT_BYTES_MAX;
use crate::manifest::{Access, Manifest};
use bounds::Size;
use serde::{Deserialize, Serialize};
use wasmparser::{ComponentExternalKind, Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

/// What an artifact is, and so how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A component that exports `wasi:http/incoming-handler@0.2.x`.
    Http,
    /// A component that exports `wasi:http/handler@0.3.x`.
    #[serde(rename = "http_0_3")]
    Http03,
    /// A component that exports `wasi:cli/run@0.2.x`.
    Command,
    /// A component that exports `wasi:cli/run@0.3.x`.
    #[serde(rename = "command_0_3")]
    Command03,
    /// A core module of WASI preview 1 that exports `_start`.
    CoreCommand,
}

impl Kind {
    /// Whether it is called the way of WASI 0.3.
    #[must_use]
    pub const fn is_concurrent(self) -> bool {
        match self {
            Self::Http03 | Self::Command03 => true,
            Self::Http | Self::Command | Self::CoreCommand => false,
        }
    }
}

/// Why an artifact cannot become a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Larger than is allowed.
    #[error("the artifact has {size} bytes, {max} are allowed: build with optimisation for size and without debug information")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The bound.
        max: u64,
    },
    /// More of something than any node would compile.
    #[error("{what}: {found}, and {max} are allowed; make several functions of it, or leave out what it does not need")]
    Bound {
        /// What there is too much of.
        what: &'static str,
        /// How much there is, as far as was counted.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// It would not even start within its limit.
    #[error("begins with {wanted_bytes} bytes of memory, and limits.memory_mb is {limit_mb}: raise the limit, or build it with less")]
    Memory {
        /// What a memory of it begins with.
        wanted_bytes: u64,
        /// The limit of the manifest.
        limit_mb: u32,
    },
    /// Not WebAssembly, or broken.
    #[error("not valid WebAssembly: {0}")]
    Invalid(String),
    /// Nothing the node could call.
    #[error(
        "neither a component that exports wasi:http/incoming-handler@0.2.x, wasi:http/handler@0.3.x or wasi:cli/run@0.2.x or 0.3.x, \
         nor a WASI command that exports _start; it exports {0}"
    )]
    NotAFunction(String),
    /// Imports that are not granted, all of them.
    #[error("{}", told(.0))]
    Imports(Vec<Import>),
    /// The files that travel inside it are not as they should be.
    #[error(transparent)]
    Assets(#[from] AssetsError),
}

/// An import that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// As written in the artifact.
    pub name: String,
    /// What to do about it.
    pub hint: String,
}

/// Imports that an error names.
const IMPORTS_TOLD_MAX: usize = 16;

/// One in one line; of several first all names, because where only a line is shown it must not hide the others.
fn told(imports: &[Import]) -> String {
    if let [Import { name, hint }] = imports {
        return format!("imports `{name}`, which is not granted; {hint}");
    }
    let names: Vec<String> = imports.iter().take(IMPORTS_TOLD_MAX).map(|import| format!("`{}`", import.name)).collect();
    let more = imports.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let mut hints: Vec<(&str, Vec<&str>)> = Vec::new();
    for (import, name) in imports.iter().zip(&names) {
        match hints.iter_mut().find(|(hint, _)| *hint == import.hint) {
            Some((_, of)) => of.push(name),
            None => hints.push((&import.hint, vec![name])),
        }
    }
    let lines: Vec<String> = hints.into_iter().map(|(hint, of)| format!("\n{}: {hint}", of.join(", "))).collect();
    format!("imports {}{more}, which are not granted{}", names.join(", "), lines.concat())
}

/// The interfaces a component may import: name without version, and the versions as a prefix. A component of 0.3 may import both kinds,
/// one of 0.2 those of 0.2.
pub const GRANTED: &[(&str, &str)] = &[
    ("wasi:cli/environment", "0.2."),
    ("wasi:cli/exit", "0.2."),
    ("wasi:cli/stdin", "0.2."),
    ("wasi:cli/stdout", "0.2."),
    ("wasi:cli/stderr", "0.2."),
    ("wasi:cli/terminal-input", "0.2."),
    ("wasi:cli/terminal-output", "0.2."),
    ("wasi:cli/terminal-stdin", "0.2."),
    ("wasi:cli/terminal-stdout", "0.2."),
    ("wasi:cli/terminal-stderr", "0.2."),
    ("wasi:clocks/monotonic-clock", "0.2."),
    ("wasi:clocks/wall-clock", "0.2."),
    ("wasi:random/random", "0.2."),
    ("wasi:random/insecure", "0.2."),
    ("wasi:random/insecure-seed", "0.2."),
    ("wasi:io/error", "0.2."),
    ("wasi:io/poll", "0.2."),
    ("wasi:io/streams", "0.2."),
    ("wasi:http/types", "0.2."),
    // Present because toolkits import them whether a function uses them or not; without a grant every use is refused.
    ("wasi:http/outgoing-handler", "0.2."),
    ("wasi:filesystem/types", "0.2."),
    ("wasi:filesystem/preopens", "0.2."),
    ("wasi:sockets/network", "0.2."),
    ("wasi:sockets/instance-network", "0.2."),
    ("wasi:sockets/ip-name-lookup", "0.2."),
    ("wasi:sockets/tcp", "0.2."),
    ("wasi:sockets/tcp-create-socket", "0.2."),
    ("wasi:sockets/udp", "0.2."),
    ("wasi:sockets/udp-create-socket", "0.2."),
    ("wasi:keyvalue/store", "0.2.0-draft2"),
    ("wasi:keyvalue/atomics", "0.2.0-draft2"),
    ("wasi:keyvalue/batch", "0.2.0-draft2"),
    ("wasi:blobstore/types", "0.2.0-draft"),
    ("wasi:blobstore/container", "0.2.0-draft"),
    ("wasi:blobstore/blobstore", "0.2.0-draft"),
    ("wasi:config/store", "0.2.0-rc.1"),
    ("wasi:messaging/types", "0.2.0-draft"),
    ("wasi:messaging/producer", "0.2.0-draft"),
    ("wasi:logging/logging", "0.1.0-draft"),
    ("wasi:cli/types", "0.3."),
    ("wasi:cli/environment", "0.3."),
    ("wasi:cli/exit", "0.3."),
    ("wasi:cli/stdin", "0.3."),
    ("wasi:cli/stdout", "0.3."),
    ("wasi:cli/stderr", "0.3."),
    ("wasi:cli/terminal-input", "0.3."),
    ("wasi:cli/terminal-output", "0.3."),
    ("wasi:cli/terminal-stdin", "0.3."),
    ("wasi:cli/terminal-stdout", "0.3."),
    ("wasi:cli/terminal-stderr", "0.3."),
    ("wasi:clocks/types", "0.3."),
    ("wasi:clocks/monotonic-clock", "0.3."),
    ("wasi:clocks/system-clock", "0.3."),
    ("wasi:random/random", "0.3."),
    ("wasi:random/insecure", "0.3."),
    ("wasi:random/insecure-seed", "0.3."),
    ("wasi:http/types", "0.3."),
    // As with 0.2: without a grant every use is refused.
    ("wasi:http/client", "0.3."),
    ("wasi:filesystem/types", "0.3."),
    ("wasi:filesystem/preopens", "0.3."),
    ("wasi:sockets/types", "0.3."),
    ("wasi:sockets/ip-name-lookup", "0.3."),
];

/// What a component may export to be a function, best first: if there are several, it is called by the first of these.
const CALLED: [(&str, Kind); 4] = [
    ("wasi:http/handler@0.3.", Kind::Http03),
    ("wasi:http/incoming-handler@0.2.", Kind::Http),
    ("wasi:cli/run@0.3.", Kind::Command03),
    ("wasi:cli/run@0.2.", Kind::Command),
];

/// Imports that nothing but a function's own code brings in, so they need a grant before the function is accepted: prefix of the
/// name, the grant, and the line that would give it.
const GRANTS: [(&str, Granted, &str); 3] = [
    ("wasi:keyvalue/", |access| !access.keyvalue.is_empty() || !access.keyvalue_shared.is_empty(), "keyvalue = [\"default\"]"),
    ("wasi:blobstore/", |access| !access.blobstore.is_empty(), "blobstore = [\"files\"]"),
    ("wasi:messaging/", |access| !access.publish.is_empty(), "publish = [\"topic/#\"]"),
];

/// Whether a manifest gives something.
type Granted = fn(&Access) -> bool;

/// Checks `bytes` as the artifact of a function with this manifest, and says what they are.
///
/// # Errors
/// As [`inspect`]; and the imports that the manifest does not ask for, each with the line to add.
pub fn inspect_for(bytes: &[u8], manifest: &Manifest) -> Result<Kind, ArtifactError> {
    let (kind, size) = inspect_size(bytes, Some(&manifest.access))?;
    let limit_mb = manifest.limits.memory_mb;
    if size.memory_bytes > u64::from(limit_mb) * 1024 * 1024 {
        return Err(ArtifactError::Memory { wanted_bytes: size.memory_bytes, limit_mb });
    }
    Ok(kind)
}

/// Checks `bytes` and says what they are.
///
/// # Errors
/// The first rule that is broken; of imports that are not granted all.
pub fn inspect(bytes: &[u8]) -> Result<Kind, ArtifactError> {
    inspect_size(bytes, None).map(|(kind, _)| kind)
}

/// What of WebAssembly nodes compile: what is standard and on by default, but for what needs a garbage collector, and 64-bit memories.
fn features() -> WasmFeatures {
    WasmFeatures::default().difference(
        WasmFeatures::GC | WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS | WasmFeatures::LEGACY_EXCEPTIONS | WasmFeatures::MEMORY64,
    )
}

/// `access` is what the manifest asks for, where there is one.
fn inspect_size(bytes: &[u8], access: Option<&Access>) -> Result<(Kind, Size), ArtifactError> {
    let size = bytes.len() as u64;
    if size > ARTIFACT_BYTES_MAX {
        return Err(ArtifactError::TooLarge { size, max: ARTIFACT_BYTES_MAX });
    }
    let invalid = |cause: wasmparser::BinaryReaderError| ArtifactError::Invalid(cause.to_string());
    if !bytes.starts_with(b"\0asm") {
        return Err(ArtifactError::Invalid("the file does not begin with \\0asm".to_owned()));
    }
    let parts = Size::of(bytes)?;
    Validator::new_with_features(features()).validate_all(bytes).map_err(invalid)?;
    assets::read(bytes)?;
    let seen = Seen::of(bytes).map_err(invalid)?;
    let refused: Vec<Import> = seen.imports.iter().filter_map(|name| seen.refusal(name, access)).collect();
    if !refused.is_empty() {
        return Err(ArtifactError::Imports(refused));
    }
    let kind = if seen.component { seen.component_kind() } else { seen.module_kind() }?;
    Ok((kind, parts))
}

/// Imports and exports of the outermost component or module.
struct Seen {
    component: bool,
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Seen {
    fn of(bytes: &[u8]) -> Result<Self, wasmparser::BinaryReaderError> {
        let mut seen = Self { component: false, imports: Vec::new(), exports: Vec::new() };
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    seen.component |= depth == 0 && encoding == Encoding::Component;
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        seen.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let export = export?;
                        if export.kind == ComponentExternalKind::Instance {
                            seen.exports.push(export.name.name.to_owned());
                        }
                    }
                }
                Payload::ImportSection(section) if depth == 1 && !seen.component => {
                    for import in section.into_imports() {
                        let import = import?;
                        seen.imports.push(format!("{}.{}", import.module, import.name));
                    }
                }
                Payload::ExportSection(section) if depth == 1 && !seen.component => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            seen.exports.push(export.name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Why `name` may not be imported, if it may not.
    fn refusal(&self, name: &str, access: Option<&Access>) -> Option<Import> {
        let hint = if !self.component {
            let preview_1 = name.starts_with("wasi_snapshot_preview1.");
            (!preview_1).then(|| "a core module may import only wasi_snapshot_preview1".to_owned())
        } else if is_granted(name) {
            let missing = |access: &Access| GRANTS.iter().find(|(prefix, granted, _)| name.starts_with(prefix) && !granted(access));
            access.and_then(missing).map(|(_, _, line)| format!("add `{line}` under [access] in function.toml"))
        } else {
            Some(hint(name))
        };
        hint.map(|hint| Import { name: name.to_owned(), hint })
    }

    fn component_kind(&self) -> Result<Kind, ArtifactError> {
        let called = CALLED.iter().find(|(prefix, _)| self.exports.iter().any(|name| name.starts_with(prefix)));
        let kind = called.map(|(_, kind)| *kind).ok_or_else(|| self.not_a_function())?;
        match self.imports.iter().find(|import| import.contains("@0.3.")) {
            // Such a component would need the streams of 0.3 to be called with, and is not called that way.
            Some(import) if !kind.is_concurrent() => Err(ArtifactError::Imports(vec![Import {
                name: import.clone(),
                hint: "a component that imports WASI 0.3 must also export wasi:http/handler or wasi:cli/run of 0.3".to_owned(),
            }])),
            _ => Ok(kind),
        }
    }

    fn module_kind(&self) -> Result<Kind, ArtifactError> {
        if self.exports.iter().any(|name| name == "_start") { Ok(Kind::CoreCommand) } else { Err(self.not_a_function()) }
    }

    fn not_a_function(&self) -> ArtifactError {
        let mut names: Vec<&str> = self.exports.iter().take(8).map(String::as_str).collect();
        if names.is_empty() {
            names.push("nothing");
        }
        ArtifactError::NotAFunction(names.join(", "))
    }
}

fn is_granted(import: &str) -> bool {
    let Some((name, version)) = import.split_once('@') else { return false };
    GRANTED.iter().any(|(granted, prefix)| name == *granted && version.starts_with(prefix))
}

fn hint(import: &str) -> String {
    let name = import.split_once('@').map_or(import, |(name, _)| name);
    let versions: Vec<String> = GRANTED
        .iter()
        .filter(|(granted, _)| *granted == name)
        .map(|(_, version)| format!("{version}{}", if version.ends_with('.') { "x" } else { "" }))
        .collect();
    if !versions.is_empty() {
        return format!("this node has version {}", versions.join(" and "));
    }
    if name == "wasi:http/handler" {
        return "no other component stands behind a function; requests go out through wasi:http/client".to_owned();
    }
    "remove the import; docs/functions.md lists what a function may use".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> Result<Kind, ArtifactError> {
        inspect(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn what_no_node_compiles_is_refused_and_simd_is_not() {
        let module = |text: &str| inspect(&wat::parse_str(format!(r#"(module {text} (func (export "_start")))"#)).unwrap());
        assert_eq!(module("(func (drop (v128.const i64x2 0 0)))"), Ok(Kind::CoreCommand));
        assert_eq!(module("(table 1 funcref)"), Ok(Kind::CoreCommand));
        for text in ["(memory i64 1)", "(type (struct))", "(tag)", "(table 1 externref)"] {
            assert!(matches!(module(text), Err(ArtifactError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_module_with_start_is_a_command() {
        assert_eq!(kind_of(r#"(module (func (export "_start")))"#), Ok(Kind::CoreCommand));
    }

    #[test]
    fn imports_outside_the_list_are_named() {
        let fault = kind_of(r#"(module (import "env" "steal" (func)) (func (export "_start")))"#).unwrap_err();
        assert!(fault.to_string().contains("`env.steal`"), "{fault}");
        let fault = kind_of(r#"(component (import "wasi:tls/types@0.2.0" (instance)))"#).unwrap_err();
        assert!(fault.to_string().contains("`wasi:tls/types@0.2.0`"), "{fault}");
    }

    #[test]
    fn an_import_that_the_manifest_did_not_ask_for_is_refused_with_the_line_to_add() {
        let component = |import: &str| {
            wat::parse_str(format!(
                r#"(component (import "{import}" (instance))
                    (core module $m (func (export "run") (result i32) (i32.const 0))) (core instance $i (instantiate $m))
                    (func $run (result (result)) (canon lift (core func $i "run")))
                    (instance $run (export "run" (func $run))) (export "wasi:cli/run@0.2.0" (instance $run)))"#
            ))
            .unwrap()
        };
        let manifest = |access: &str| Manifest::from_toml("f", &format!("name = 'f'\n[access]\n{access}")).unwrap().0;
        for (import, line) in [
            ("wasi:keyvalue/store@0.2.0-draft2", "keyvalue = [\"default\"]"),
            ("wasi:keyvalue/atomics@0.2.0-draft2", "keyvalue_shared = [\"plant\"]"),
            ("wasi:blobstore/container@0.2.0-draft", "blobstore = [\"files\"]"),
            ("wasi:messaging/producer@0.2.0-draft", "publish = [\"topic/#\"]"),
        ] {
            let bytes = component(import);
            let fault = inspect_for(&bytes, &manifest("")).unwrap_err().to_string();
            let hint = format!("add `{}` under [access] in function.toml", line.replace("_shared = [\"plant", " = [\"default"));
            assert!(fault.contains(&format!("imports `{import}`")) && fault.contains(&hint), "{fault}");
            assert_eq!(inspect_for(&bytes, &manifest(line)), Ok(Kind::Command), "{line}");
        }
        let both = wat::parse_str(
            r#"(component (import "wasi:keyvalue/store@0.2.0-draft2" (instance)) (import "wasi:tls/types@0.2.0" (instance))
                (import "wasi:messaging/producer@0.2.0-draft" (instance)) (import "wasi:keyvalue/batch@0.2.0-draft2" (instance)))"#,
        );
        assert_eq!(
            inspect_for(&both.unwrap(), &manifest("")).unwrap_err().to_string(),
            "imports `wasi:keyvalue/store@0.2.0-draft2`, `wasi:tls/types@0.2.0`, `wasi:messaging/producer@0.2.0-draft`, \
             `wasi:keyvalue/batch@0.2.0-draft2`, which are not granted\n\
             `wasi:keyvalue/store@0.2.0-draft2`, `wasi:keyvalue/batch@0.2.0-draft2`: add `keyvalue = [\"default\"]` under [access] in function.toml\n\
             `wasi:tls/types@0.2.0`: remove the import; docs/functions.md lists what a function may use\n\
             `wasi:messaging/producer@0.2.0-draft`: add `publish = [\"topic/#\"]` under [access] in function.toml"
        );
        for import in ["wasi:http/outgoing-handler@0.2.3", "wasi:sockets/tcp@0.2.0", "wasi:config/store@0.2.0-rc.1"] {
            assert_eq!(inspect_for(&component(import), &manifest("")), Ok(Kind::Command), "{import}");
        }
    }

    /// A component with this import and an instance exported under this name.
    fn instance(import: &str, export: &str) -> String {
        format!(r#"(component (import "{import}" (instance)) (instance $i) (export "{export}" (instance $i)))"#)
    }

    #[test]
    fn components_of_03_are_told_by_what_they_export() {
        for (export, expected) in [
            ("wasi:http/handler@0.3.0", Kind::Http03),
            ("wasi:http/handler@0.3.2", Kind::Http03),
            ("wasi:cli/run@0.3.0", Kind::Command03),
            ("wasi:http/incoming-handler@0.2.8", Kind::Http),
        ] {
            assert_eq!(kind_of(&instance("wasi:config/store@0.2.0-rc.1", export)), Ok(expected), "{export}");
        }
        for import in ["wasi:http/client@0.3.1", "wasi:sockets/types@0.3.0", "wasi:clocks/system-clock@0.3.0", "wasi:cli/stdin@0.2.0"] {
            assert_eq!(kind_of(&instance(import, "wasi:http/handler@0.3.0")), Ok(Kind::Http03), "{import}");
        }
        assert!(matches!(kind_of(&instance("wasi:cli/stdin@0.2.0", "wasi:http/handler@0.4.0")), Err(ArtifactError::NotAFunction(_))));
    }

    #[test]
    fn what_is_not_granted_of_03_is_named() {
        let check = |import: &str, export: &str, hint: &str| {
            let fault = kind_of(&instance(import, export)).unwrap_err().to_string();
            assert!(fault.contains(&format!("imports `{import}`")) && fault.contains(hint), "{fault}");
        };
        check("wasi:http/handler@0.3.0", "wasi:http/handler@0.3.0", "requests go out through wasi:http/client");
        check("wasi:http/types@0.4.0", "wasi:http/handler@0.3.0", "this node has version 0.2.x and 0.3.x");
        check("wasi:keyvalue/store@0.3.0", "wasi:http/handler@0.3.0", "this node has version 0.2.0-draft2");
        check("wasi:http/client@0.3.0", "wasi:http/incoming-handler@0.2.0", "must also export wasi:http/handler or wasi:cli/run of 0.3");
    }

    #[test]
    fn what_exports_nothing_callable_is_refused() {
        assert!(matches!(kind_of("(component)"), Err(ArtifactError::NotAFunction(_))));
        assert!(matches!(kind_of("(module)"), Err(ArtifactError::NotAFunction(_))));
        assert!(matches!(inspect(b"#!/bin/sh"), Err(ArtifactError::Invalid(_))));
        assert!(matches!(inspect(b"\0asm\x01\0\0"), Err(ArtifactError::Invalid(_))));
    }

    #[test]
    fn assets_that_lead_elsewhere_are_refused_with_the_artifact() {
        let fault = kind_of(r#"(module (func (export "_start")) (@custom "sedge:assets" "no tar"))"#).unwrap_err();
        assert!(matches!(fault, ArtifactError::Assets(AssetsError::Damaged(_))), "{fault}");
    }

    #[test]
    fn size_is_checked_first() {
        let large = vec![0; usize::try_from(ARTIFACT_BYTES_MAX).unwrap() + 1];
        assert!(matches!(inspect(&large), Err(ArtifactError::TooLarge { .. })));
    }
}
