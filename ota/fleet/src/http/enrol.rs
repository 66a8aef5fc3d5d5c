//! Enrolment: the one exchange without a client certificate.

use super::auth;
use super::problem::Refusal;
use crate::fleet::Shared;
use crate::limits::CERTIFICATE_DAYS;
use crate::store::{Admission, ClaimRefusal, EnrolFault};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use log::{info, warn};
use sedge_protocol::enrol::{EnrolRequest, Enrolled};
use sedge_protocol::{Digest, NodeId};
use sedge_provisioning::clock::now_ms;
use sedge_provisioning::issuer::request_key;
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) async fn enrol(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<EnrolRequest>, JsonRejection>,
) -> Result<Json<Enrolled>, Refusal> {
    auth::check_tries(&shared, from)?;
    let Json(request) = body.map_err(|cause| Refusal::input(cause.body_text()))?;
    let key = request_key(&request.csr).map_err(|cause| {
        auth::failed_try(&shared, from);
        Refusal::input(cause)
    })?;
    let name = request.name.unwrap_or_else(drawn_name);
    let now_ms = now_ms();
    let admission = Admission { token: Digest::of(request.claim.trim().as_bytes()), key, name: &name, labels: &request.labels, now_ms };
    let issue = |node: &NodeId| {
        let issued = shared.authority.issue_node(&request.csr, node, now_ms, CERTIFICATE_DAYS)?;
        Ok((issued.certificate, issued.not_after_ms))
    };
    match shared.store.enrol(&admission, issue).await {
        Ok((node, certificate, changed)) => {
            shared.hub.push(changed).await;
            info!(node:%, from:% = from.ip(); "node enrolled");
            Ok(Json(Enrolled { node, certificate, sync: shared.public_sync.clone() }))
        }
        Err(EnrolFault::Claim(refusal @ (ClaimRefusal::Unknown | ClaimRefusal::Expired | ClaimRefusal::UsedUp))) => {
            warn!(from:% = from.ip(), reason:% = refusal; "enrolment refused");
            auth::failed_try(&shared, from);
            Err(Refusal::new(StatusCode::FORBIDDEN, refusal.to_string()))
        }
        Err(EnrolFault::Request(cause)) => Err(Refusal::input(cause)),
        Err(EnrolFault::Rollout(fault)) => Err(fault.into()),
        Err(EnrolFault::Store(cause)) => Err(cause.into()),
    }
}

fn drawn_name() -> NodeId {
    format!("node-{:08x}", rand::random::<u32>()).parse().expect("eight digits behind a word are a node id")
}
