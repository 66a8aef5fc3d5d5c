//! Calls between functions of the node: no socket, and the callee is admitted, limited and metered as itself.
//!
//! A caller holds its memory and its turn while it waits, so a call never waits for what only its own callers could give back: it
//! takes no turn of its own (its caller does not run meanwhile), waits a short time for memory, and a function that would wait
//! for itself is told so at once.

use crate::functions::{Functions, Routed};
use crate::http::refuse;
use crate::invoke::{Failed, Invoker};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use sedge_protocol::FunctionName;
use sedge_runtime::limits::CALL_DEPTH_MAX;
use sedge_runtime::{CallAnswer, CallInfo, Failure, HttpError, WasiBody};
use std::sync::Arc;

/// Who can be called, and who runs it.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) functions: Functions,
    pub(crate) invoker: Invoker,
}

impl Calls {
    /// Sends `request` to `callee` for a function that waits for the answer.
    pub(crate) fn call(&self, caller: &CallInfo, callee: &FunctionName, request: Request<WasiBody>) -> CallAnswer {
        let callers: Arc<[FunctionName]> = caller.callers.iter().chain([&caller.revision.function]).cloned().collect();
        let (this, callee, causes) = (self.clone(), callee.clone(), caller.causes);
        Box::pin(async move { this.answer((callers, causes), &callee, request).await })
    }

    async fn answer(
        &self,
        (callers, causes): (Arc<[FunctionName]>, u32),
        callee: &FunctionName,
        request: Request<WasiBody>,
    ) -> Response<WasiBody> {
        if callers.len().saturating_add(causes as usize) > CALL_DEPTH_MAX {
            let before = if causes > 0 { format!(", {causes} calls and events before them") } else { String::new() };
            let text = format!("{}{before}: more than {CALL_DEPTH_MAX} calls in a row", chain(&callers, callee));
            return say(StatusCode::LOOP_DETECTED, &text);
        }
        let active = match self.functions.table().named(callee) {
            Routed::Active(active) => active,
            Routed::Coming => return say(StatusCode::SERVICE_UNAVAILABLE, &format!("the function `{callee}` is not ready yet")),
            Routed::Nowhere => return say(StatusCode::NOT_FOUND, &format!("no function of this node is called `{callee}`")),
        };
        let waits_for_itself = callers.contains(callee) && self.invoker.is_full(callee);
        if waits_for_itself {
            let text = format!("{}: it would wait for itself, its concurrency is used up by its own callers", chain(&callers, callee));
            return say(StatusCode::LOOP_DETECTED, &text);
        }
        match self.invoker.called(&active, request, (callers, causes)).await {
            Ok(response) => response.map(|body| body.map_err(|failure| broken(&failure)).boxed_unsync()),
            Err(failed) => refused(&failed),
        }
    }
}

/// `a → b → a`.
fn chain(callers: &[FunctionName], callee: &FunctionName) -> String {
    let names: Vec<&str> = callers.iter().chain([callee]).map(FunctionName::as_str).collect();
    names.join(" → ")
}

/// The answer that a client would get.
fn refused(failed: &Failed) -> Response<WasiBody> {
    refuse(failed).map(|body| body.map_err(|_| HttpError::HttpResponseIncomplete).boxed_unsync())
}

fn broken(failure: &Failure) -> HttpError {
    match failure {
        Failure::Timeout { .. } => HttpError::HttpResponseTimeout,
        _ => HttpError::HttpResponseIncomplete,
    }
}

fn say(status: StatusCode, text: &str) -> Response<WasiBody> {
    let body = Full::from(format!("{}\n", text.trim_end())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
