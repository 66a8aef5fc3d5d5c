//! The local API: HTTP over a Unix socket, for `sedge` on the same box. Bodies are those of `sedge_protocol::local`.

mod dead_letters;
mod invoke;
mod lines;
mod logs;
mod own;
mod removal;
mod secrets;
mod trace;

use crate::asynchronous;
use crate::bus::BusHandle;
use crate::dead_letters::DeadLetters;
use crate::device::Board;
use crate::functions::Functions;
use crate::invoke::Invoker;
use crate::limits::LOCAL_CONNECTIONS_MAX;
use crate::logs::Logs;
use crate::member::Door;
use crate::meter::Meter;
use crate::secrets::Secrets;
use crate::serve::{self, Where};
use crate::session::Link;
use crate::state::Places;
use crate::supervisor::Supervisor;
use crate::telemetry::{Sources, TEXT_MEDIA};
use crate::vault::Credentials;
use crate::vitals;
use anyhow::Context as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use sedge_protocol::api::Problem;
use sedge_protocol::limits::ARTIFACT_BYTES_MAX;
use sedge_protocol::local::{LocalRevision, LocalStatus};
use sedge_protocol::message::Assignment;
use sedge_protocol::{Digest, FunctionName, RevisionId, Standing};
use sedge_store::{Files, Store};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::watch;

pub(crate) use lines::Followers;
pub(crate) use own::Own;

pub(super) type LocalBody = UnsyncBoxBody<Bytes, anyhow::Error>;

/// What the local API shows and does.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) functions: Functions,
    pub(crate) invoker: Invoker,
    pub(crate) meter: Meter,
    pub(crate) logs: Logs,
    pub(crate) followers: Followers,
    pub(crate) bus: BusHandle,
    pub(crate) calls: asynchronous::Handle,
    pub(crate) letters: DeadLetters,
    pub(crate) places: Places,
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) files: Files,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) credentials: watch::Receiver<Option<Credentials>>,
    pub(crate) door: watch::Receiver<Door>,
    pub(crate) unsent: watch::Receiver<u64>,
    /// Set on a node without a fleet: what `PUT /v1/functions` changes.
    pub(crate) desired: Option<Own>,
    pub(crate) http: Option<String>,
    pub(crate) mqtt: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) sources: Sources,
    pub(crate) devices: Board,
    pub(crate) supervisor: Supervisor,
}

/// A refusal with its status.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into(), hint: None } }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.problem.hint = Some(hint.to_owned());
        self
    }
}

/// Takes the socket's path; a socket that a dead daemon left is replaced.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another daemon serves {}", path.display());
    }
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(path, mode).with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

/// Serves until the daemon stops.
pub(crate) async fn run(local: Local, listener: UnixListener) -> anyhow::Result<()> {
    let supervisor = local.supervisor.clone();
    let local = Arc::new(local);
    let answer = move |request| {
        let local = Arc::clone(&local);
        async move { answer(&local, request).await }
    };
    serve::run(listener, (LOCAL_CONNECTIONS_MAX, Where::Here), supervisor, answer).await
}

async fn answer(local: &Arc<Local>, request: Request<Incoming>) -> Response<LocalBody> {
    match route(local, request).await {
        Ok(response) => response,
        Err(Refusal { status, problem }) => {
            let mut response = json(&problem);
            *response.status_mut() = status;
            response
        }
    }
}

async fn route(local: &Arc<Local>, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["v1", "status"]) => Ok(json(&status(local).await?)),
        (&Method::GET, ["v1", "functions"]) => Ok(json(&local.meter.with_totals(local.functions.table().reports(&local.secrets)))),
        (&Method::GET, ["v1", "logs"]) => logs::stream(local, request.uri().query().unwrap_or_default()),
        (&Method::GET, ["v1", "metrics"]) => metrics(local).await,
        (&Method::GET, ["v1", "invocations", "stream"]) => logs::invocations(local, request.uri().query().unwrap_or_default()),
        (&Method::POST, ["v1", "functions", name, "trace"]) => trace::trace(local, &parse(name)?, request).await,
        (&Method::GET, ["v1", "functions", name, "state"]) => removal::kept(local, &parse(name)?).await,
        (&Method::DELETE, ["v1", "functions", name, "state"]) => removal::state(local, &parse(name)?).await,
        (&Method::GET, ["v1", "secrets"]) => Ok(json(&local.secrets.names())),
        (&Method::PUT, ["v1", "secrets", name]) => secrets::put(local, parse(name)?, request).await,
        (&Method::DELETE, ["v1", "secrets", name]) => secrets::delete(local, &parse(name)?).await,
        (_, ["v1", "dead-letters", rest @ ..]) => {
            let head = whole(request).await?;
            dead_letters::route(local, &head.method, rest, head.uri.query()).await
        }
        (_, ["v1", "invocations", rest @ ..]) => {
            let head = whole(request).await?;
            manage(local, &head.method, &rest.join("/")).await
        }
        (&Method::POST, ["v1", "functions", name, "invoke"]) => invoke::invoke(local, &parse(name)?, request).await,
        (&Method::PUT, ["v1", "artifacts", digest]) => put_artifact(local, parse(digest)?, request).await,
        (&Method::PUT, ["v1", "functions", name]) => put_function(local, parse(name)?, request).await,
        (&Method::DELETE, ["v1", "functions", name]) if request.uri().query() == Some("state=true") => {
            removal::function_and_state(local, &parse(name)?).await
        }
        (&Method::DELETE, ["v1", "functions", name]) => delete_function(local, &parse(name)?).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("no such path: {path}"))),
    }
}

async fn status(local: &Arc<Local>) -> Result<LocalStatus, Refusal> {
    let stats = Arc::clone(&local.bus.stats);
    let store = local.store.clone();
    let devices = local.devices.clone();
    let vitals = blocking(move || Ok(vitals::read(&stats, &store, &devices))).await?;
    let table = local.functions.table();
    let store = local.store.status();
    Ok(LocalStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: local.credentials.borrow().as_ref().map(|credentials| credentials.identity.node.clone()),
        fleet: local.link.borrow().state,
        fleet_note: fleet_note(local),
        http: local.http.clone(),
        mqtt: local.mqtt.clone(),
        metrics: local.metrics.clone(),
        desired_epoch: table.desired_epoch,
        functions: local.meter.with_totals(table.reports(&local.secrets)),
        vitals,
        admission: local.invoker.admission(),
        usage_unsent: *local.unsent.borrow(),
        store_bytes_written: store.write_bytes,
        calls: local.calls.counts(),
        devices: local.devices.reports(),
    })
}

/// What the fleet has against the node, or what is in the way to it.
fn fleet_note(local: &Local) -> Option<String> {
    let standing = match &local.link.borrow().standing {
        Standing::Active => None,
        Standing::Pending => Some("waits for approval: gets nothing until then".to_owned()),
        standing @ (Standing::Quarantined { .. } | Standing::Revoked { .. }) => Some(standing.to_string()),
    };
    standing.or_else(|| local.door.borrow().note.clone())
}

async fn metrics(local: &Arc<Local>) -> Result<Response<LocalBody>, Refusal> {
    let sources = local.sources.clone();
    let text = blocking(move || Ok(sources.text())).await?;
    let mut response = boxed(Response::new(Full::new(Bytes::from(text))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_MEDIA));
    Ok(response)
}

async fn manage(local: &Arc<Local>, method: &Method, rest: &str) -> Result<Response<LocalBody>, Refusal> {
    Ok(boxed(local.calls.manage(method, rest).await.unwrap_or_else(|unfit| asynchronous::refuse(&unfit))))
}

/// An answer of the asynchronous calls as one of the local API.
fn boxed(answer: Response<Full<Bytes>>) -> Response<LocalBody> {
    answer.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

async fn put_artifact(local: &Arc<Local>, digest: Digest, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    own(local)?;
    let bytes = collect(request, usize::try_from(ARTIFACT_BYTES_MAX).unwrap_or(usize::MAX)).await?;
    sedge_protocol::artifact::inspect(&bytes).map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    if Digest::of(&bytes) != digest {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the bytes have the digest {}", Digest::of(&bytes))));
    }
    let files = local.files.clone();
    blocking(move || Ok(files.put(*digest.as_bytes(), &bytes)?)).await?;
    Ok(json(&digest))
}

async fn put_function(local: &Arc<Local>, name: FunctionName, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let desired = own(local)?;
    let bytes = collect(request, 1024 * 1024).await?;
    let wrong = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let LocalRevision { artifact, manifest } = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if manifest.name != name {
        return Err(wrong(format!("the manifest names `{}`", manifest.name)));
    }
    manifest.check().map_err(wrong)?;
    let (path, asked) = (local.files.path(artifact.as_bytes()), manifest.clone());
    let inspected = blocking(move || match std::fs::read(path) {
        Ok(bytes) => Ok(Some((bytes.len() as u64, sedge_protocol::artifact::inspect_for(&bytes, &asked)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    });
    let absent = || Refusal::new(StatusCode::CONFLICT, format!("the artifact {artifact} is not here")).hint("upload it first");
    let (size, verdict) = inspected.await?.ok_or_else(absent)?;
    verdict.map_err(|fault| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, fault.to_string()))?;
    let revision = RevisionId::of(&artifact, &manifest);
    desired.put(&local.store, Assignment { revision, artifact, size, manifest }).await?;
    Ok(json(&revision))
}

async fn delete_function(local: &Arc<Local>, name: &FunctionName) -> Result<Response<LocalBody>, Refusal> {
    own(local)?.remove(&local.store, name).await?;
    Ok(json(&()))
}

/// The desired state, when it is this node's own to change.
fn own(local: &Arc<Local>) -> Result<&Own, Refusal> {
    local.desired.as_ref().ok_or_else(|| {
        Refusal::new(StatusCode::FORBIDDEN, "this node belongs to a fleet, which decides what it runs")
            .hint("change it at the fleet: `sedge rollout` for what it runs, `sedge rm FUNCTION` for what it shall not")
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error: T::Err| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn collect(request: Request<Incoming>, bytes_max: usize) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), bytes_max).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body cannot be read: {error}")))
}

/// The head of a request whose body says nothing, read to its end: a connection that is closed over unread bytes cuts the answer off.
async fn whole(request: Request<Incoming>) -> Result<http::request::Parts, Refusal> {
    let (head, body) = request.into_parts();
    collect(Request::from_parts(head.clone(), body), 1024).await?;
    Ok(head)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Result<T, Refusal> {
    let failed = |error: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(format!("{error:#}"))),
        Err(panic) => Err(failed(panic.to_string())),
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Response<LocalBody> {
    let bytes = serde_json::to_vec(value).expect("our own types have text keys");
    let mut response = Response::new(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
