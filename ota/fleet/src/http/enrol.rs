//! Enrolment, and the way back for a known key whose certificate has expired: the exchanges without a client certificate.

use super::auth;
use super::problem::Refusal;
use crate::farewell::{Farewell, refusal};
use crate::fleet::Shared;
use crate::store::{Admission, ClaimRefusal, EnrolFault, Joined};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use log::{info, warn};
use sedge_protocol::enrol::{EnrolRequest, Enrolled, ReturnRequest};
use sedge_protocol::message::CLOSE_REVOKED;
use sedge_protocol::{Digest, NodeId};
use sedge_provisioning::clock::now_ms;
use sedge_provisioning::issuer::request_key;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

pub(super) async fn enrol(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<EnrolRequest>, JsonRejection>,
) -> Result<Json<Enrolled>, Refusal> {
    auth::check_tries(&shared, from)?;
    let Json(request) = body.map_err(|cause| Refusal::input(cause.body_text()))?;
    let key = key(&shared, from, &request.csr)?;
    let name = request.name.unwrap_or_else(drawn_name);
    let now_ms = now_ms();
    let admission = Admission { token: Digest::of(request.claim.trim().as_bytes()), key, name: &name, labels: &request.labels, now_ms };
    let issue = |node: &NodeId| {
        let issued = shared.authority.issue_node(&request.csr, node, now_ms, shared.certificates.life)?;
        Ok((issued.certificate, issued.not_after_ms))
    };
    match shared.store.enrol(&admission, issue).await {
        Ok(Joined { node, certificate, changed, replaced, left }) => {
            if let Some(left) = left {
                info!(node:% = left, now:% = node; "node removed: its box has taken over another entry");
                shared.hub.end(&left, Farewell::unknown()).await;
            }
            if replaced {
                shared.hub.end(&node, Farewell::taken_over()).await;
            }
            shared.hub.push(changed).await;
            info!(node:%, replaced, from:% = from.ip(); "node enrolled");
            Ok(Json(Enrolled { node, certificate, sync: shared.public_sync.clone() }))
        }
        Err(EnrolFault::Claim(refusal)) => {
            warn!(from:% = from.ip(), reason:% = refusal; "enrolment refused");
            auth::failed_try(&shared, from);
            let answer = Refusal::new(StatusCode::FORBIDDEN, refusal.to_string());
            Err(if refusal == ClaimRefusal::Barred { answer.revoked() } else { answer })
        }
        Err(EnrolFault::Request(cause)) => Err(Refusal::input(cause)),
        Err(EnrolFault::Rollout(fault)) => Err(fault.into()),
        Err(EnrolFault::Store(cause)) => Err(cause.into()),
    }
}

/// A certificate for a node whose last one has expired: it proves itself by the key that it has had since it enrolled. An answer that is
/// asked for again by somebody else, with the same words, is of no use without that key.
pub(super) async fn come_back(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<ReturnRequest>, JsonRejection>,
) -> Result<Json<Enrolled>, Refusal> {
    auth::check_tries(&shared, from)?;
    let Json(ReturnRequest { node, csr }) = body.map_err(|cause| Refusal::input(cause.body_text()))?;
    let (key, now_ms) = (key(&shared, from, &csr)?, now_ms());
    let refused = |reason: String| {
        warn!(node:%, from:% = from.ip(), reason; "return refused");
        auth::failed_try(&shared, from);
        Refusal::new(StatusCode::FORBIDDEN, reason)
    };
    let entry = shared.store.entry(&node).await?;
    if let Some(farewell) = refusal(entry.as_ref(), key) {
        let answer = refused(farewell.reason);
        return Err(if farewell.code == CLOSE_REVOKED { answer.revoked() } else { answer });
    }
    let until_ms = entry.map_or(0, |entry| entry.certificate_until_ms);
    let days = shared.certificates.return_days;
    if now_ms.saturating_sub(until_ms) > u64::from(days) * 24 * 3_600_000 {
        let reason =
            format!("the certificate has ended more than {days} days ago: a claim lets the node join again (`sedge claim create`)");
        return Err(refused(reason));
    }
    // Who has the key is held back too: a node that asks again and again costs signatures.
    let turn = shared.returns.lock().unwrap_or_else(PoisonError::into_inner).take(node.clone(), now_ms);
    turn.map_err(Refusal::slow_down)?;
    let issued = shared.authority.issue_node(&csr, &node, now_ms, shared.certificates.life).map_err(Refusal::input)?;
    shared.store.renewed(&node, issued.not_after_ms).await?;
    info!(node:%, from:% = from.ip(), expired_ms = now_ms.saturating_sub(until_ms); "node came back with an expired certificate");
    Ok(Json(Enrolled { node, certificate: issued.certificate, sync: shared.public_sync.clone() }))
}

/// The key of a certificate request, whose signature is verified here.
fn key(shared: &Shared, from: SocketAddr, csr: &str) -> Result<Digest, Refusal> {
    request_key(csr).map_err(|cause| {
        auth::failed_try(shared, from);
        Refusal::input(cause)
    })
}

fn drawn_name() -> NodeId {
    format!("node-{:08x}", rand::random::<u32>()).parse().expect("eight digits behind a word are a node id")
}
