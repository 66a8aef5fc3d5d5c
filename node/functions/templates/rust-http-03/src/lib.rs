//! Answers `GET /{{name}}`, and events that arrive as `POST /` with the attributes in the headers `ce-…`.

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use wasip3::http::types::{self, ErrorCode};
use wasip3::http_compat::{Request, http_from_wasi_request, http_into_wasi_response};

struct Function;
wasip3::http::service::export!(Function);

impl wasip3::exports::http::handler::Guest for Function {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        http_into_wasi_response(answer(http_from_wasi_request(request)?).await?)
    }
}

async fn answer(request: Request) -> Result<Response<String>, ErrorCode> {
    let (head, body) = request.into_parts();
    if head.method == Method::POST {
        let data = body.collect().await?.to_bytes();
        eprintln!("an event of {} bytes", data.len()); // what a function writes is its log: `sedge logs -f`
        return Ok(Response::new(format!("{} bytes of data\n", data.len())));
    }
    eprintln!("{} {}", head.method, head.uri.path());
    if head.uri.path() == "/{{name}}" {
        return Ok(Response::new("hello from {{name}}\n".to_owned()));
    }
    let mut missing = Response::new("not found\n".to_owned());
    *missing.status_mut() = StatusCode::NOT_FOUND;
    Ok(missing)
}
