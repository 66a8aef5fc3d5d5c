//! `POST /api/v1/claims/bundle`: a claim, what matches it and the artifacts of that, as one stream for a box without a network.

use super::problem::Refusal;
use super::rest::{body, made};
use crate::fleet::Shared;
use crate::limits::BUNDLE_BYTES_MAX;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use log::info;
use sedge_protocol::NodeId;
use sedge_protocol::api::{CLAIM_HEADER, NewClaim};
use sedge_protocol::message::Desired;
use sedge_provisioning::bundle::{self, BundleError, Grant};
use std::io::Cursor;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::ReaderStream;

pub(super) async fn create(State(shared): State<Arc<Shared>>, new: Result<Json<NewClaim>, JsonRejection>) -> Result<Response, Refusal> {
    let new = body(new)?;
    let desired = desired(&shared, &new).await?;
    let mut stream: Box<dyn AsyncRead + Send + Unpin> = Box::new(Cursor::new(Vec::new()));
    let mut grant = Grant { claim: String::new(), fleet: String::new(), labels: new.labels.clone(), assignments: desired.assignments };
    let mut length = 0_u64;
    for (digest, size) in grant.artifacts() {
        let file = shared.artifacts.file(digest).await.map_err(|cause| Refusal::internal(&cause))?;
        let Some((file, found)) = file.filter(|(_, found)| *found == size) else {
            let refusal = Refusal::new(StatusCode::CONFLICT, format!("the artifact {digest} is not here as it was published"));
            return Err(refusal.hint("publish it again"));
        };
        length += found;
        stream = Box::new(stream.chain(file.take(found)));
    }
    if length > BUNDLE_BYTES_MAX {
        let refusal = Refusal::new(StatusCode::CONFLICT, format!("the functions have {length} bytes, {BUNDLE_BYTES_MAX} are allowed"));
        return Err(refusal.hint("take some off these nodes, or give them after the box has joined"));
    }
    // Last, so that nothing that is refused leaves a claim behind.
    let created = made(&shared, new).await?;
    (grant.claim, grant.fleet) = (created.token, created.fleet);
    let head = bundle::head(&shared.authority, &grant).map_err(|fault| match fault {
        BundleError::Frame(_) => Refusal::new(StatusCode::CONFLICT, "the functions that match are too many for one bundle"),
        fault => Refusal::internal(&fault),
    })?;
    info!(claim = created.claim.id.as_str(), functions = grant.assignments.len(), bytes = length; "bundle made");
    let length = length + head.len() as u64;
    let body = Body::from_stream(ReaderStream::new(Cursor::new(head).chain(stream)));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (HeaderName::from_static(CLAIM_HEADER), created.claim.id),
    ];
    Ok((headers, body).into_response())
}

/// What the box will be told once it has joined, as far as the fleet can know: its own labels and its name it cannot.
async fn desired(shared: &Shared, new: &NewClaim) -> Result<Desired, Refusal> {
    if new.approval {
        return Ok(Desired::default());
    }
    let nobody: NodeId = "unclaimed".parse().expect("a word of letters is a node id");
    let (mut labels, node) = (sedge_protocol::Labels::default(), new.replaces.as_ref().unwrap_or(&nobody));
    if let Some(row) = shared.store.node(node).await? {
        labels = row.labels;
    }
    labels.extend(&new.labels);
    Ok(shared.store.foreseen(node, &labels).await?)
}
