//! Setting and forgetting secrets. There is no way to read one here.

use super::{Local, LocalBody, Refusal, collect, json};
use crate::limits::SECRET_BYTES_MAX;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use sedge_protocol::manifest::SecretName;
use sedge_runtime::Secret;
use std::sync::Arc;

/// Keeps the body as the value.
pub(super) async fn put(local: &Arc<Local>, name: SecretName, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let bytes = collect(request, SECRET_BYTES_MAX).await?;
    let value = String::from_utf8(bytes.to_vec())
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "a secret is text in UTF-8: encode other bytes, in base64 for example"))?;
    local.secrets.set(&name, &Secret::new(value)).await.map_err(|error| failed(&error))?;
    log::info!(secret:% = name; "secret set");
    Ok(json(&()))
}

/// Forgets it.
pub(super) async fn delete(local: &Arc<Local>, name: &SecretName) -> Result<Response<LocalBody>, Refusal> {
    if !local.secrets.remove(name).await.map_err(|error| failed(&error))? {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no secret `{name}`")));
    }
    log::info!(secret:% = name; "secret removed");
    Ok(json(&()))
}

fn failed(error: &anyhow::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}
