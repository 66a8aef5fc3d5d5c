//! `sedge invocation show`, `result` and `cancel`

use super::NodeSocket;
use crate::arguments::Context;
use crate::failure::FAILED;
use crate::style::{Style, Tone};
use crate::table::{Cell, facts};
use crate::text;
use clap::{Args, Subcommand};
use sedge_protocol::invocation::{self, CallbackState, InvocationId, InvocationState};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use ureq::http::Method;

/// Pause between two looks at a call that is not over.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of an asynchronous call on a node
#[derive(Debug, Subcommand)]
pub(crate) enum Invocation {
    Show(Show),
    Result(Answer),
    Cancel(Cancel),
}

/// Show where a call is: queued, running, succeeded, failed, dead or cancelled
///
/// With --wait exits with 1 when the call is over and has not succeeded.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which call, as `sedge invoke --async` printed it
    id: InvocationId,
    /// Wait until it is over
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    node: NodeSocket,
}

/// Print what the function answered
#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// Which call
    id: InvocationId,
    #[command(flatten)]
    node: NodeSocket,
}

/// Take a call back that has not begun
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Which call
    id: InvocationId,
    #[command(flatten)]
    node: NodeSocket,
}

impl Invocation {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Show(show) => show.run(context),
            Self::Result(answer) => answer.run(context),
            Self::Cancel(cancel) => cancel.run(context),
        }
    }
}

fn path(id: InvocationId) -> String {
    format!("/v1/invocations/{id}")
}

impl Show {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = self.node.client();
        let spinner = self.wait.then(|| context.output.spinner("waiting for the end of the call"));
        let found: invocation::Invocation = loop {
            let found: invocation::Invocation = client.get(&path(self.id))?;
            if !self.wait || found.state.is_over() {
                break found;
            }
            thread::sleep(PAUSE);
        };
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        context.output.show(&found, |style| describe(&found, text::now_ms(), style))?;
        let failed = self.wait && found.state != InvocationState::Succeeded;
        Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }
}

impl Answer {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let (status, body) = self.node.client().get_raw(&format!("{}/result", path(self.id)))?;
        super::invoke::request(context, status, &body)
    }
}

impl Cancel {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let found: invocation::Invocation = self.node.client().ask(Method::DELETE, &path(self.id))?;
        if context.output.is_json() {
            context.output.show(&found, |_| String::new())?;
        }
        context.output.said(found.state.as_str(), Tone::Good, &self.id.to_string());
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(found: &invocation::Invocation, now_ms: u64, style: Style) -> String {
    let tone = match found.state {
        InvocationState::Queued | InvocationState::Running => Tone::Busy,
        InvocationState::Succeeded => Tone::Good,
        InvocationState::Failed | InvocationState::Dead => Tone::Bad,
        InvocationState::Cancelled => Tone::Plain,
    };
    let mut known = vec![
        ("invocation", Cell::toned(found.id.to_string(), Tone::Strong)),
        ("function", found.function.as_str().into()),
        ("state", Cell::toned(found.state.as_str(), tone)),
        ("attempts", found.attempts.to_string().into()),
        ("accepted", text::ago(now_ms, found.accepted_ms).into()),
    ];
    known.extend(found.began_ms.map(|began| ("began", text::ago(now_ms, began).into())));
    known.extend(found.ended_ms.map(|ended| ("ended", text::ago(now_ms, ended).into())));
    known.extend(found.reason.as_deref().map(|reason| ("reason", Cell::toned(text::clean(reason), Tone::Bad))));
    if let Some(answer) = &found.answer {
        let kept = answer.dropped.as_deref().map(|reason| format!(", not kept: {}", text::clean(reason))).unwrap_or_default();
        known.push(("answer", format!("status {}, {}{kept}", answer.status, text::bytes(answer.bytes)).into()));
    }
    if let Some(callback) = &found.callback {
        let state = match callback.state {
            CallbackState::Waiting => "waiting",
            CallbackState::Delivered => "delivered",
            CallbackState::GivenUp => "given up",
        };
        let reason = callback.reason.as_deref().map(|reason| format!(": {}", text::clean(reason))).unwrap_or_default();
        let told = format!("{}, {state} after {} attempts{reason}", text::clean(&callback.url), callback.attempts);
        known.push(("callback", told.into()));
    }
    facts(style, &known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_described_with_its_answer_and_its_callback() {
        let found: invocation::Invocation = serde_json::from_str(
            r#"{"id":"0000000000000007000000000000000a","function":"resize","state":"succeeded","attempts":2,"accepted_ms":1000,
                "began_ms":2000,"ended_ms":3000,"answer":{"status":200,"bytes":12},
                "callback":{"url":"http://10.0.0.7/done","state":"given_up","attempts":5,"reason":"status 500"}}"#,
        )
        .unwrap();
        let expected = "\
invocation  0000000000000007000000000000000a
function    resize
state       succeeded
attempts    2
accepted    4 s ago
began       3 s ago
ended       2 s ago
answer      status 200, 12 B
callback    http://10.0.0.7/done, given up after 5 attempts: status 500";
        assert_eq!(describe(&found, 5000, Style::PLAIN), expected);
    }
}
