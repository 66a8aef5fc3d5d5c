//! Answers `GET /{{name}}`, and events that arrive as `POST /` with the attributes in the headers `ce-…`.

use wstd::http::{Body, Method, Request, Response, Result, StatusCode};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>> {
    if request.method() == Method::POST {
        let data = request.body_mut().contents().await?.to_vec();
        return Ok(Response::new(format!("{} bytes of data\n", data.len()).into()));
    }
    match request.uri().path() {
        "/{{name}}" => Ok(Response::new("hello from {{name}}\n".to_owned().into())),
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("not found\n".to_owned().into())?),
    }
}
