//! What can be typed. Each command's own arguments stand beside its work in [`crate::command`].

use crate::command;
use crate::connection::Connection;
use crate::output::Output;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
From nothing to a running function:
  sedge new hello --template rust-http     a project to start from
  sedge run hello                          a node on this machine, rebuilt on every change
  sedge test hello                         the cases in hello/tests
  sedge login --fleet https://fleet:8443 --token-file token --ca-pin sha256:…
  sedge publish hello                      check, build, upload: a revision
  sedge rollout hello --nodes site=berlin --wait
  sedge ls                                 who runs what

From a box to a node of the fleet:
  sedge flash sedge-gateway-x86-64-1.0.0.img.zst --to /dev/sdb --new-claim --label site=berlin

Exit codes: 0 done, 1 failed, 64 wrong usage, 78 wrong configuration.";

/// Functions on gateways: write them, roll them out, see what they do.
#[derive(Debug, Parser)]
#[command(name = "sedge", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Global {
    /// Print JSON for machines instead of text for people
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// Where the fleet is.
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(command::new::New),
    Build(command::build::Build),
    Run(command::run::Run),
    Test(command::test::Test),
    Publish(command::publish::Publish),
    Rollout(command::rollout::Rollout),
    Ls(command::ls::Ls),
    Revisions(command::revisions::Revisions),
    Rollouts(command::rollouts::Rollouts),
    Logs(command::logs::Logs),
    Invoke(command::invoke::Invoke),
    #[command(subcommand)]
    Invocation(command::invocation::Invocation),
    DeadLetters(command::dead_letters::DeadLetters),
    Rm(command::rm::Rm),
    #[command(subcommand)]
    Node(command::node::Node),
    #[command(subcommand)]
    Image(command::image::Image),
    #[command(subcommand)]
    Claim(command::claim::Claim),
    Flash(command::flash::Flash),
    #[command(subcommand)]
    Secret(command::secret::Secret),
    Usage(command::usage::Usage),
    Errors(command::errors::Errors),
    Status(command::status::Status),
    Login(command::login::Login),
    Completions(command::completions::Completions),
}

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let context = Context { output: Output::new(self.global.json), connection: self.global.connection };
        match self.command {
            Command::New(new) => new.run(&context),
            Command::Build(build) => build.run(&context),
            Command::Run(run) => run.run(&context),
            Command::Test(test) => test.run(&context),
            Command::Publish(publish) => publish.run(&context),
            Command::Rollout(rollout) => rollout.run(&context),
            Command::Ls(ls) => ls.run(&context),
            Command::Revisions(revisions) => revisions.run(&context),
            Command::Rollouts(rollouts) => rollouts.run(&context),
            Command::Logs(logs) => logs.run(&context),
            Command::Invoke(invoke) => invoke.run(&context),
            Command::Invocation(invocation) => invocation.run(&context),
            Command::DeadLetters(letters) => letters.run(&context),
            Command::Rm(rm) => rm.run(&context),
            Command::Node(node) => node.run(&context),
            Command::Image(image) => image.run(&context),
            Command::Claim(claim) => claim.run(&context),
            Command::Flash(flash) => flash.run(&context),
            Command::Secret(secret) => secret.run(&context),
            Command::Usage(usage) => usage.run(&context),
            Command::Errors(errors) => errors.run(&context),
            Command::Status(status) => status.run(&context),
            Command::Login(login) => login.run(&context),
            Command::Completions(completions) => completions.run(&context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        let mut command = Arguments::command();
        command.build();
        let mut open = vec![&command];
        while let Some(command) = open.pop() {
            assert!(command.get_about().is_some(), "`{}` has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{}` of `{}` has no help", argument.get_id(), command.get_name());
            }
            open.extend(command.get_subcommands());
        }
    }
}
