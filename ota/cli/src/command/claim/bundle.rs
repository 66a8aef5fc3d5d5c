//! `sedge claim bundle`

use crate::arguments::Context;
use crate::failure::Failure;
use crate::style::Tone;
use crate::text;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::api::NewClaim;
use sedge_protocol::label::Label;
use sedge_protocol::schedule::Interval;
use sedge_protocol::{Digest, Labels, NodeId};
use sedge_provisioning::bundle;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

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
        let mut labels = Labels::default();
        for Label { key, value } in &self.label {
            labels.insert(key, value)?;
        }
        let ttl_s = self.ttl.as_ms().div_ceil(1000);
        let new = NewClaim { uses: self.uses, ttl_s, labels, approval: false, replaces: self.replaces.clone() };
        let client = context.connection.client()?;
        let (length, mut from) = client.download("/api/v1/claims/bundle", &new)?;
        // Beside its place, readable by nobody else, and whole before it gets its name.
        let directory = self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).with_context(|| format!("write in {}", directory.display()))?;
        let bar = context.output.bar(length.unwrap_or(0), "bundle");
        let written = io::copy(&mut bar.wrap_read(&mut from), &mut file).context("receive the bundle")?;
        bar.finish_and_clear();
        file.flush().and_then(|()| file.as_file().sync_all()).with_context(|| format!("write {}", self.out.display()))?;
        let functions = check(file.as_file_mut())?;
        file.persist(&self.out).with_context(|| format!("write {}", self.out.display()))?;
        if context.output.is_json() {
            context.output.show(&json!({ "file": self.out, "bytes": written, "functions": functions }), |_| String::new())?;
        }
        let names = if functions.is_empty() { "no function matches".to_owned() } else { functions.join(", ") };
        context.output.said("written", Tone::Good, &format!("{} ({}): {names}", self.out.display(), text::bytes(written)));
        context.output.note("it holds the claim: whoever has the file can join");
        Ok(())
    }
}

/// Reads the whole file as a box will; answers the names of its functions.
fn check(file: &mut File) -> anyhow::Result<Vec<String>> {
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
    Ok(grant.assignments.iter().map(|assignment| assignment.function().to_string()).collect())
}
