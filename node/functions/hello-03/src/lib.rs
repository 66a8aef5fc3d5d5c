//! `GET /hello-03` answers with the setting `greeting`.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

mod imports {
    wit_bindgen::generate!({ world: "hello", path: "wit", generate_all });
}
use imports::wasi::config::store;

struct Hello;
wasip3::http::service::export!(Hello);

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let greeting = store::get("greeting").ok().flatten().unwrap_or_else(|| "hello".into());

        let headers = Fields::new();
        let _ = headers.append("content-type", b"text/plain; charset=utf-8");
        let (mut body, contents) = wit_stream::new();
        let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
        let (response, _delivered) = Response::new(headers, Some(contents), trailers);
        spawn_local(async move {
            body.write_all(greeting.into_bytes()).await;
        });
        Ok(response)
    }
}
