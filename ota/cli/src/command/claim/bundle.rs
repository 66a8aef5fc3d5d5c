//! `sedge claim bundle`

use super::{home_note, labels_of};
use crate::arguments::Context;
use crate::client::Download;
use crate::failure::Failure;
use crate::style::Tone;
use crate::text;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::api::NewClaim;
use sedge_protocol::label::Label;
use sedge_protocol::schedule::Interval;
use sedge_protocol::{Digest, NodeId};
use sedge_provisioning::bundle::{self, Grant};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Create a claim as a file for a stick: it starts a box that has no way to the fleet yet
///
/// The file holds the claim, the fleet's authority, and the functions that match its labels, signed by the fleet. A box with the image takes it from
/// a USB stick, another one with `bundle = "…"` in `[fleet]`; it runs them at once and joins the fleet when there is a way. The file is as secret
/// as a claim.
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// File to write, such as barn.sedge-claim
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many boxes may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it is good for, such as 90d
    #[arg(long, default_value = "365d")]
    ttl: Interval,
    /// Label of the nodes that use it; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Label>,
    /// The box that uses it takes over this node
    #[arg(long, value_name = "NODE", conflicts_with = "uses")]
    replaces: Option<NodeId>,
}

impl Bundle {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let labels = labels_of(&self.label)?;
        if self.out.exists() {
            let what = format!("{} is there already: the claim in it would be lost, and stay good", self.out.display());
            return Err(Failure::usage(what, "name another file, or remove that one and `sedge claim revoke` its claim").into());
        }
        // Beside its place, readable by nobody else, and whole before it gets its name. There before a claim is made.
        let directory = self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(directory).with_context(|| format!("write in {}", directory.display()))?;
        let ttl_s = self.ttl.as_ms().div_ceil(1000);
        let new = NewClaim { uses: self.uses, ttl_s, labels, approval: false, replaces: self.replaces.clone() };
        let client = context.connection.client()?;
        let Download { length, claim, from } = client.download("/api/v1/claims/bundle", &new)?;
        let (written, grant) = self.keep(file, (length, from), context).inspect_err(|_| {
            if let Some(claim) = &claim {
                context.output.note(&format!("the claim {claim} was made for it: `sedge claim revoke {claim}` ends it"));
            }
        })?;
        let functions: Vec<String> = grant.assignments.iter().map(|assignment| assignment.function().to_string()).collect();
        if context.output.is_json() {
            let shown = json!({ "file": self.out, "bytes": written, "claim": claim, "functions": functions });
            context.output.show(&shown, |_| String::new())?;
        }
        let names = if functions.is_empty() { "no function matches".to_owned() } else { functions.join(", ") };
        context.output.said("written", Tone::Good, &format!("{} ({}): {names}", self.out.display(), text::bytes(written)));
        if let Some(claim) = claim {
            context
                .output
                .note(&format!("it holds the claim {claim}: whoever has the file can join; `sedge claim revoke {claim}` ends that"));
        }
        if let Some(note) = home_note(&grant.fleet) {
            context.output.note(&note);
        }
        Ok(())
    }

    /// Writes what comes; answers how much that is and what it grants.
    fn keep(
        &self,
        mut file: NamedTempFile,
        (length, mut from): (Option<u64>, impl Read),
        context: &Context,
    ) -> anyhow::Result<(u64, Grant)> {
        let bar = context.output.bar(length.unwrap_or(0), "bundle");
        let written = io::copy(&mut bar.wrap_read(&mut from), &mut file).context("receive the bundle")?;
        bar.finish_and_clear();
        file.flush().and_then(|()| file.as_file().sync_all()).with_context(|| format!("write {}", self.out.display()))?;
        let grant = check(file.as_file_mut())?;
        file.persist_noclobber(&self.out).with_context(|| format!("write {}", self.out.display()))?;
        Ok((written, grant))
    }
}

/// Reads the whole file as a box will.
fn check(file: &mut File) -> anyhow::Result<Grant> {
    file.rewind().context("read the bundle again")?;
    let mut from = BufReader::new(file);
    let grant = bundle::read(&mut from, None)?.grant;
    for (digest, size) in grant.artifacts() {
        let mut bytes = Vec::new();
        from.by_ref().take(size).read_to_end(&mut bytes).context("read the bundle again")?;
        if Digest::of(&bytes) != digest {
            let error = format!("the artifact {digest} was cut off or damaged on its way");
            return Err(Failure::Refused { status: 200, error, hint: Some("try it again".to_owned()) }.into());
        }
    }
    Ok(grant)
}
