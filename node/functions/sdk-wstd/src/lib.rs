//! What the `wstd` crate makes of its own macro, run unchanged: answers with the method, the path and the body it was sent.

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (parts, mut body) = request.into_parts();
    if parts.uri.path().ends_with("/missing") {
        return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty())?);
    }
    let topic = parts.headers.get("ce-topic").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let data = body.str_contents().await?;
    Ok(Response::new(format!("{} {} {topic} {data}", parts.method, parts.uri.path()).into()))
}
