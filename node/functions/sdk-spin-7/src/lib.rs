//! What the HTTP macro of the `spin-sdk` crate makes, run unchanged: answers with the method, the path and the body it was sent.

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{IntoResponse, Request, StatusCode};
use spin_sdk::http_service;

#[http_service]
async fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/missing") {
        return Ok((StatusCode::NOT_FOUND, String::new()));
    }
    let topic = head.headers.get("ce-topic").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let data = body.bytes().await?;
    let text = format!("{} {} {topic} {}", head.method, head.uri.path(), String::from_utf8_lossy(&data));
    Ok((StatusCode::OK, text))
}
