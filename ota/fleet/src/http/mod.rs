//! The HTTPS side: enrolment, REST API, console.
//!
//! ```text
//!  /enrol, /enrol/return  nobody signed in; slowed down per source when it fails
//!  /api/v1/…              bearer token; reading also with the console's cookie
//!  /, /login, /logout     the console: pages over the same API
//!  /healthz, /openapi.json
//! ```

mod auth;
mod bundle;
mod console;
mod enrol;
mod image;
mod node;
mod problem;
mod publish;
mod rest;

use crate::fleet::Shared;
use crate::limits::{BODY_BYTES_MAX, REQUEST_TIMEOUT, UPLOAD_TIMEOUT};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use problem::Refusal;
use std::sync::Arc;

/// The description of the API. A test holds it against the routes and the bodies.
const OPENAPI: &str = include_str!("openapi.json");

type Routes = Vec<(&'static str, &'static str, MethodRouter<Arc<Shared>>)>;

/// Everything under `/api/v1`: method, path, handler.
fn api() -> Routes {
    vec![
        ("get", "/status", get(rest::status)),
        ("get", "/nodes", get(node::nodes)),
        ("get", "/nodes/{id}", get(node::node)),
        ("delete", "/nodes/{id}", delete(node::remove)),
        ("put", "/nodes/{id}/standing", put(node::set_standing)),
        ("patch", "/nodes/{id}/labels", patch(node::label)),
        ("get", "/functions", get(rest::functions)),
        ("get", "/functions/{name}/revisions", get(rest::revisions)),
        ("delete", "/functions/{name}", delete(rest::remove_function)),
        // The handler has a bound of its own, larger than that of the other bodies.
        ("put", "/artifacts/{digest}", put(publish::artifact).layer(DefaultBodyLimit::disable())),
        ("post", "/revisions", post(publish::revision)),
        ("get", "/claims", get(rest::claims)),
        ("post", "/claims", post(rest::create_claim)),
        ("post", "/claims/bundle", post(bundle::create)),
        ("delete", "/claims/{id}", delete(rest::revoke_claim)),
        ("get", "/rollouts", get(rest::rollouts)),
        ("post", "/rollouts", post(rest::create_rollout)),
        ("get", "/images", get(image::images)),
        ("put", "/images/{digest}", put(image::publish).layer(DefaultBodyLimit::disable())),
        ("get", "/image-rollouts", get(image::rollouts)),
        ("post", "/image-rollouts", post(image::create_rollout)),
        ("delete", "/image-rollouts/{id}", delete(image::stop_rollout)),
        ("get", "/usage", get(rest::usage)),
        ("get", "/errors", get(rest::errors)),
        ("get", "/events", get(rest::events)),
    ]
}

/// What needs no token.
fn open() -> Routes {
    vec![
        ("post", "/enrol", post(enrol::enrol)),
        ("post", "/enrol/return", post(enrol::come_back)),
        ("get", "/healthz", get(healthz)),
        ("get", "/openapi.json", get(openapi)),
    ]
}

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let api = add(Router::new(), api()).fallback(no_such_path).method_not_allowed_fallback(wrong_method);
    let api = api.layer(from_fn_with_state(Arc::clone(&shared), auth::require));
    add(Router::new(), open())
        .nest("/api/v1", api)
        .merge(console::router())
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(in_time))
        .layer(map_response(harden))
        .with_state(shared)
}

fn add(router: Router<Arc<Shared>>, routes: Routes) -> Router<Arc<Shared>> {
    routes.into_iter().fold(router, |router, (_, path, handler)| router.route(path, handler))
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refusal> {
    shared.store.count_nodes().await?;
    Ok("ok\n")
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn no_such_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path").hint("GET /openapi.json lists all paths")
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method").hint("GET /openapi.json lists all methods")
}

/// A sender that stalls gives back its connection, and its turn to upload. Answers that stream are not cut: they have begun in time.
/// The status is one after which a node that enrols tries again.
async fn in_time(request: Request, next: Next) -> Result<Response, Refusal> {
    let upload = ["/api/v1/artifacts/", "/api/v1/images/"].iter().any(|path| request.uri().path().starts_with(path));
    let limit = if upload { UPLOAD_TIMEOUT } else { REQUEST_TIMEOUT };
    let late =
        |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("the request was not whole and answered within {} s", limit.as_secs()));
    tokio::time::timeout(limit, next.run(request)).await.map_err(late)
}

/// Headers that every answer carries.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn description() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let description = description();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            described.extend(methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
        }
        let mut routes: Vec<(String, String)> =
            api().iter().map(|(method, path, _)| (format!("/api/v1{path}"), (*method).to_owned())).collect();
        routes.extend(open().iter().map(|(method, path, _)| ((*path).to_owned(), (*method).to_owned())));
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let description = description();
        let schemas = description["components"]["schemas"].as_object().unwrap();
        for part in OPENAPI.split("\"$ref\": \"").skip(1) {
            let name = part.split('"').next().unwrap().strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    /// The properties of a schema are the keys of what is sent.
    fn check<T: serde::Serialize>(name: &str, sample: &T) {
        let sample = serde_json::to_value(sample).unwrap();
        let description = description();
        let schema = description["components"]["schemas"][name]["properties"].as_object().unwrap_or_else(|| panic!("{name}"));
        let keys: Vec<&String> = sample.as_object().unwrap().keys().collect();
        let mut known: Vec<&String> = schema.keys().collect();
        let mut sorted = keys;
        sorted.sort();
        known.sort();
        assert_eq!(known, sorted, "{name}");
    }

    #[test]
    fn bodies_are_described_as_they_are_sent() {
        use sedge_protocol::api::{Claim, FunctionUsage, LabelChange, NewClaim, NewRollout, Problem, Status};
        use sedge_protocol::enrol::ReturnRequest;
        use sedge_protocol::message::Vitals;
        use sedge_protocol::usage::Counters;
        let function: sedge_protocol::FunctionName = "f".parse().unwrap();
        check("Status", &Status::default());
        check("Counters", &Counters::default());
        let trouble = || Some(String::new());
        check("Vitals", &Vitals { store_trouble: trouble(), device_trouble: trouble(), ..Vitals::default() });
        check("FunctionUsage", &FunctionUsage { function: function.clone(), usage: Counters::default(), calls_per_second_milli: 0 });
        check("NewClaim", &NewClaim::default());
        check("NewRollout", &NewRollout { function, revision: None, filter: String::new() });
        check("Problem", &Problem { error: String::new(), hint: Some(String::new()) });
        let labels = sedge_protocol::Labels::default();
        let claim = Claim { id: String::new(), uses: 1, used: 0, expires_ms: 0, labels, approval: false, replaces: None, revoked: false };
        check("Claim", &claim);
        check("LabelChange", &LabelChange::default());
        check("ReturnRequest", &ReturnRequest { node: "n".parse().unwrap(), csr: String::new() });
    }
}
