//! The page for people. It shows what the API answers and has no powers of its own.

use super::auth::{self, COOKIE};
use super::problem::Refusal;
use crate::fleet::Shared;
use crate::keys::new_token;
use crate::limits::SESSION_MS;
use crate::store::Session;
use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use lines::Live;
use log::info;
use sedge_protocol::Digest;
use sedge_provisioning::clock::now_ms;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

mod lines;
mod words;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(page))
        .route("/live", get(live))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    nonce: &'a str,
    csrf: &'a str,
    live: Live,
}

#[derive(Template)]
#[template(path = "live.html")]
struct Fragment {
    live: Live,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    nonce: &'a str,
    fault: Option<&'a str>,
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

#[derive(Deserialize)]
struct SignOut {
    csrf: String,
}

async fn page(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let Some(session) = auth::session(&shared, &headers).await? else { return Ok(Redirect::to("/login").into_response()) };
    let nonce = new_token();
    let page = Page { nonce: &nonce, csrf: &session.csrf, live: Live::of(&shared).await? };
    rendered(&page, &nonce, StatusCode::OK)
}

/// The tables alone: the page fetches them again while it is open.
async fn live(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    if auth::session(&shared, &headers).await?.is_none() {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the sign-in has ended").hint("sign in again"));
    }
    rendered(&Fragment { live: Live::of(&shared).await? }, "", StatusCode::OK)
}

async fn login_page(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    if auth::session(&shared, &headers).await?.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    login_form(None, StatusCode::OK)
}

async fn login(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<SignIn>, FormRejection>,
) -> Result<Response, Refusal> {
    // Nobody signs a visitor in from another site.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "sign in on the fleet's own page"));
    }
    let Ok(Form(SignIn { token })) = form else {
        return login_form(Some("No token came with the form."), StatusCode::BAD_REQUEST);
    };
    if !auth::is_admin(&shared, &token) {
        auth::check_tries(&shared, from)?;
        auth::failed_try(&shared, from);
        return login_form(Some("That is not the admin token."), StatusCode::FORBIDDEN);
    }
    let (cookie, now_ms) = (new_token(), now_ms());
    let session = Session { csrf: new_token(), expires_ms: now_ms + SESSION_MS };
    shared.store.sign_in(Digest::of(cookie.as_bytes()), &session, now_ms).await?;
    info!(from:% = from.ip(); "signed in");
    let cookie = format!("{COOKIE}={cookie}; Path=/; Max-Age={}; HttpOnly; Secure; SameSite=Strict", SESSION_MS / 1000);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

async fn logout(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Result<Form<SignOut>, FormRejection>,
) -> Result<Response, Refusal> {
    let session = auth::session(&shared, &headers).await?;
    if let (Some(session), Some(cookie), Ok(Form(form))) = (session, auth::cookie(&headers), form) {
        if !bool::from(session.csrf.as_bytes().ct_eq(form.csrf.as_bytes())) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "the form is not of this sign-in").hint("reload the page"));
        }
        shared.store.sign_out(Digest::of(cookie.as_bytes())).await?;
    }
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict");
    Ok(([(header::SET_COOKIE, gone)], Redirect::to("/login")).into_response())
}

fn login_form(fault: Option<&str>, status: StatusCode) -> Result<Response, Refusal> {
    let nonce = new_token();
    rendered(&Login { nonce: &nonce, fault }, &nonce, status)
}

/// Only what carries the nonce of this answer runs or styles; nothing is loaded from elsewhere.
fn rendered(template: &impl Template, nonce: &str, status: StatusCode) -> Result<Response, Refusal> {
    let html = template.render().map_err(|cause| Refusal::internal(&cause))?;
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    );
    Ok((status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response())
}
