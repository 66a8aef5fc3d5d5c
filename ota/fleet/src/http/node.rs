//! What an operator decides about nodes.

use super::problem::Refusal;
use super::rest::{body, path};
use crate::farewell::Farewell;
use crate::fleet::Shared;
use crate::store::NodeFault;
use crate::view;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use log::info;
use sedge_fleet_core::Filter;
use sedge_protocol::api::{LabelChange, Node};
use sedge_protocol::{NodeId, Standing};
use sedge_provisioning::clock::now_ms;
use serde::Deserialize;
use std::sync::Arc;

type App = State<Arc<Shared>>;
type Answer<T> = Result<Json<T>, Refusal>;
type Id = Result<Path<NodeId>, PathRejection>;

/// Which nodes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct NodesQuery {
    #[serde(default)]
    filter: String,
}

pub(super) async fn nodes(State(shared): App, query: Result<Query<NodesQuery>, QueryRejection>) -> Answer<Vec<Node>> {
    let Query(query) = query.map_err(|cause| Refusal::input(cause.body_text()))?;
    let filter: Filter = query.filter.parse().map_err(Refusal::input)?;
    let mut nodes = view::nodes(&shared).await?;
    nodes.retain(|node| filter.matches(&node.id, &node.labels));
    Ok(Json(nodes))
}

pub(super) async fn node(State(shared): App, id: Id) -> Answer<Node> {
    shown(&shared, &path(id)?).await
}

/// Approves, quarantines or revokes. What is decided is durable before the connection hears of it.
pub(super) async fn set_standing(State(shared): App, id: Id, standing: Result<Json<Standing>, JsonRejection>) -> Answer<Node> {
    let (id, standing) = (path(id)?, body(standing)?);
    standing.check().map_err(Refusal::input)?;
    if standing == Standing::Pending {
        return Err(Refusal::input("a node waits for approval by its claim alone").hint("quarantine it instead"));
    }
    let changed = shared.store.set_standing(&id, &standing, now_ms()).await?;
    info!(node:% = id, standing:%; "standing of a node set");
    match &standing {
        Standing::Revoked { reason } => shared.hub.end(&id, Farewell::revoked(reason)).await,
        // What came before is judged; two boxes that both still live show themselves again.
        Standing::Active => shared.hub.pardon(&id).await,
        Standing::Pending | Standing::Quarantined { .. } => {}
    }
    shared.hub.stands(&id, standing).await;
    shared.hub.push(changed).await;
    shown(&shared, &id).await
}

pub(super) async fn remove(State(shared): App, id: Id) -> Result<StatusCode, Refusal> {
    let id = path(id)?;
    shared.store.remove_node(&id, now_ms()).await?;
    info!(node:% = id; "node removed");
    shared.hub.end(&id, Farewell::unknown()).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn label(State(shared): App, id: Id, change: Result<Json<LabelChange>, JsonRejection>) -> Answer<Node> {
    let (id, change) = (path(id)?, body(change)?);
    let changed = shared.store.label_node(&id, &change).await?;
    info!(node:% = id, set:% = change.set, removed = change.remove.join(","); "labels of a node changed");
    shared.hub.push(changed).await;
    shown(&shared, &id).await
}

async fn shown(shared: &Shared, id: &NodeId) -> Answer<Node> {
    view::node(shared, id).await?.map(Json).ok_or_else(|| NodeFault::Unknown(id.clone()).into())
}
