//! Asynchronous calls to a node: make one, see where it is, read its answer.

use crate::http::{Answer, exchange, exchange_with};
use crate::node::Node;
use crate::wait;
use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use sedge_protocol::invocation::{Accepted, INVOCATIONS_PATH, Invocation, InvocationId};

/// What makes a request an asynchronous call.
pub const ASYNC: (&str, &str) = ("prefer", "respond-async");

impl Node {
    /// `POST path`, asynchronously; the whole answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn post_async(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer> {
        exchange_with(&self.http(), Method::POST, path, &[&[ASYNC], headers].concat(), body)
    }

    /// [`Node::post_async`] that is accepted; its id.
    ///
    /// # Errors
    /// When it is not answered with 202.
    pub fn call(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<InvocationId> {
        let answer = self.post_async(path, headers, body)?;
        ensure!(answer.status.as_u16() == 202, "{path}: {}: {}", answer.status, answer.text());
        let accepted: Accepted = answer.json()?;
        let location = format!("{INVOCATIONS_PATH}/{}", accepted.id);
        ensure!(answer.headers["location"] == location.as_str() && answer.headers["preference-applied"] == "respond-async");
        Ok(accepted.id)
    }

    /// Where a call is.
    ///
    /// # Errors
    /// When the node does not know it.
    pub fn invocation(&self, id: InvocationId) -> Result<Invocation> {
        exchange(&self.http(), Method::GET, &format!("{INVOCATIONS_PATH}/{id}"), "")?.json()
    }

    /// What the function answered, or why there is no answer.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub fn result(&self, id: InvocationId) -> Result<Answer> {
        exchange(&self.http(), Method::GET, &format!("{INVOCATIONS_PATH}/{id}/result"), "")
    }

    /// Waits until a call is over.
    ///
    /// # Errors
    /// When it goes on.
    pub fn over(&self, id: InvocationId) -> Result<Invocation> {
        wait::until(&format!("the call {id} is over"), || {
            let found = self.invocation(id)?;
            Ok(found.state.is_over().then_some(found))
        })
    }
}
