//! The HTTP binding of CloudEvents: attributes are headers `ce-…`, data is the body, a 2xx body is the reply.

use std::io::Read;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::{Failure, Level, handle, log};

struct Average;
wasip2::http::proxy::export!(Average);

impl Guest for Average {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let (status, body) = match handle(&topic(&request), &body(&request)) {
            Ok(reply) => (200, reply),
            Err(Failure::BadReading(reason)) => {
                log(Level::Warn, "reading", &format!("refused: {reason}"));
                (400, reason.into_bytes())
            }
            Err(Failure::Unavailable(reason)) => {
                log(Level::Error, "state", &reason);
                (503, reason.into_bytes())
            }
        };
        respond(answer, status, &body);
    }
}

fn topic(request: &IncomingRequest) -> String {
    let values = request.headers().get("ce-topic");
    values.first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

fn body(request: &IncomingRequest) -> Vec<u8> {
    let mut data = Vec::new();
    if let Ok(body) = request.consume()
        && let Ok(mut stream) = body.stream()
        && let Err(error) = stream.read_to_end(&mut data)
    {
        log(Level::Warn, "request", &error.to_string());
    }
    data
}

fn respond(answer: ResponseOutparam, status: u16, data: &[u8]) {
    let kind: &[u8] = if status == 200 { b"application/json" } else { b"text/plain" };
    let headers = Fields::new();
    let _ = headers.append("content-type", kind);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    // The body is taken before the response is given away.
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(out) = body.write() {
        let _ = out.blocking_write_and_flush(data);
    }
    let _ = OutgoingBody::finish(body, None);
}
