//! What the HTTP macro of the `spin-sdk` crate makes, run unchanged: answers with the method, the path and the body it was sent.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::http_component;

#[http_component]
fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    if request.path().ends_with("/missing") {
        return Ok(Response::builder().status(404).build());
    }
    let topic = request.header("ce-topic").and_then(|value| value.as_str()).unwrap_or("-");
    let data = String::from_utf8_lossy(request.body());
    let text = format!("{} {} {topic} {data}", request.method(), request.path());
    Ok(Response::builder().status(200).header("content-type", "text/plain").body(text).build())
}
