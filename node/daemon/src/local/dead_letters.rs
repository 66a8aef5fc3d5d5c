//! `/v1/dead-letters`: list, read, replay and remove what failed every attempt.

use super::{Local, LocalBody, Refusal, blocking, json, logs, parse};
use crate::bus::Publication;
use http::{Method, Response, StatusCode};
use sedge_protocol::FunctionName;
use sedge_protocol::local::{DeadLetter, DeadLetterHead, DeadLettersDone, Letter};
use std::sync::Arc;
use tokio::sync::oneshot;

pub(super) async fn route(local: &Arc<Local>, method: &Method, rest: &[&str], query: Option<&str>) -> Result<Response<LocalBody>, Refusal> {
    let named = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("function="));
    let function = named.map(parse::<FunctionName>).transpose()?;
    if let Some(name) = &function {
        known(local, name).await?;
    }
    match (method, rest) {
        (&Method::GET, []) => Ok(json(&heads(local, function).await?)),
        (&Method::DELETE, []) => remove(local, ids(local, function).await?).await,
        (&Method::POST, ["replay"]) => replay(local, ids(local, function).await?).await,
        (&Method::GET, [id]) => Ok(json(&read(local, parse(id)?).await?)),
        (&Method::DELETE, [id]) => remove(local, vec![read(local, parse(id)?).await?.id]).await,
        (&Method::POST, [id, "replay"]) => replay_one(local, read(local, parse(id)?).await?).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("no such path: {method} /v1/dead-letters/{}", rest.join("/")))),
    }
}

/// Refuses the name of a function that is not here and has left no letter either: none of it is not nothing to do.
async fn known(local: &Arc<Local>, name: &FunctionName) -> Result<(), Refusal> {
    match logs::known(local, name) {
        Err(unknown) if heads(local, Some(name.clone())).await?.is_empty() => Err(unknown),
        Err(_) | Ok(()) => Ok(()),
    }
}

async fn heads(local: &Arc<Local>, function: Option<FunctionName>) -> Result<Vec<DeadLetterHead>, Refusal> {
    let letters = local.letters.clone();
    blocking(move || Ok(letters.heads(function.as_ref())?)).await
}

async fn ids(local: &Arc<Local>, function: Option<FunctionName>) -> Result<Vec<u64>, Refusal> {
    Ok(heads(local, function).await?.into_iter().map(|head| head.id).collect())
}

async fn read(local: &Arc<Local>, id: u64) -> Result<DeadLetter, Refusal> {
    let letters = local.letters.clone();
    let letter = blocking(move || Ok(letters.read(id)?)).await?;
    letter.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))
}

/// How many letters of a function there are; with `remove_them` they go.
pub(super) async fn of(local: &Arc<Local>, function: &FunctionName, remove_them: bool) -> Result<u64, Refusal> {
    let ids = ids(local, Some(function.clone())).await?;
    let count = ids.len() as u64;
    if remove_them {
        remove(local, ids).await?;
    }
    Ok(count)
}

async fn remove(local: &Arc<Local>, ids: Vec<u64>) -> Result<Response<LocalBody>, Refusal> {
    let commit = local.letters.remove(&ids);
    let failed = |error: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("the dead letters stay: {error}"));
    commit.map_err(|error| failed(error.to_string()))?.durable().await.map_err(|error| failed(error.to_string()))?;
    Ok(json(&DeadLettersDone { done: ids.len() as u64, left: Vec::new() }))
}

async fn replay_one(local: &Arc<Local>, letter: DeadLetter) -> Result<Response<LocalBody>, Refusal> {
    put_back(local, letter).await.map_err(|error| Refusal::new(StatusCode::CONFLICT, error))?;
    Ok(json(&DeadLettersDone { done: 1, left: Vec::new() }))
}

/// One after the other, oldest first, so that events of one topic come in the order they had.
async fn replay(local: &Arc<Local>, ids: Vec<u64>) -> Result<Response<LocalBody>, Refusal> {
    let mut done = DeadLettersDone::default();
    for id in ids {
        let Ok(letter) = read(local, id).await else { continue };
        match put_back(local, letter).await {
            Ok(()) => done.done += 1,
            Err(error) => done.left.push(format!("{id}: {error}")),
        }
    }
    Ok(json(&done))
}

/// Puts a letter back in line and answers when that is durable.
async fn put_back(local: &Arc<Local>, letter: DeadLetter) -> Result<(), String> {
    let table = local.functions.table();
    if !table.active.contains_key(&letter.function) && !table.states.contains_key(&letter.function) {
        return Err(format!("no function called `{}` is assigned to this node", letter.function));
    }
    match letter.letter.clone() {
        Letter::Call(call) => local.calls.replay(letter, call).await.map_err(|refused| refused.to_string()),
        Letter::Event(event) => {
            let found = table.matches(&event.topic).into_iter().find(|found| found.function == letter.function);
            let only = Some((letter.function, found.and_then(|found| found.reply)));
            let (answer, answered) = oneshot::channel();
            let publication = Publication { event, kept: true, fan_out: false, only, letter: Some(letter.id), answer: Some(answer) };
            local.bus.publish(publication).map_err(|refusal| refusal.to_string())?;
            let kept = answered.await.map_err(|_| "the node is stopping".to_owned())?;
            kept.map_err(|refusal| refusal.to_string())
        }
    }
}
