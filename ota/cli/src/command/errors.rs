//! `sedge errors`

use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::api::NodeError;
use std::process::ExitCode;

/// List the newest errors of all nodes
#[derive(Debug, Args)]
pub(crate) struct Errors {}

impl Errors {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let errors: Vec<NodeError> = context.connection.client()?.get("/api/v1/errors")?;
        context.output.show(&errors, |style| list(&errors, text::now_ms(), style))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn list(errors: &[NodeError], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["WHEN", "NODE", "FUNCTION", "REVISION", "REASON"]);
    for error in errors {
        table.row([
            text::ago(now_ms, error.time_ms).into(),
            error.node.as_str().into(),
            error.function.as_str().into(),
            Cell::toned(error.revision.map_or_else(|| "-".to_owned(), |revision| revision.short()), Tone::Dim),
            Cell::toned(&error.reason, Tone::Bad),
        ]);
    }
    table.render(style, "no errors")
}
