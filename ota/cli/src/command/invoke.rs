//! `sedge invoke`

use super::NodeSocket;
use crate::arguments::Context;
use crate::client::query;
use crate::failure::{FAILED, Failure};
use crate::style::Tone;
use crate::{event_file, text, trace_view};
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::invocation::{Accepted, CALLBACK_HEADER};
use sedge_protocol::local::{Input, InvokeResult, TraceRequest};
use sedge_protocol::{FunctionName, Topic};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Invoke a function on a node of this machine and print its answer
///
/// Without --topic and --event the function gets an HTTP request, with one of them an event. Exits with 1 when the function fails.
/// With --async the call is kept on the node's disk, run later, and tried again if it fails; its id is printed.
#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// Which function
    function: FunctionName,
    /// Body of the request or data of the event
    #[arg(long, short, conflicts_with = "file")]
    data: Option<String>,
    /// File with the body or data; `-` is standard input
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Send the event in this file (CloudEvents JSON with a topic) and show everything that comes of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "file", "topic", "method", "path"])]
    event: Option<PathBuf>,
    /// Send an event on this topic
    #[arg(long, conflicts_with_all = ["method", "path"])]
    topic: Option<Topic>,
    /// Method of the HTTP request [default: GET with --path and without a body, else POST]
    #[arg(long)]
    method: Option<String>,
    /// Path and query of the HTTP request
    #[arg(long, value_parser = parse_path)]
    path: Option<String>,
    /// Media type of the body or data
    #[arg(long, default_value = "application/octet-stream")]
    content_type: String,
    /// Do not wait: print the id of the call, for `sedge invocation show`
    #[arg(long = "async", conflicts_with = "topic")]
    asynchronous: bool,
    /// Idempotency key: for a day the same key means the same call
    #[arg(long, requires = "asynchronous")]
    key: Option<String>,
    /// Address that gets the answer as a CloudEvent; the function's manifest has to allow it
    #[arg(long, requires = "asynchronous", value_name = "URL")]
    callback: Option<String>,
    #[command(flatten)]
    node: NodeSocket,
}

/// The answer to an HTTP request, for machines.
#[derive(Debug, Serialize)]
struct Answer {
    status: u16,
    /// `body` or `body_base64`.
    #[serde(flatten)]
    body: BTreeMap<String, Value>,
}

fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with `/`".to_owned()) }
}

impl Invoke {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if let Some(file) = &self.event {
            let request = TraceRequest { input: Input::Event(event_file::read(file)?), state: None };
            return trace_view::print(&context.output, &trace_view::ask(&self.node.client(), &self.function, &request)?);
        }
        let body = self.body()?;
        let path = format!("/v1/functions/{}/invoke", self.function);
        let get = self.path.is_some() && self.data.is_none() && self.file.is_none();
        let parameters = [
            ("topic", self.topic.as_ref().map(ToString::to_string)),
            ("method", self.method.clone().or_else(|| get.then(|| "GET".to_owned()))),
            ("path", self.path.clone()),
            ("async", self.asynchronous.then(|| "true".to_owned())),
        ];
        if self.asynchronous {
            return self.call(context, &query(&path, &parameters), &body);
        }
        let (status, answer) = self.node.client().post_raw(&query(&path, &parameters), &self.content_type, &body)?;
        if self.topic.is_some() { event(context, status, &answer) } else { request(context, status, &answer) }
    }

    fn call(&self, context: &Context, path: &str, body: &[u8]) -> anyhow::Result<ExitCode> {
        let optional = [("idempotency-key", &self.key), (CALLBACK_HEADER, &self.callback)];
        let mut headers = vec![("content-type", self.content_type.as_str())];
        headers.extend(optional.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        let (status, answer) = self.node.client().post_with(path, &headers, body)?;
        let accepted: Accepted = serde_json::from_slice(&answer).map_err(|_| Failure::Refused {
            status,
            error: format!("the node answered an asynchronous call with status {status} and no id"),
            hint: Some("see whether `sedged` has the version of `sedge`: `sedge status --node`".to_owned()),
        })?;
        context.output.show(&accepted, |_| accepted.id.to_string())?;
        context.output.said(accepted.state.as_str(), Tone::Good, &format!("see `sedge invocation show {} --wait`", accepted.id));
        Ok(ExitCode::SUCCESS)
    }

    fn body(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.data, self.file.as_deref()) {
            (Some(data), _) => Ok(data.clone().into_bytes()),
            (None, Some(path)) if path == Path::new("-") => {
                let mut body = Vec::new();
                io::stdin().read_to_end(&mut body).context("read standard input")?;
                Ok(body)
            }
            (None, Some(path)) => fs::read(path).with_context(|| format!("read {}", path.display())),
            (None, None) => Ok(Vec::new()),
        }
    }
}

pub(super) fn request(context: &Context, status: u16, body: &[u8]) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        let body = [event_file::written("body", body, None)].into();
        context.output.show(&Answer { status, body }, |_| String::new())?;
    } else {
        context.output.raw(body)?;
    }
    if status < 400 {
        return Ok(ExitCode::SUCCESS);
    }
    context.output.said("failed", Tone::Bad, &format!("the function answered with status {status}; `sedge logs` may say more"));
    Ok(ExitCode::from(FAILED))
}

fn event(context: &Context, status: u16, body: &[u8]) -> anyhow::Result<ExitCode> {
    let result: InvokeResult = serde_json::from_slice(body).map_err(|_| Failure::Refused {
        status,
        error: format!("the node answered an event with status {status} and no result"),
        hint: None,
    })?;
    if context.output.is_json() {
        context.output.show(&result, |_| String::new())?;
    } else if result.ok {
        context.output.raw(result.output.as_bytes())?;
    }
    let times = format!("{}, of which {} on the processor", text::micros(result.wall_us), text::micros(result.cpu_us));
    if result.ok {
        context.output.said("done", Tone::Good, &format!("in {times}"));
        return Ok(ExitCode::SUCCESS);
    }
    context.output.said("failed", Tone::Bad, &format!("after {times}: {}", text::clean(&result.output)));
    Ok(ExitCode::from(FAILED))
}
