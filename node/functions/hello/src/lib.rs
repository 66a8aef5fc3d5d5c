//! `GET /hello` answers with the setting `greeting`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

mod imports {
    wit_bindgen::generate!({ world: "hello", path: "wit", generate_all });
}
use imports::wasi::config::store;

struct Hello;
wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_request: IncomingRequest, answer: ResponseOutparam) {
        let greeting = store::get("greeting").ok().flatten().unwrap_or_else(|| "hello".into());

        let headers = Fields::new();
        let _ = headers.append("content-type", b"text/plain; charset=utf-8");
        let response = OutgoingResponse::new(headers);
        // The body is taken before the response is given away.
        let Ok(body) = response.body() else { return };
        ResponseOutparam::set(answer, Ok(response));

        if let Ok(out) = body.write() {
            let _ = out.blocking_write_and_flush(greeting.as_bytes());
        }
        let _ = OutgoingBody::finish(body, None);
    }
}
