//! What is kept for a function: how much it is, and its removal.

use super::{Local, LocalBody, Refusal, blocking, dead_letters, delete_function, json};
use crate::functions::Active;
use crate::limits::{STOP_LOOK, STOP_WAIT_MAX};
use http::{Response, StatusCode};
use sedge_protocol::FunctionName;
use sedge_protocol::local::Kept;
use sedge_protocol::message::Assignment;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// `GET /v1/functions/{name}/state`
pub(super) async fn kept(local: &Arc<Local>, name: &FunctionName) -> Result<Response<LocalBody>, Refusal> {
    let (places, function) = (local.places.clone(), name.clone());
    let state = blocking(move || places.measure(&function)).await?;
    Ok(json(&with_waiting(local, name, state, false).await?))
}

/// `DELETE /v1/functions/{name}?state=true`: the function first, and what it keeps once nothing of it runs.
pub(super) async fn function_and_state(local: &Arc<Local>, name: &FunctionName) -> Result<Response<LocalBody>, Refusal> {
    let of = |active: &Arc<Active>| (Arc::downgrade(&active.assignment), active.assignment.manifest.limits.timeout_ms);
    let running = local.functions.table().active.get(name).map(of);
    delete_function(local, name).await?;
    stopped(local, name, running).await?;
    clear(local, name).await
}

/// `DELETE /v1/functions/{name}/state`: of a function that is gone already.
pub(super) async fn state(local: &Arc<Local>, name: &FunctionName) -> Result<Response<LocalBody>, Refusal> {
    let table = local.functions.table();
    if table.active.contains_key(name) || table.states.contains_key(name) {
        let hint = "take it away first: `sedge rm`, on a node of a fleet without --node";
        return Err(Refusal::new(StatusCode::CONFLICT, format!("`{name}` still runs here and would go on with no state")).hint(hint));
    }
    clear(local, name).await
}

async fn clear(local: &Arc<Local>, name: &FunctionName) -> Result<Response<LocalBody>, Refusal> {
    let (places, function) = (local.places.clone(), name.clone());
    let state = blocking(move || places.clear(&function)).await?;
    let kept = with_waiting(local, name, state, true).await?;
    log::info!(function:% = name, keys = kept.keys, bytes = kept.bytes, blob_bytes = kept.blob_bytes; "state of a function removed");
    Ok(json(&kept))
}

/// What waits, counted or removed; dead letters last, because what waited may have become one until then.
async fn with_waiting(local: &Arc<Local>, name: &FunctionName, state: Kept, remove: bool) -> Result<Kept, Refusal> {
    let failed = |error: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
    let events = local.bus.purge(name, remove).await.ok_or_else(|| failed("the node is stopping".to_owned()))?;
    let calls = if remove { local.calls.remove_of(name).await } else { local.calls.count_of(name).await };
    let calls = calls.map_err(|error| failed(format!("asynchronous calls: {error:#}")))?;
    let dead_letters = dead_letters::of(local, name, remove).await?;
    Ok(Kept { events, calls, dead_letters, ..state })
}

/// Waits until the function takes nothing new and what ran has ended: a guest that still writes would bring its state back.
///
/// Every invocation holds its assignment until it has ended, whoever drives it; `running` says when the last one has let go.
async fn stopped(local: &Arc<Local>, name: &FunctionName, running: Option<(Weak<Assignment>, u64)>) -> Result<(), Refusal> {
    let slow = |_| {
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, format!("`{name}` is removed, but has not stopped yet: its state is still there"))
            .hint("remove the state again in a while: `sedge rm --state --yes --node`")
    };
    let mut functions = local.functions.clone();
    let gone = async {
        while functions.table().active.contains_key(name) {
            if functions.changed().await.is_err() {
                return;
            }
        }
    };
    timeout(STOP_WAIT_MAX, gone).await.map_err(slow)?;
    let Some((running, limit_ms)) = running else { return Ok(()) };
    let patience = Duration::from_millis(limit_ms) + STOP_WAIT_MAX;
    let ended = async {
        while running.strong_count() > 0 {
            tokio::time::sleep(STOP_LOOK).await;
        }
    };
    timeout(patience, ended).await.map_err(slow)
}
