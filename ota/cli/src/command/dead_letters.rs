//! `sedge dead-letters`, and `ls`, `show`, `replay` and `purge` below it

use super::NodeSocket;
use crate::arguments::Context;
use crate::client::query;
use crate::failure::{FAILED, Failure};
use crate::style::{Style, Tone};
use crate::table::{Cell, Table, facts};
use crate::{event_file, text};
use clap::{Args, Subcommand};
use sedge_protocol::FunctionName;
use sedge_protocol::invocation::Call;
use sedge_protocol::local::{DeadLetter, DeadLetterHead, DeadLettersDone, Letter, Payload};
use serde_json::{Value, json};
use std::process::ExitCode;
use ureq::http::Method;

const PATH: &str = "/v1/dead-letters";

/// Events and asynchronous calls that failed every attempt on a node
///
/// Alone it lists them.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DeadLetters {
    #[command(flatten)]
    list: Ls,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Ls(Ls),
    Show(Show),
    Replay(Replay),
    Purge(Purge),
}

/// List them
#[derive(Debug, Args)]
struct Ls {
    /// Only those of this function
    #[arg(long)]
    function: Option<FunctionName>,
    #[command(flatten)]
    node: NodeSocket,
}

/// Show one and print what it holds
#[derive(Debug, Args)]
struct Show {
    /// Which one
    id: u64,
    #[command(flatten)]
    node: NodeSocket,
}

/// Put one, or all of a function, back in line
#[derive(Debug, Args)]
struct Replay {
    /// Which one
    #[arg(required_unless_present = "function", conflicts_with = "function")]
    id: Option<u64>,
    /// All of this function, oldest first
    #[arg(long)]
    function: Option<FunctionName>,
    #[command(flatten)]
    node: NodeSocket,
}

/// Remove one, all of a function, or all
#[derive(Debug, Args)]
struct Purge {
    /// Which one
    #[arg(conflicts_with = "function")]
    id: Option<u64>,
    /// All of this function
    #[arg(long)]
    function: Option<FunctionName>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    node: NodeSocket,
}

impl DeadLetters {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self.action.unwrap_or(Action::Ls(self.list)) {
            Action::Ls(ls) => ls.run(context),
            Action::Show(show) => show.run(context),
            Action::Replay(replay) => replay.run(context),
            Action::Purge(purge) => purge.run(context),
        }
    }
}

fn of_function(path: &str, function: Option<&FunctionName>) -> String {
    query(path, &[("function", function.map(ToString::to_string))])
}

impl Ls {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let letters: Vec<DeadLetterHead> = self.node.client().get(&of_function(PATH, self.function.as_ref()))?;
        context.output.show(&letters, |style| list(&letters, text::now_ms(), style))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let letter: DeadLetter = self.node.client().get(&format!("{PATH}/{}", self.id))?;
        if context.output.is_json() {
            context.output.show(&for_machines(&letter), |_| String::new())?;
            return Ok(ExitCode::SUCCESS);
        }
        context.output.show(&letter, |style| format!("{}\n", describe(&letter.head(), text::now_ms(), style)))?;
        context.output.raw(letter.letter.payload())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// An event as a file of `sedge invoke --event` has it, a call in the same manner.
fn for_machines(letter: &DeadLetter) -> Value {
    let DeadLetter { id, function, attempts, reason, time_ms, letter } = letter;
    let mut json = json!({ "id": id, "function": function, "attempts": attempts, "reason": reason, "time_ms": time_ms });
    let (name, held) = match letter {
        Letter::Event(event) => ("event", event_file::write(event)),
        Letter::Call(call) => ("call", call_for_machines(call)),
    };
    json[name] = held;
    json
}

fn call_for_machines(call: &Call) -> Value {
    let Call { id, method, authority, target, headers, body } = call;
    let named = |name: &str| headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
    let content_type = named("content-type").and_then(|(_, value)| str::from_utf8(&value.0).ok());
    let headers = headers.iter().map(|(name, value)| match Payload::from(value.0.as_slice()) {
        Payload::Text(text) => json!([name, text]),
        bytes @ Payload::Base64(_) => json!([name, bytes]),
    });
    let headers: Vec<Value> = headers.collect();
    let mut json = json!({ "id": id, "method": method, "authority": authority, "target": target, "headers": headers });
    let (key, value) = event_file::written("body", body, content_type);
    json[key] = value;
    json
}

impl Replay {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let path = match self.id {
            Some(id) => format!("{PATH}/{id}/replay"),
            None => of_function(&format!("{PATH}/replay"), self.function.as_ref()),
        };
        let done: DeadLettersDone = self.node.client().ask(Method::POST, &path)?;
        report(context, &done, "replayed")
    }
}

impl Purge {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if self.id.is_none() && !self.yes {
            let what = self.function.as_ref().map_or_else(|| "every dead letter".to_owned(), |name| format!("every dead letter of {name}"));
            if !context.output.can_ask() {
                return Err(Failure::usage(format!("nobody is there to confirm that {what} goes"), "add --yes").into());
            }
            if !context.output.confirm(&format!("Remove {what} for good?"))? {
                context.output.said("kept", Tone::Plain, &what);
                return Ok(ExitCode::from(FAILED));
            }
        }
        let path = match self.id {
            Some(id) => format!("{PATH}/{id}"),
            None => of_function(PATH, self.function.as_ref()),
        };
        let done: DeadLettersDone = self.node.client().ask(Method::DELETE, &path)?;
        report(context, &done, "removed")
    }
}

fn report(context: &Context, done: &DeadLettersDone, word: &str) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.show(done, |_| String::new())?;
    }
    context.output.said(word, Tone::Good, &format!("{} dead letters", done.done));
    for left in &done.left {
        context.output.said("left", Tone::Bad, &text::clean(left));
    }
    Ok(if done.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn list(letters: &[DeadLetterHead], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&[">ID", "FUNCTION", "TOPIC OR REQUEST", ">ATTEMPTS", ">DATA", "GIVEN UP", "REASON"]);
    for letter in letters {
        table.row([
            letter.id.to_string().into(),
            letter.function.as_str().into(),
            text::clean(&letter.subject).into(),
            letter.attempts.to_string().into(),
            text::bytes(letter.bytes).into(),
            text::ago(now_ms, letter.time_ms).into(),
            Cell::toned(&letter.reason, Tone::Bad),
        ]);
    }
    table.render(style, "no dead letters")
}

fn describe(letter: &DeadLetterHead, now_ms: u64, style: Style) -> String {
    let mut known = vec![
        ("dead letter", Cell::toned(letter.id.to_string(), Tone::Strong)),
        ("function", letter.function.as_str().into()),
        (if letter.invocation.is_some() { "request" } else { "topic" }, text::clean(&letter.subject).into()),
        ("attempts", letter.attempts.to_string().into()),
        ("given up", text::ago(now_ms, letter.time_ms).into()),
        ("reason", Cell::toned(text::clean(&letter.reason), Tone::Bad)),
        ("data", text::bytes(letter.bytes).into()),
    ];
    known.extend(letter.invocation.map(|id| ("invocation", id.to_string().into())));
    facts(style, &known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_listed_without_their_data_and_shown_to_machines_as_event_files() {
        let letter: DeadLetter = serde_json::from_str(
            r#"{"id":7,"function":"average","attempts":5,"reason":"exit 1","time_ms":1000,
                "event":{"id":"e","source":"/mqtt/s","type":"t","topic":"plant/1","data":"hot"}}"#,
        )
        .unwrap();
        assert_eq!(
            for_machines(&letter),
            json!({
                "id": 7, "function": "average", "attempts": 5, "reason": "exit 1", "time_ms": 1000,
                "event": { "specversion": "1.0", "id": "e", "source": "/mqtt/s", "type": "t", "topic": "plant/1", "data": "hot" },
            })
        );
        let expected = "\
ID  FUNCTION  TOPIC OR REQUEST  ATTEMPTS  DATA  GIVEN UP  REASON
 7  average   plant/1                  5   3 B  4 s ago   exit 1";
        assert_eq!(list(&[letter.head()], 5000, Style::PLAIN), expected);
        assert!(describe(&letter.head(), 5000, Style::PLAIN).contains("topic        plant/1\n"));
    }
}
