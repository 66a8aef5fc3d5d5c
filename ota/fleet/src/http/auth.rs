//! Who may: the admin token, or for reading the cookie of a sign-in.

use super::problem::Refusal;
use crate::fleet::Shared;
use crate::store::{Session, StoreError};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sedge_protocol::Digest;
use sedge_provisioning::clock::now_ms;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use subtle::ConstantTimeEq;

/// The cookie's name. `__Host-` binds it to this host and to TLS.
pub(super) const COOKIE: &str = "__Host-sedge";

/// Lets a request through that carries the admin token. A cookie is enough for reading: a browser sends it by itself, so it must
/// not be enough for changes.
pub(super) async fn require(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if let Some(token) = bearer(request.headers()) {
        // The right token always passes: a node with a wrong claim behind the same address must not keep the operator out.
        if is_admin(&shared, token) {
            return Ok(next.run(request).await);
        }
        check_tries(&shared, from)?;
        failed_try(&shared, from);
    } else if request.method() == Method::GET && session(&shared, request.headers()).await?.is_some() {
        return Ok(next.run(request).await);
    }
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong");
    Err(refusal
        .hint(format!("send `Authorization: Bearer <token>`; the token is in {} on the fleet's machine", shared.admin_file.display())))
}

/// Whether this is the admin token. Digests are compared, in constant time.
pub(super) fn is_admin(shared: &Shared, token: &str) -> bool {
    Digest::of(token.trim().as_bytes()).as_bytes().ct_eq(shared.admin.as_bytes()).into()
}

/// The sign-in of the request's cookie.
pub(super) async fn session(shared: &Shared, headers: &HeaderMap) -> Result<Option<Session>, StoreError> {
    match cookie(headers) {
        Some(token) => shared.store.session(Digest::of(token.as_bytes()), now_ms()).await,
        None => Ok(None),
    }
}

/// The cookie of a sign-in.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// Refuses a source that has failed too often.
pub(super) fn check_tries(shared: &Shared, from: SocketAddr) -> Result<(), Refusal> {
    let tries = shared.tries.lock().unwrap_or_else(PoisonError::into_inner);
    tries.check(from.ip(), now_ms()).map_err(Refusal::slow_down)
}

/// Notes a failure of a source.
pub(super) fn failed_try(shared: &Shared, from: SocketAddr) {
    log::warn!(from:% = from.ip(); "wrong token or claim");
    shared.tries.lock().unwrap_or_else(PoisonError::into_inner).failed(from.ip(), now_ms());
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; __Host-sedge=abc; b=2".parse().unwrap());
        assert_eq!(cookie(&headers), Some("abc"));
        headers.clear();
        headers.append(header::COOKIE, "x__Host-sedge=abc".parse().unwrap());
        assert_eq!(cookie(&headers), None);
    }
}
