//! `sedge completions`

use crate::arguments::{Arguments, Context};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::process::ExitCode;

/// Print the completions of a shell
///
/// For bash: `sedge completions bash > ~/.local/share/bash-completion/completions/sedge`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "sedge", &mut script);
        context.output.raw(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
