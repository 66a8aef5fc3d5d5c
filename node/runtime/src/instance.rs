//! A live sandbox of an HTTP component, apart from the invocation in it.
//!
//! ```text
//! make ─▶ Instance ─ enter(call) ─▶ handle(request) ─▶ still whole ─┬─▶ dropped (the default)
//!            ▲ made ahead, or used before                           └─▶ Idle (reuse) ─▶ enter …
//! ```
//! An instance that trapped or was stopped is never entered again: its handler's future was given up half-way.

use crate::body::RequestBody;
use crate::engine::Prepared;
use crate::function::{Answer, Parts};
use crate::state::State;
use crate::usage::Call;
use crate::wasi03;
use bytes::Bytes;
use http::Request;
use http_body::Body;
use std::error::Error as StdError;
use std::sync::Arc;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::p3::bindings::Service;

pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    handler: Option<Handler>,
    /// Invocations it has begun.
    served: u32,
}

/// What a component is called by.
enum Handler {
    Of02(Proxy),
    Of03(Service),
}

impl Instance {
    /// A sandbox with nothing in it yet. Its time and memory count for `call`.
    pub(crate) fn empty(parts: &Parts, call: &Arc<Call>) -> Box<Self> {
        Box::new(Self { store: parts.store(call), handler: None, served: 0 })
    }

    /// Instantiates the component; what it does at its start runs now.
    pub(crate) async fn make(&mut self, parts: &Parts) -> wasmtime::Result<()> {
        self.handler = Some(match parts.prepared() {
            Prepared::Http(pre) => Handler::Of02(pre.instantiate_async(&mut self.store).await?),
            Prepared::Http03(pre) => Handler::Of03(pre.instantiate_async(&mut self.store).await?),
            Prepared::Command(_) | Prepared::Command03(_) | Prepared::Core(_) => unreachable!("only HTTP components are kept as instances"),
        });
        Ok(())
    }

    /// Gives it to an invocation: from now on time, memory, output and deadline are those of `call`.
    pub(crate) fn enter(&mut self, call: &Arc<Call>) {
        self.store.data_mut().enter(call);
        self.store.set_epoch_deadline(State::FIRST_TURN);
    }

    /// Runs the incoming handler to its return.
    pub(crate) async fn handle<B>(&mut self, request: Request<RequestBody<B>>, sender: oneshot::Sender<Answer>) -> wasmtime::Result<()>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let handler = self.handler.as_ref().expect("an instance is made before it handles");
        let store = &mut self.store;
        self.served += 1;
        let proxy = match handler {
            Handler::Of02(proxy) => proxy,
            Handler::Of03(service) => return wasi03::handle(store, service, request, sender).await,
        };
        let incoming = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let outparam = store.data_mut().http().new_response_outparam(sender)?;
        proxy.wasi_http_incoming_handler().call_handle(store, incoming, outparam).await
    }

    /// Whoever reads a body that the guest neither finished nor dropped is told that it is not whole: by itself it would end as if it were.
    pub(crate) fn abort_bodies(&mut self) {
        let bodies = self.store.data_mut().table().iter_mut().filter_map(|entry| entry.downcast_mut::<HostOutgoingBody>());
        for body in bodies {
            let (nothing, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
            std::mem::replace(body, nothing).abort();
        }
    }

    /// Whether bodies of requests or answers are neither finished nor dropped. WASI 0.3 ends only with them.
    pub(crate) fn leaves_bodies(&mut self) -> bool {
        matches!(self.handler, Some(Handler::Of02(_)))
            && self.store.data_mut().table().iter_mut().any(|entry| entry.is::<HostOutgoingBody>())
    }

    /// Invocations it has begun.
    pub(crate) const fn served(&self) -> u32 {
        self.served
    }
}
