//! `sedge publish`

use super::MaybeNode;
use super::give::give;
use crate::arguments::Context;
use crate::client::Client;
use crate::output::Output;
use crate::project::{self, Artifact};
use crate::style::Tone;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::RevisionId;
use sedge_protocol::api::{NewRevision, Revision};
use sedge_protocol::local::LocalStatus;
use std::path::PathBuf;
use std::process::ExitCode;
use ureq::http::Method;

/// Check, build and upload a function: makes a revision
///
/// Publishing the same artifact with the same manifest again gives the same revision. Nothing runs it before a rollout says so. With
/// --node it goes to one node without a fleet, which runs it at once.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Directory of a project, which is built, or a .wasm file, which is taken as it is
    #[arg(default_value = ".", value_name = "DIR|WASM")]
    source: PathBuf,
    /// The manifest, where it is not the function.toml beside
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    node: MaybeNode,
}

impl Publish {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if let Some(node) = self.node.client() {
            return self.to_node(&node, context);
        }
        let client = context.connection.client()?;
        let artifact = project::load(&self.source, self.manifest.as_deref(), &context.output)?;
        let function = artifact.manifest.name.clone();
        upload(&client, &artifact, "/api/v1/artifacts", &context.output).with_context(|| format!("upload {function}"))?;
        let new = NewRevision { artifact: artifact.digest, manifest: artifact.manifest.clone() };
        let revision: Revision =
            client.send_json(Method::POST, "/api/v1/revisions", &new).with_context(|| format!("make a revision of {function}"))?;
        context.output.said("published", Tone::Good, &format!("revision {} of {function}: {}", revision.id.short(), artifact.describe()));
        context.output.show(&revision, |_| revision.id.to_string())?;
        if !context.output.is_json() {
            context.output.note(&format!("next: `sedge rollout {function} --wait` moves every node to it, `--nodes FILTER` some"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn to_node(&self, node: &Client, context: &Context) -> anyhow::Result<ExitCode> {
        // Before the build, which may take minutes: whether anybody is there.
        let _status: LocalStatus = node.get("/v1/status")?;
        let artifact = project::load(&self.source, self.manifest.as_deref(), &context.output)?;
        let (function, revision) = (&artifact.manifest.name, RevisionId::of(&artifact.digest, &artifact.manifest));
        let status = give(node, &artifact, &context.output, || Ok(()))?;
        let report = status.functions.iter().find(|report| report.function == *function);
        let described = artifact.describe();
        context.output.said("published", Tone::Good, &format!("the node runs revision {} of {function}: {described}", revision.short()));
        context.output.show(&report, |_| revision.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Puts the artifact below `path`, with a bar.
pub(crate) fn upload(client: &Client, artifact: &Artifact, path: &str, output: &Output) -> anyhow::Result<()> {
    let bar = output.bar(artifact.size(), &format!("uploading {}", artifact.manifest.name));
    let mut bytes = bar.wrap_read(artifact.wasm.as_slice());
    let done = client.put_bytes(&format!("{path}/{}", artifact.digest), artifact.size(), &mut bytes);
    bar.finish_and_clear();
    Ok(done?)
}
