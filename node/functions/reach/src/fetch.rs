//! Requests to elsewhere: what came in goes on, what comes back is the answer, both as they come.

use std::io::{Read, Write};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam,
    Scheme,
};

use crate::respond;

const CHUNK_BYTES: usize = 16 * 1024;
/// Longest wait for an answer, or for its next part, in nanoseconds.
const PATIENCE: u64 = 2_000_000_000;

/// Sends the request on to `url`, and its answer back.
pub(crate) fn forward(request: &IncomingRequest, url: &str, answer: ResponseOutparam) {
    match send(request, url) {
        Ok(response) => back(&response, answer),
        Err(reason) => respond(answer, 502, reason.as_bytes()),
    }
}

fn send(request: &IncomingRequest, url: &str) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let headers = Fields::new();
    let _ = headers.append("x-reach", b"1");
    // What only the node may say: nobody shall believe it.
    for (name, value) in [("sedge-depth", "0"), ("sedge-invocation", "forged"), ("Sedge-Depth", "-1")] {
        let _ = headers.append(name, value.as_bytes());
    }
    let outgoing = OutgoingRequest::new(headers);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    outgoing.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    outgoing.set_authority(Some(authority)).map_err(|()| "authority")?;
    outgoing.set_path_with_query(Some(path)).map_err(|()| "path")?;
    outgoing.set_method(&request.method()).map_err(|()| "method")?;
    let options = RequestOptions::new();
    let _ = options.set_connect_timeout(Some(PATIENCE / 2));
    let _ = options.set_first_byte_timeout(Some(PATIENCE));
    let _ = options.set_between_bytes_timeout(Some(PATIENCE));
    let body = outgoing.body().map_err(|()| "body")?;
    let sent = outgoing_handler::handle(outgoing, Some(options)).map_err(|code| format!("{code:?}"))?;
    if !matches!(request.method(), Method::Get | Method::Head)
        && let Ok(incoming) = request.consume()
        && let (Ok(mut from), Ok(mut to)) = (incoming.stream(), body.write())
    {
        // An answer may come before everything is sent.
        let _ = copy(&mut from, &mut to);
    }
    let _ = OutgoingBody::finish(body, None);
    sent.subscribe().block();
    match sent.get() {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(code))) => Err(format!("{code:?}")),
        Some(Err(())) | None => Err("no answer".to_owned()),
    }
}

fn back(response: &IncomingResponse, answer: ResponseOutparam) {
    let headers = Fields::new();
    for value in response.headers().get("retry-after") {
        let _ = headers.append("retry-after", &value);
    }
    let outgoing = OutgoingResponse::new(headers);
    let _ = outgoing.set_status_code(response.status());
    let Ok(body) = outgoing.body() else { return };
    ResponseOutparam::set(answer, Ok(outgoing));
    if let Ok(incoming) = response.consume()
        && let (Ok(mut from), Ok(mut to)) = (incoming.stream(), body.write())
        && let Err(error) = copy(&mut from, &mut to)
    {
        // The body is not whole, and whoever reads it shall see that.
        eprintln!("the answer broke off: {error}");
        return;
    }
    let _ = OutgoingBody::finish(body, None);
}

pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => return to.flush(),
            count => to.write_all(&chunk[..count])?,
        }
    }
}
