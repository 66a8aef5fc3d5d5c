//! The REST API, as `sedge_protocol::api` describes it.

use super::problem::Refusal;
use crate::fleet::Shared;
use crate::keys::new_token;
use crate::limits::{CLAIM_TTL_S_MAX, CLAIM_USES_MAX, ERRORS_LISTED_MAX};
use crate::store::{NodeFault, UsageFilter};
use crate::view;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use log::info;
use sedge_fleet_core::Filter;
use sedge_protocol::api::{Claim, CreatedClaim, Function, NewClaim, NewRollout, NodeError, Revision, Rollout, Status, UsageRow};
use sedge_protocol::{Digest, FunctionName, NodeId};
use sedge_provisioning::clock::now_ms;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

type App = State<Arc<Shared>>;
type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn status(State(shared): App) -> Answer<Status> {
    Ok(Json(view::status(&shared).await?))
}

pub(super) async fn functions(State(shared): App) -> Answer<Vec<Function>> {
    Ok(Json(view::functions(&shared).await?))
}

pub(super) async fn revisions(State(shared): App, name: Result<Path<FunctionName>, PathRejection>) -> Answer<Vec<Revision>> {
    let name = path(name)?;
    let revisions = shared.store.revisions(&name).await?;
    if revisions.is_empty() {
        return Err(crate::store::RolloutFault::Function(name).into());
    }
    Ok(Json(revisions))
}

pub(super) async fn remove_function(State(shared): App, name: Result<Path<FunctionName>, PathRejection>) -> Result<StatusCode, Refusal> {
    let name = path(name)?;
    let changed = shared.store.remove_function(&name).await?;
    info!(function:% = name, nodes = changed.len(); "function removed");
    shared.hub.push(changed).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn claims(State(shared): App) -> Answer<Vec<Claim>> {
    Ok(Json(shared.store.claims(now_ms()).await?))
}

pub(super) async fn create_claim(State(shared): App, new: Result<Json<NewClaim>, JsonRejection>) -> Answer<CreatedClaim> {
    Ok(Json(made(&shared, body(new)?).await?))
}

/// Makes a claim.
pub(super) async fn made(shared: &Shared, new: NewClaim) -> Result<CreatedClaim, Refusal> {
    if !(1..=CLAIM_USES_MAX).contains(&new.uses) {
        return Err(Refusal::input(format!("`uses` is from 1 to {CLAIM_USES_MAX}")));
    }
    if !(1..=CLAIM_TTL_S_MAX).contains(&new.ttl_s) {
        return Err(Refusal::input(format!("`ttl_s` is from 1 to {CLAIM_TTL_S_MAX}")));
    }
    if let Some(node) = &new.replaces {
        if new.uses != 1 {
            return Err(Refusal::input("a claim that replaces a node is for one box: `uses` is 1"));
        }
        shared.store.entry(node).await?.ok_or_else(|| NodeFault::Unknown(node.clone()))?;
    }
    let (token, now_ms) = (new_token(), now_ms());
    let NewClaim { uses, ttl_s, labels, approval, replaces } = new;
    let expires_ms = now_ms + ttl_s * 1000;
    let claim = Claim { id: new_id(), uses, used: 0, expires_ms, labels, approval, replaces, revoked: false };
    shared.store.create_claim(&claim, Digest::of(token.as_bytes()), now_ms).await?;
    info!(claim = claim.id.as_str(), uses = claim.uses; "claim created");
    Ok(CreatedClaim { claim, token, fleet: shared.public_https.clone(), ca_pin: shared.authority.pin() })
}

pub(super) async fn revoke_claim(State(shared): App, id: Result<Path<String>, PathRejection>) -> Result<StatusCode, Refusal> {
    let id = path(id)?;
    if !shared.store.revoke_claim(&id, now_ms()).await? {
        let id: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no claim `{id}`")).hint("`sedge claim ls` lists them"));
    }
    info!(claim = id.as_str(); "claim revoked");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rollouts(State(shared): App) -> Answer<Vec<Rollout>> {
    Ok(Json(view::rollouts(&shared).await?))
}

pub(super) async fn create_rollout(State(shared): App, new: Result<Json<NewRollout>, JsonRejection>) -> Answer<Rollout> {
    let new = body(new)?;
    let filter: Filter = new.filter.parse().map_err(Refusal::input)?;
    let (row, changed) = shared.store.create_rollout(&new_id(), &new.function, new.revision, (&filter, now_ms())).await?;
    info!(rollout = row.id.as_str(), function:% = new.function, revision:% = row.rollout.revision, nodes = changed.len(); "rollout made");
    shared.hub.push(changed).await;
    Ok(Json(view::rollout(&shared, row).await?))
}

/// Which usage.
#[derive(Debug, Deserialize)]
pub(super) struct UsageQuery {
    function: Option<FunctionName>,
    node: Option<NodeId>,
    #[serde(default)]
    since_ms: u64,
}

pub(super) async fn usage(State(shared): App, query: Result<Query<UsageQuery>, QueryRejection>) -> Answer<Vec<UsageRow>> {
    let Query(query) = query.map_err(|cause| Refusal::input(cause.body_text()))?;
    let filter = UsageFilter { function: query.function, node: query.node, since_ms: query.since_ms };
    Ok(Json(shared.store.usage(&filter).await?))
}

pub(super) async fn errors(State(shared): App) -> Answer<Vec<NodeError>> {
    Ok(Json(shared.store.errors(ERRORS_LISTED_MAX).await?))
}

/// A status a second, until the reader goes or the fleet stops.
pub(super) async fn events(State(shared): App) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let Ok(permit) = Arc::clone(&shared.watchers).try_acquire_owned() else {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many readers of events").hint("close some pages of the console"));
    };
    let first = Arc::new(view::status(&shared).await?);
    let later = WatchStream::from_changes(shared.status.clone());
    let token = shared.stopping.clone();
    let events = tokio_stream::once(first).chain(later).map(move |status| {
        // The place among the readers is held as long as the stream lives.
        let _held = &permit;
        Ok(Event::default().event("status").json_data(&*status).unwrap_or_default())
    });
    Ok(Sse::new(Until { stream: Box::pin(events), end: Box::pin(token.cancelled_owned()) }).keep_alive(KeepAlive::default()))
}

/// A stream that ends when a future does.
struct Until<S, E> {
    stream: std::pin::Pin<Box<S>>,
    end: std::pin::Pin<Box<E>>,
}

impl<S: Stream, E: Future> Stream for Until<S, E> {
    type Item = S::Item;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<S::Item>> {
        if self.end.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(None);
        }
        self.stream.as_mut().poll_next(context)
    }
}

/// The body, or why it is none.
pub(super) fn body<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    match body {
        Ok(Json(body)) => Ok(body),
        Err(cause) => Err(Refusal::new(cause.status(), cause.body_text())),
    }
}

/// The parameter of the path, or why it is none.
pub(super) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Refusal> {
    match path {
        Ok(Path(path)) => Ok(path),
        Err(cause) => Err(Refusal::input(cause.body_text())),
    }
}

pub(super) fn new_id() -> String {
    let random = u128::from(rand::random::<u64>()) << 64 | u128::from(rand::random::<u64>());
    ulid::Ulid::from_parts(now_ms(), random).to_string().to_lowercase()
}
