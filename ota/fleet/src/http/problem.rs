//! Refusals as the API gives them: a status, one sentence, and what to do next.

use crate::store::{NodeFault, RolloutFault, StoreError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use log::error;
use sedge_protocol::api::Problem;
use sedge_protocol::enrol::Refused;
use std::error::Error;

/// A request that is not granted.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problem: Problem,
    retry_after_s: Option<u64>,
    revoked: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into(), hint: None }, retry_after_s: None, revoked: false }
    }

    /// Something is wrong with what was sent.
    pub(crate) fn input(cause: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, cause.to_string())
    }

    /// Too many failures from one source.
    pub(crate) fn slow_down(retry_after_s: u64) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, format!("too many failed tries from this address: wait {retry_after_s} s"));
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }

    /// The node that asks is not wanted any more: it reads that, beside the sentence for people.
    pub(crate) fn revoked(self) -> Self {
        Self { revoked: true, ..self }
    }

    /// What to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// The fleet itself failed; the log has the chain of causes.
    pub(crate) fn internal(cause: &(dyn Error + 'static)) -> Self {
        let (mut chain, mut next) = (cause.to_string(), cause.source());
        while let Some(cause) = next {
            chain = format!("{chain}: {cause}");
            next = cause.source();
        }
        error!(cause = chain; "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the fleet could not do it").hint("its log says why")
    }
}

impl From<StoreError> for Refusal {
    fn from(cause: StoreError) -> Self {
        Self::internal(&cause)
    }
}

impl From<RolloutFault> for Refusal {
    fn from(fault: RolloutFault) -> Self {
        match fault {
            RolloutFault::Function(_) => {
                Self::new(StatusCode::NOT_FOUND, fault.to_string()).hint("`sedge ls` lists the functions, `sedge publish` makes one")
            }
            RolloutFault::Revision(..) => Self::new(StatusCode::NOT_FOUND, fault.to_string()).hint("`sedge revisions` lists them"),
            RolloutFault::TooMany { .. } | RolloutFault::Raced(_) => Self::new(StatusCode::CONFLICT, fault.to_string()),
            RolloutFault::Store(cause) => cause.into(),
        }
    }
}

impl From<NodeFault> for Refusal {
    fn from(fault: NodeFault) -> Self {
        match fault {
            NodeFault::Unknown(_) => Self::new(StatusCode::NOT_FOUND, fault.to_string()).hint("`sedge node ls` lists them"),
            NodeFault::Label(_) => Self::input(fault),
            NodeFault::Rollout(fault) => fault.into(),
            NodeFault::Store(cause) => cause.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = match self.revoked {
            true => (self.status, Json(Refused { error: self.problem.error, revoked: true })).into_response(),
            false => (self.status, Json(self.problem)).into_response(),
        };
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
