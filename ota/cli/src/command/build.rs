//! `sedge build`

use crate::arguments::Context;
use crate::project;
use crate::table::{Cell, facts};
use crate::text;
use clap::Args;
use sedge_protocol::artifact::Kind;
use sedge_protocol::{Digest, FunctionName};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Build a function and check that it could be published
///
/// The project's `function.toml` may name a build command; without one a Rust project is built by cargo. The standard library
/// for Wasm is found, added by rustup, or made, whichever works first.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Directory with a `function.toml`
    #[arg(default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct Built<'a> {
    function: &'a FunctionName,
    artifact: PathBuf,
    digest: Digest,
    size: u64,
    kind: Kind,
}

impl Build {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let artifact = project::load(&self.dir, None, &context.output)?;
        let built = Built {
            function: &artifact.manifest.name,
            artifact: artifact.path.clone(),
            digest: artifact.digest,
            size: artifact.size(),
            kind: artifact.kind,
        };
        context.output.show(&built, |style| {
            facts(
                style,
                &[
                    ("function", Cell::from(built.function.as_str())),
                    ("artifact", built.artifact.display().to_string().into()),
                    ("size", text::bytes(built.size).into()),
                    ("kind", text::kind(built.kind).into()),
                    ("digest", built.digest.to_string().into()),
                ],
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
