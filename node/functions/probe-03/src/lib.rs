//! Does what the last part of its path names.

mod file;
mod reach;

use futures::future::join;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

const MILLISECOND: u64 = 1_000_000;
const CHUNK_BYTES: usize = 64 * 1024;

type End = FutureReader<Result<Option<Trailers>, ErrorCode>>;

struct Probe;
wasip3::http::service::export!(Probe);

impl Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, argument) = target.split_once('?').unwrap_or((&target, ""));
        match path.rsplit('/').next().unwrap_or_default() {
            "ok" => Ok(whole(200, b"ok".to_vec())),
            "where" => Ok(whole(200, format!("{:?} {:?}", request.get_scheme(), request.get_authority()).into_bytes())),
            "echo" => Ok(echo(request)),
            "big" => Ok(streamed(8 << 20, Finish::Cleanly)),
            "endless" => Ok(streamed(usize::MAX, Finish::Cleanly)),
            "half" => Ok(streamed(argument.parse().unwrap_or(256 * 1024), Finish::Trap)),
            "short" => Ok(short()),
            "after" => Ok(after(argument)),
            "together" => Ok(together().await),
            "error" => Err(ErrorCode::InternalError(Some("told to".to_owned()))),
            "trap" => panic!("told to"),
            "loop" => loop {
                std::hint::black_box(0);
            },
            "slow" => {
                wait_for(60_000 * MILLISECOND).await;
                Ok(whole(200, b"late".to_vec()))
            }
            "allocate" => {
                let mut held = Vec::new();
                loop {
                    held.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "hoard" => hoard(argument).await,
            "log" => {
                println!("on standard output");
                eprintln!("on standard error");
                Ok(whole(200, b"logged".to_vec()))
            }
            "" => {
                let data = read(request).await?;
                Ok(whole(200, data.to_ascii_uppercase()))
            }
            verb => Ok(match reach::reach(verb, argument).await {
                Ok(text) => whole(200, text.into_bytes()),
                Err(reason) => whole(500, reason.into_bytes()),
            }),
        }
    }
}

/// How a stream ends.
enum Finish {
    Cleanly,
    Trap,
}

fn no_trailers() -> End {
    wit_future::new(|| Ok(None)).1
}

/// All of it at once, with its length.
fn whole(status: u16, text: Vec<u8>) -> Response {
    let headers = Fields::new();
    let _ = headers.append("content-length", text.len().to_string().as_bytes());
    let (mut body, contents) = wit_stream::new();
    let (response, _delivered) = Response::new(headers, Some(contents), no_trailers());
    let _ = response.set_status_code(status);
    spawn_local(async move {
        body.write_all(text).await;
    });
    response
}

/// The whole body of a request.
async fn read(request: Request) -> Result<Vec<u8>, ErrorCode> {
    let (_done, done) = wit_future::new(|| Ok(()));
    let (body, end) = Request::consume_body(request, done);
    let data = body.collect().await;
    end.await.map(|_| data)
}

/// What comes in goes out, piece by piece, its trailers too.
fn echo(request: Request) -> Response {
    let (_done, done) = wit_future::new(|| Ok(()));
    let (body, end) = Request::consume_body(request, done);
    let (mut out, contents) = wit_stream::new();
    let (trailers, of_response) = wit_future::new(|| Ok(None));
    let (response, _delivered) = Response::new(Fields::new(), Some(contents), of_response);
    spawn_local(async move {
        copy(body, &mut out).await;
        drop(out);
        let _ = trailers.write(end.await).await;
    });
    response
}

async fn copy(mut from: StreamReader<u8>, to: &mut StreamWriter<u8>) {
    loop {
        let (result, piece) = from.read(Vec::with_capacity(CHUNK_BYTES)).await;
        let over = matches!(result, wasip3::wit_bindgen::StreamResult::Dropped);
        if !to.write_all(piece).await.is_empty() || over {
            return;
        }
    }
}

fn streamed(bytes: usize, finish: Finish) -> Response {
    let (mut body, contents) = wit_stream::new();
    let (response, _delivered) = Response::new(Fields::new(), Some(contents), no_trailers());
    spawn_local(async move {
        for _ in 0..bytes / CHUNK_BYTES {
            if !body.write_all(vec![b'x'; CHUNK_BYTES]).await.is_empty() {
                return;
            }
        }
        if matches!(finish, Finish::Trap) {
            panic!("half-way");
        }
    });
    response
}

/// Promises more than it sends.
fn short() -> Response {
    let headers = Fields::new();
    let _ = headers.append("content-length", b"100");
    let (mut body, contents) = wit_stream::new();
    let (response, _delivered) = Response::new(headers, Some(contents), no_trailers());
    spawn_local(async move {
        body.write_all(b"too short".to_vec()).await;
    });
    response
}

/// Answers, and then still does something: writes a line, or never ends.
fn after(what: &str) -> Response {
    let endless = what == "forever";
    spawn_local(async move {
        wait_for(20 * MILLISECOND).await;
        eprintln!("after the answer");
        if endless {
            wait_for(60_000 * MILLISECOND).await;
        }
    });
    whole(200, b"answered".to_vec())
}

/// Waits for two things at a time.
async fn together() -> Response {
    join(wait_for(100 * MILLISECOND), wait_for(100 * MILLISECOND)).await;
    whole(200, b"both".to_vec())
}

/// Makes without end what the host has to remember.
async fn hoard(what: &str) -> Result<Response, ErrorCode> {
    let mut streams = Vec::new();
    let mut waits = Vec::new();
    let mut fields = Vec::new();
    loop {
        match what {
            "streams" => streams.push(wit_stream::new::<u8>()),
            "waits" => {
                let mut wait = Box::pin(wait_for(60_000 * MILLISECOND));
                let _ = futures::poll!(&mut wait);
                waits.push(wait);
            }
            _ => fields.push(Fields::new()),
        }
    }
}
