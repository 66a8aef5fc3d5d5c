//! `sedge secret …`

use super::NodeSocket;
use crate::arguments::Context;
use crate::failure::Failure;
use crate::style::Tone;
use crate::table::Table;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use sedge_protocol::manifest::SecretName;
use serde_json::json;
use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

/// Largest secret that is read; the node has the last word.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// Secrets of a node: set them, list their names, remove them
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    Set(Set),
    Ls(Ls),
    Rm(Rm),
}

/// Keep a secret on a node, encrypted; the value is read from standard input
///
/// A function gets it through wasi:config when its manifest names it: `secrets = ["NAME"]` under `[access]`. A line end at the end of
/// the input does not belong to the value. There is no way to read a value back.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name
    name: SecretName,
    #[command(flatten)]
    node: NodeSocket,
}

/// List the names of the secrets of a node
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    node: NodeSocket,
}

/// Remove a secret from a node
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Its name
    name: SecretName,
    #[command(flatten)]
    node: NodeSocket,
}

impl Secret {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Set(set) => set.run(context),
            Self::Ls(ls) => ls.run(context),
            Self::Rm(rm) => rm.run(context),
        }
    }
}

impl Set {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if io::stdin().is_terminal() {
            context.output.said("value", Tone::Dim, "type it, then press Ctrl-D on a line of its own; it is shown while you type");
        }
        let mut value = Vec::new();
        io::stdin().take(VALUE_BYTES_MAX + 1).read_to_end(&mut value).context("read the value from standard input")?;
        let value = without_line_end(&value);
        if value.is_empty() {
            return Err(Failure::usage("the value is empty".to_owned(), "give it on standard input: sedge secret set NAME < FILE").into());
        }
        let length = value.len() as u64;
        self.node.client().put_bytes(&format!("/v1/secrets/{}", self.name), length, &mut &*value)?;
        if context.output.is_json() {
            context.output.show(&json!({ "set": self.name }), |_| String::new())?;
        }
        context.output.said("set", Tone::Good, self.name.as_str());
        Ok(ExitCode::SUCCESS)
    }
}

impl Ls {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let names: Vec<SecretName> = self.node.client().get("/v1/secrets")?;
        context.output.show(&names, |style| {
            let mut table = Table::new(&["SECRET"]);
            for name in &names {
                table.row([name.as_str().into()]);
            }
            table.render(style, "no secrets")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Rm {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        self.node.client().delete(&format!("/v1/secrets/{}", self.name))?;
        if context.output.is_json() {
            context.output.show(&json!({ "removed": self.name }), |_| String::new())?;
        }
        context.output.said("removed", Tone::Good, self.name.as_str());
        Ok(ExitCode::SUCCESS)
    }
}

/// `echo` and editors end a file with a line end that nobody means.
fn without_line_end(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_value() {
        for (given, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a", " a"), ("\n", "")] {
            assert_eq!(without_line_end(given.as_bytes()), kept.as_bytes(), "{given:?}");
        }
    }
}
