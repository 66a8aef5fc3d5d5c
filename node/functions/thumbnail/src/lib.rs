//! `POST` a picture, get a small one. An event is the same: its data is the picture, the answer is the reply.

#[cfg_attr(test, expect(dead_code, reason = "the handler that uses the default runs on a node only"))]
mod scale;

#[cfg(target_family = "wasm")]
mod http {
    use crate::scale::{Fault, SIDE_DEFAULT, SIDES, scale};
    use wstd::http::{Body, Method, Request, Response, Result, StatusCode};

    #[wstd::http_server]
    async fn main(mut request: Request<Body>) -> Result<Response<Body>> {
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "POST a picture");
        }
        let Some(side) = side(request.uri().query().unwrap_or_default()) else {
            return refuse(StatusCode::BAD_REQUEST, &format!("side: {} to {} pixels", SIDES.start(), SIDES.end()));
        };
        let data = request.body_mut().contents().await?;
        match scale(data, side) {
            Ok((small, media_type)) => Ok(Response::builder().header("content-type", media_type).body(small.into())?),
            Err(fault) => {
                let status = match fault {
                    Fault::Format => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    Fault::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                    Fault::Broken(_) => StatusCode::UNPROCESSABLE_ENTITY,
                };
                refuse(status, &fault.to_string())
            }
        }
    }

    /// What `side=` asks for; none if it is out of range.
    fn side(query: &str) -> Option<u32> {
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("side="));
        asked.map_or(Some(SIDE_DEFAULT), |side| side.parse().ok().filter(|side| SIDES.contains(side)))
    }

    fn refuse(status: StatusCode, why: &str) -> Result<Response<Body>> {
        eprintln!("{status}: {why}");
        Ok(Response::builder().status(status).body(format!("{why}\n").into())?)
    }
}
