//! `sedge revisions`

use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::FunctionName;
use sedge_protocol::api::Revision;
use std::process::ExitCode;

/// List the revisions of a function
#[derive(Debug, Args)]
pub(crate) struct Revisions {
    /// Which function
    function: FunctionName,
}

impl Revisions {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let path = format!("/api/v1/functions/{}/revisions", self.function);
        let revisions: Vec<Revision> = context.connection.client()?.get(&path)?;
        context.output.show(&revisions, |style| list(&revisions, text::now_ms(), style))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn list(revisions: &[Revision], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["REVISION", "PUBLISHED", ">SIZE", "KIND", ">MEMORY", ">TRIGGERS"]);
    for revision in revisions {
        table.row([
            Cell::toned(revision.id.short(), Tone::Strong),
            text::ago(now_ms, revision.created_ms).into(),
            text::bytes(revision.size).into(),
            text::kind(revision.kind).into(),
            text::bytes((u64::from(revision.manifest.limits.memory_mb) << 20) + revision.manifest.access.scratch_bytes()).into(),
            revision.manifest.triggers.len().to_string().into(),
        ]);
    }
    table.render(style, "no revisions: `sedge publish` makes one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::revision;

    #[test]
    fn revisions_are_listed() {
        let text = list(&[revision()], 61_000, Style::PLAIN);
        let expected = format!(
            "REVISION      PUBLISHED      SIZE  KIND              MEMORY  TRIGGERS\n{}  60 s ago   62.0 KiB  HTTP component  64.0 MiB         1",
            revision().id.short()
        );
        assert_eq!(text, expected);
    }
}
