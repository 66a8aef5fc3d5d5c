//! Answers `GET /{{name}}`, and events that arrive as `POST /` with the attributes in the headers `ce-…`.

use wstd::http::{Body, Method, Request, Response, Result, StatusCode};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>> {
    if request.method() == Method::POST {
        let data = request.body_mut().contents().await?.to_vec();
        eprintln!("an event of {} bytes", data.len()); // what a function writes is its log: `sedge logs -f`
        return Ok(Response::new(format!("{} bytes of data\n", data.len()).into()));
    }
    eprintln!("{} {}", request.method(), request.uri().path());
    match request.uri().path() {
        "/{{name}}" => Ok(Response::new("hello from {{name}}\n".to_owned().into())),
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("not found\n".to_owned().into())?),
    }
}
