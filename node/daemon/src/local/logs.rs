//! `GET /v1/logs`: the newest lines, and with `follow=true` what comes after them.
//! `GET /v1/invocations/stream`: every invocation that ends from now on, every publication, and with `logs=true` every line.

use super::lines::{Next, follow, line, whole};
use super::{Local, LocalBody, Refusal, parse};
use crate::logs::Live;
use http::{Response, StatusCode};
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Level, LogEntry, LogRecord, Missing, Told};
use sedge_protocol::nearest::nearest;
use std::sync::Arc;

/// Lines of an answer when nobody says how many.
const LINES: usize = 100;

pub(super) fn stream(local: &Arc<Local>, query: &str) -> Result<Response<LocalBody>, Refusal> {
    let (mut function, mut lines, mut level, mut goes_on) = (None::<FunctionName>, LINES, Level::Trace, false);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "function" if !value.is_empty() => function = Some(parse(value)?),
            "lines" => lines = parse(value)?,
            "level" => level = parse(value)?,
            "follow" => goes_on = value == "true",
            _ => {}
        }
    }
    if let Some(name) = &function {
        known(local, name)?;
    }
    let wanted = move |entry: &LogEntry| function.as_ref().is_none_or(|name| entry.function == *name) && entry.level() <= level;
    let (newest, live) = local.logs.follow(&wanted, lines);
    let first = newest.iter().map(|entry| line(&**entry)).collect();
    if !goes_on {
        return Ok(whole(first));
    }
    follow(local, first, live, move |next| match next {
        Next::Live(Live::Line(entry)) => wanted(&entry).then(|| line(&*entry)),
        Next::Live(Live::Ended(_) | Live::Published(_)) => None,
        Next::Missing(missing) => Some(line(&LogRecord::Missing(Missing { missing }))),
    })
}

pub(super) fn invocations(local: &Arc<Local>, query: &str) -> Result<Response<LocalBody>, Refusal> {
    let (mut function, mut logs) = (None::<FunctionName>, false);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "function" if !value.is_empty() => function = Some(parse(value)?),
            "logs" => logs = value == "true",
            _ => {}
        }
    }
    // Not an error when it is unknown: who watches may be there before the function is.
    let wanted = move |name: &FunctionName| function.as_ref().is_none_or(|function| function == name);
    follow(local, Vec::new(), local.logs.listen(), move |next| match next {
        Next::Live(Live::Line(entry)) => (logs && wanted(&entry.function)).then(|| line(&Told::Log(LogEntry::clone(&entry)))),
        Next::Live(Live::Ended(ended)) => wanted(&ended.function).then(|| line(&Told::Invocation((*ended).clone()))),
        Next::Live(Live::Published(published)) => wanted(&published.function).then(|| line(&Told::Publication((*published).clone()))),
        Next::Missing(missing) => Some(line(&Told::Missing(Missing { missing }))),
    })
}

/// Refuses the name of a function that is not here and has written nothing.
pub(super) fn known(local: &Arc<Local>, name: &FunctionName) -> Result<(), Refusal> {
    let table = local.functions.table();
    if table.active.contains_key(name) || table.states.contains_key(name) || local.logs.knows(name) {
        return Ok(());
    }
    let refusal = Refusal::new(StatusCode::NOT_FOUND, format!("no function called `{name}` is on this node"));
    let names: Vec<&str> = table.states.keys().chain(table.active.keys()).map(FunctionName::as_str).collect();
    Err(match nearest(name.as_str(), names.iter().copied()) {
        Some(near) => refusal.hint(&format!("did you mean `{near}`?")),
        None => refusal.hint("`sedge ls --node` lists those that are"),
    })
}
