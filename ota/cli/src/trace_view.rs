//! What one invocation did, for people: the reply is the result, everything else is talk.

use crate::client::Client;
use crate::command::logs;
use crate::failure::FAILED;
use crate::output::Output;
use crate::style::{Style, Tone};
use crate::text;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Cause, Change, Ended, Payload, Published, Trace, TraceRequest};
use std::process::ExitCode;
use ureq::http::Method;

/// How much of a value is shown, characters.
const SHOWN_MAX: usize = 120;

/// Makes one invocation on a node and hears everything about it.
pub(crate) fn ask(client: &Client, function: &FunctionName, request: &TraceRequest) -> anyhow::Result<Trace> {
    Ok(client.send_json(Method::POST, &format!("/v1/functions/{function}/trace"), request)?)
}

/// Prints it; answers the exit code that fits.
pub(crate) fn print(output: &Output, trace: &Trace) -> anyhow::Result<ExitCode> {
    if output.is_json() {
        output.line(trace, |_| String::new())?;
    } else {
        talk(output, trace);
        let result = trace.reply.as_ref().map(|reply| &reply.data).or(trace.response.as_ref().map(|response| &response.body));
        output.raw(&result.and_then(|data| data.decode().ok()).unwrap_or_default())?;
    }
    Ok(verdict(output, trace))
}

fn talk(output: &Output, trace: &Trace) {
    for entry in &trace.log {
        output.note(&logs::line(entry, output.talk_style()));
    }
    for published in &trace.publications {
        output.said("publish", Tone::Busy, &publication(published));
    }
    match &trace.changes {
        Some(changes) => changes.iter().for_each(|change| output.said("state", Tone::Busy, &difference(change))),
        None => output.said("state", Tone::Busy, "holds too much to be compared"),
    }
    if trace.missing > 0 {
        output.said("missing", Tone::Bad, &format!("{} lines or publications: there were too many", trace.missing));
    }
}

fn verdict(output: &Output, trace: &Trace) -> ExitCode {
    let used = trace.ended.as_ref().map_or_else(|| "nothing ran".to_owned(), cost);
    match &trace.failure {
        None => {
            output.said("done", Tone::Good, &used);
            ExitCode::SUCCESS
        }
        Some(reason) => {
            output.said("failed", Tone::Bad, &format!("{used}: {}", text::clean(reason)));
            ExitCode::from(FAILED)
        }
    }
}

/// `22:13:20.120 GET /hello  200  in 1.25 ms, cpu 840 µs, memory 1.06 MiB`
pub(crate) fn ended(ended: &Ended, style: Style) -> String {
    let clock = style.paint(&text::clock(ended.time_ms), Tone::Dim);
    let what = match &ended.cause {
        Cause::Request { method, path } => format!("{method} {path}"),
        Cause::Event { topic, .. } => format!("event {topic}"),
    };
    let what = style.paint(&short(&what), Tone::Strong);
    let status = ended.status.map_or_else(|| if ended.ok { "ok" } else { "failed" }.to_owned(), |status| status.to_string());
    let tone = if ended.ok && ended.status.is_none_or(|status| status < 500) { Tone::Good } else { Tone::Bad };
    let reason = ended.reason.as_ref().map(|reason| format!("  {}", style.paint(&text::clean(reason), Tone::Bad))).unwrap_or_default();
    format!("{clock} {what}  {}  {}{reason}", style.paint(&status, tone), style.paint(&cost(ended), Tone::Dim))
}

/// `22:13:20.120 publish alarm/high  {"value":95}`
pub(crate) fn published(published: &Published, style: Style) -> String {
    let clock = style.paint(&text::clock(published.time_ms), Tone::Dim);
    format!("{clock} {} {}", style.paint("publish", Tone::Busy), publication(published))
}

fn cost(ended: &Ended) -> String {
    let cold = if ended.cold { ", first since it was prepared" } else { "" };
    let (wall, cpu, memory) = (text::micros(ended.wall_us), text::micros(ended.cpu_us), text::bytes(ended.memory_bytes));
    format!("in {wall}, cpu {cpu}, memory {memory}{cold}")
}

fn publication(published: &Published) -> String {
    format!("{}  {}", text::clean(published.topic.as_str()), value(&published.data))
}

fn difference(change: &Change) -> String {
    let side = |payload: &Option<Payload>| payload.as_ref().map_or_else(|| "nothing".to_owned(), value);
    format!("{} {}: {} → {}", text::clean(&change.store), text::clean(&change.key), side(&change.before), side(&change.after))
}

/// A value in one line, as much as is worth reading.
pub(crate) fn value(payload: &Payload) -> String {
    match payload {
        Payload::Text(text) => short(text),
        Payload::Base64(text) => format!("base64 {}", short(text)),
    }
}

fn short(text: &str) -> String {
    let clean = text::clean(text.trim_end());
    if clean.chars().count() <= SHOWN_MAX {
        return clean;
    }
    clean.chars().take(SHOWN_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cause: Cause, ok: bool, status: Option<u16>) -> Ended {
        Ended {
            time_ms: 1_700_000_000_120,
            function: "hello".parse().unwrap(),
            revision: "ab".repeat(32).parse().unwrap(),
            invocation: "1".to_owned(),
            cause,
            ok,
            status,
            reason: (!ok).then(|| "trap: \u{1b}[31munreachable".to_owned()),
            wall_us: 1250,
            cpu_us: 840,
            memory_bytes: 1 << 20,
            cold: false,
        }
    }

    #[test]
    fn an_invocation_is_one_line() {
        let request = Cause::Request { method: "GET".to_owned(), path: "/hello?a".to_owned() };
        assert_eq!(
            ended(&of(request, true, Some(200)), Style::PLAIN),
            "22:13:20.120 GET /hello?a  200  in 1.25 ms, cpu 840 µs, memory 1.00 MiB"
        );
        let event = Cause::Event { id: "e".to_owned(), topic: "plant/1".parse().unwrap() };
        assert_eq!(
            ended(&of(event, false, None), Style::PLAIN),
            "22:13:20.120 event plant/1  failed  in 1.25 ms, cpu 840 µs, memory 1.00 MiB  trap: �[31munreachable"
        );
    }

    #[test]
    fn values_are_short_and_command_no_terminal() {
        assert_eq!(value(&Payload::Text("a\u{7}b\n".to_owned())), "a�b");
        assert_eq!(value(&Payload::Text("x".repeat(SHOWN_MAX + 1))).chars().count(), SHOWN_MAX + 1);
        let change = Change { store: "default".to_owned(), key: "n".to_owned(), before: None, after: Some(Payload::Text("1".to_owned())) };
        assert_eq!(difference(&change), "default n: nothing → 1");
    }
}
