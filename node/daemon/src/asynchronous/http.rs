//! Asynchronous calls over HTTP: taking them, and showing what became of them.

use super::record::Record;
use super::request::{self, Unfit};
use super::{Handle, Refused};
use crate::chunks;
use crate::functions::{Active, Routed};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use sedge_protocol::api::Problem;
use sedge_protocol::invocation::{Accepted, INVOCATIONS_PATH, Invocation, InvocationId, InvocationState};
use sedge_store::{Batch, Durability, Tree};
use serde::Serialize;

/// Paths below this one are the node's own.
const OWN_PATHS: &str = "/.sedge/";

type Answer = Response<Full<Bytes>>;

/// Whether a request of the HTTP listener is for [`Handle::answer`].
pub(crate) fn wanted<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(OWN_PATHS) || request::prefers_async(request.headers())
}

impl Handle {
    /// Answers a request that is [`wanted`].
    ///
    /// Cancel safe: a call that is kept stays kept.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let answer = if path.starts_with(OWN_PATHS) {
            match path.strip_prefix(INVOCATIONS_PATH).map(|rest| rest.trim_start_matches('/')) {
                Some(rest) => self.manage(request.method(), rest).await,
                None => Err(Unfit::new(StatusCode::NOT_FOUND, "no such path")),
            }
        } else {
            self.take(&path, request).await
        };
        answer.unwrap_or_else(|unfit| refuse(&unfit))
    }

    async fn take(&self, path: &str, request: Request<Incoming>) -> Result<Answer, Unfit> {
        let active = match self.functions.table().route(path) {
            Routed::Active(active) => active,
            Routed::Coming => {
                let error = "the function for this path is not ready yet, try again later";
                return Err(Unfit::new(StatusCode::SERVICE_UNAVAILABLE, error));
            }
            Routed::Nowhere => return Err(Unfit::new(StatusCode::NOT_FOUND, "no function has a route for this path")),
        };
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        self.accept(&active, target, request).await
    }

    /// Keeps a call to `active`: 202 and its id.
    pub(crate) async fn accept(&self, active: &Active, target: String, request: Request<Incoming>) -> Result<Answer, Unfit> {
        let submission = request::read(active, target, request).await?;
        let id = self.submit(submission).await.map_err(unfit)?;
        let state = self.find(id).await?.map_or(InvocationState::Queued, |found| found.view.state);
        let mut answer = json(StatusCode::ACCEPTED, &Accepted { id, state });
        let location = HeaderValue::try_from(format!("{INVOCATIONS_PATH}/{id}")).expect("a path of digits");
        answer.headers_mut().insert(LOCATION, location);
        answer.headers_mut().insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("respond-async"));
        Ok(answer)
    }

    /// `<id>` and `<id>/result`, whoever asks: the HTTP listener and the local API.
    pub(crate) async fn manage(&self, method: &Method, rest: &str) -> Result<Answer, Unfit> {
        let unknown = || Unfit::new(StatusCode::NOT_FOUND, "no such invocation: its id is wrong, or it ended too long ago");
        let (id, part) = rest.split_once('/').map_or((rest, None), |(id, part)| (id, Some(part)));
        let id: InvocationId = id.parse().map_err(|_| unknown())?;
        match (method, part) {
            (&Method::GET | &Method::HEAD, None) => Ok(json(StatusCode::OK, &self.find(id).await?.ok_or_else(unknown)?.view)),
            (&Method::GET | &Method::HEAD, Some("result")) => self.result(self.find(id).await?.ok_or_else(unknown)?).await,
            (&Method::DELETE, None) => {
                self.find(id).await?.ok_or_else(unknown)?;
                self.cancel(id).await.map_err(unfit)?;
                Ok(json(StatusCode::OK, &self.find(id).await?.ok_or_else(unknown)?.view))
            }
            (_, None | Some("result")) => {
                let mut answer =
                    refuse(&Unfit::new(StatusCode::METHOD_NOT_ALLOWED, "an invocation is read with GET and cancelled with DELETE"));
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, DELETE"));
                Ok(answer)
            }
            (_, Some(_)) => Err(Unfit::new(StatusCode::NOT_FOUND, "an invocation has a /result and nothing else")),
        }
    }

    /// What is known of a call. An end that is shown is on disk.
    async fn find(&self, id: InvocationId) -> Result<Option<Found>, Unfit> {
        let (store, letters) = (self.store.clone(), self.letters.clone());
        let read = move || {
            let bytes = store.get(Tree::Invocation, &id.number.to_be_bytes()).map_err(|error| error.to_string())?;
            let Some(bytes) = bytes else { return Ok(None) };
            let record = Record::decode(&bytes)?;
            let view = record.view(letters.contains(id.number));
            Ok((record.id == id).then_some(Found { record, view }))
        };
        let failed = |error: String| Unfit::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let found: Option<Found> = tokio::task::spawn_blocking(read).await.map_err(|panic| failed(panic.to_string()))?.map_err(failed)?;
        if found.as_ref().is_some_and(|found| found.view.state.is_over()) {
            let unwritten =
                |error: String| Unfit::new(StatusCode::SERVICE_UNAVAILABLE, format!("the disk does not keep what became of it: {error}"));
            let commit = self.store.commit(Batch::new(), Durability::Grouped).map_err(|error| unwritten(error.to_string()))?;
            commit.durable().await.map_err(|error| unwritten(error.to_string()))?;
        }
        Ok(found)
    }

    /// The function's own answer.
    async fn result(&self, found: Found) -> Result<Answer, Unfit> {
        let Found { record, view } = found;
        if !view.state.is_over() {
            let error = format!("the invocation is {}: it has no result yet", view.state.as_str());
            return Err(Unfit::new(StatusCode::CONFLICT, error));
        }
        let gone = |reason: &str| Unfit::new(StatusCode::GONE, format!("the invocation is {}: {reason}", view.state.as_str()));
        let Some(head) = record.answer else {
            return Err(gone(view.reason.as_deref().unwrap_or("the function answered nothing")));
        };
        if let Some(reason) = &head.dropped {
            return Err(gone(&format!("its answer was not kept: {reason}")));
        }
        let (store, number) = (self.store.clone(), record.id.number);
        let read = move || chunks::get(&store, Tree::Answer, number);
        let failed = |error: String| Unfit::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let body = tokio::task::spawn_blocking(read).await.map_err(|panic| failed(panic.to_string()))?;
        let body = body.map_err(|error| failed(error.to_string()))?.unwrap_or_default();
        if body.len() as u64 != head.bytes {
            return Err(gone("its answer had to make room for newer ones"));
        }
        let mut answer = Response::builder().status(head.status);
        for (name, value) in &head.headers {
            answer = answer.header(name, value.0.as_slice());
        }
        answer = answer.header("sedge-invocation", record.id.to_string());
        answer.body(Full::new(body.into())).map_err(|error| failed(error.to_string()))
    }
}

struct Found {
    record: Record,
    view: Invocation,
}

fn unfit(refused: Refused) -> Unfit {
    let status = match &refused {
        Refused::OtherRequest(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Full(_) | Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
        Refused::Begun => StatusCode::CONFLICT,
    };
    Unfit::new(status, refused.to_string())
}

/// The answer to what is no call.
pub(crate) fn refuse(unfit: &Unfit) -> Answer {
    let mut answer = json::<Problem>(unfit.status, &unfit.problem);
    if matches!(unfit.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let bytes = serde_json::to_vec(value).expect("our own types have text keys");
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
