//! Serves the files of `/assets`, which travelled inside the artifact.

use std::fs;
use std::io::ErrorKind;
use wstd::http::{Body, Method, Request, Response, Result, StatusCode};

/// Where the node shows the files.
const ASSETS: &str = "/assets";
/// What the trigger of `function.toml` puts before every path.
const ROUTE: &str = "/page/";

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET or HEAD\n");
    }
    let Some(file) = file(request.uri().path()) else {
        return answer(StatusCode::NOT_FOUND, "text/plain", "not found\n");
    };
    match fs::read(format!("{ASSETS}/{file}")) {
        Ok(data) => answer(StatusCode::OK, media_type(file), data),
        Err(cause) => {
            let missing = matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory);
            let status = if missing { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
            eprintln!("{file}: {cause}");
            answer(status, "text/plain", "not found\n")
        }
    }
}

/// The file that a path names; none for one that leads elsewhere.
fn file(path: &str) -> Option<&str> {
    let file = path.strip_prefix(ROUTE)?;
    let plain = file.split('/').all(|part| !part.starts_with('.') && !part.contains(['\\', '%']));
    if file.is_empty() { Some("index.html") } else { plain.then_some(file) }
}

fn media_type(file: &str) -> &'static str {
    match file.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => "application/octet-stream",
    }
}

fn answer(status: StatusCode, media_type: &str, data: impl Into<Body>) -> Result<Response<Body>> {
    Ok(Response::builder().status(status).header("content-type", media_type).body(data.into())?)
}
