//! Artifacts and revisions come in. Everything is inspected again, whoever has inspected it before.

use super::problem::Refusal;
use super::rest::{body, path};
use crate::fleet::Shared;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use log::info;
use sedge_protocol::api::{ArtifactStored, NewRevision, Revision};
use sedge_protocol::artifact::{ArtifactError, Kind, inspect, inspect_for};
use sedge_protocol::limits::ARTIFACT_BYTES_MAX;
use sedge_protocol::{Digest, RevisionId};
use sedge_provisioning::clock::now_ms;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Takes the bytes of an artifact: right digest, valid Wasm, nothing imported that is not granted.
pub(super) async fn artifact(
    State(shared): State<Arc<Shared>>,
    digest: Result<Path<Digest>, PathRejection>,
    upload: Body,
) -> Result<Json<ArtifactStored>, Refusal> {
    let digest = path(digest)?;
    let permit = shared.uploads.acquire().await;
    let limit = usize::try_from(ARTIFACT_BYTES_MAX).unwrap_or(usize::MAX);
    let Ok(bytes) = axum::body::to_bytes(upload, limit).await else {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("an artifact has at most {ARTIFACT_BYTES_MAX} bytes, or the upload was cut"),
        )
        .hint("build with optimisation for size and without debug information"));
    };
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(Refusal::input(format!("the bytes that came have the digest {found}, not {digest}")).hint("send them again"));
    }
    let given = bytes.clone();
    let kind = inspected(move || inspect(&given)).await?;
    let size = bytes.len() as u64;
    shared.artifacts.keep(digest, bytes).await.map_err(|cause| Refusal::internal(&cause))?;
    drop(permit);
    Ok(Json(ArtifactStored { digest, size, kind }))
}

/// Makes a revision of an artifact that is here and a manifest. The same again is the same revision.
pub(super) async fn revision(
    State(shared): State<Arc<Shared>>,
    new: Result<Json<Value>, JsonRejection>,
) -> Result<Json<Revision>, Refusal> {
    let sent = body(new)?;
    let new = NewRevision::deserialize(&sent).map_err(|cause| Refusal::input(format!("a new revision: {cause}")))?;
    let known = serde_json::to_value(&new).map_err(|cause| Refusal::internal(&cause))?;
    if let Some(key) = unknown_key(&sent, &known, "") {
        return Err(
            Refusal::input(format!("unknown key `{key}`")).hint("`function.toml` and docs/functions.md say what a manifest may hold")
        );
    }
    new.manifest.check().map_err(|cause| Refusal::input(format!("manifest: {cause}")))?;
    let stored = shared.artifacts.read(new.artifact).await.map_err(|cause| Refusal::internal(&cause))?;
    let Some(bytes) = stored else {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, format!("there is no artifact {}", new.artifact));
        return Err(refusal.hint("upload it first: PUT /api/v1/artifacts/{digest}"));
    };
    let size = bytes.len() as u64;
    let manifest = new.manifest.clone();
    let kind = inspected(move || inspect_for(&bytes, &manifest)).await?;
    let id = RevisionId::of(&new.artifact, &new.manifest);
    let revision = Revision {
        id,
        function: new.manifest.name.clone(),
        artifact: new.artifact,
        size,
        kind,
        created_ms: now_ms(),
        manifest: new.manifest,
    };
    let kept = shared.store.publish(&revision).await?;
    info!(function:% = kept.function, revision:% = kept.id; "revision published");
    Ok(Json(kept))
}

/// The path of a key that was sent and not understood. Messages between versions may carry more than is known; what people write may not.
fn unknown_key(sent: &Value, known: &Value, path: &str) -> Option<String> {
    match (sent, known) {
        (Value::Object(sent), Value::Object(known)) => sent.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match known.get(key) {
                Some(known) => unknown_key(value, known, &path),
                None => (!value.is_null()).then_some(path),
            }
        }),
        (Value::Array(sent), Value::Array(known)) => {
            sent.iter().zip(known).enumerate().find_map(|(at, (sent, known))| unknown_key(sent, known, &format!("{path}[{at}]")))
        }
        _ => None,
    }
}

async fn inspected(check: impl FnOnce() -> Result<Kind, ArtifactError> + Send + 'static) -> Result<Kind, Refusal> {
    let verdict = spawn_blocking(check).await.map_err(|cause| Refusal::internal(&cause))?;
    verdict.map_err(|fault| {
        let status = match fault {
            ArtifactError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ArtifactError::Invalid(_)
            | ArtifactError::Bound { .. }
            | ArtifactError::Memory { .. }
            | ArtifactError::NotAFunction(_)
            | ArtifactError::Imports(_)
            | ArtifactError::Assets(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal::new(status, fault.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_nobody_knows_is_named_with_its_path() {
        let known = json!({ "manifest": { "name": "f", "triggers": [{ "on": "http", "route": "/f" }], "limits": { "memory_mb": 64 } } });
        assert_eq!(unknown_key(&json!({ "manifest": { "name": "f", "limits": null } }), &known, ""), None);
        for (sent, path) in [
            (json!({ "manifest": { "limits": { "memory": 1 } } }), "manifest.limits.memory"),
            (json!({ "manifest": { "triggers": [{ "on": "http", "path": "/f" }] } }), "manifest.triggers[0].path"),
            (json!({ "colour": 1 }), "colour"),
        ] {
            assert_eq!(unknown_key(&sent, &known, "").as_deref(), Some(path));
        }
    }
}
