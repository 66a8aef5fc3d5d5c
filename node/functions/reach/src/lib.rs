//! Reaches for what its path names, and answers what came of it.

mod blob;
mod file;
mod fetch;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

pub(crate) mod imports {
    wit_bindgen::generate!({ world: "reach", path: "wit", generate_all, with: { "wasi:io/streams@0.2.12": wasip2::io::streams } });
}
use imports::wasi::config::store as config;
use imports::wasi::keyvalue::store as keyvalue;

/// What came of it: status and text.
pub(crate) type Outcome = Result<Vec<u8>, String>;

struct Reach;
wasip2::http::proxy::export!(Reach);

impl Guest for Reach {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let verb = path.rsplit('/').next().unwrap_or_default().to_owned();
        let arguments: Vec<&str> = query.split('&').collect();
        let argument = |at: usize| arguments.get(at).copied().unwrap_or_default();
        // These answer while they read.
        match verb.as_str() {
            "fetch" => return fetch::forward(&request, argument(0), answer),
            "blob-stream" => return blob::stream(argument(0), argument(1), answer),
            _ => {}
        }
        let (status, text) = match reach(&verb, &argument, &request) {
            Ok(text) => (200, text),
            Err(reason) => (500, reason.into_bytes()),
        };
        respond(answer, status, &text);
    }
}

fn reach<'a>(verb: &str, argument: &dyn Fn(usize) -> &'a str, request: &IncomingRequest) -> Outcome {
    match verb {
        "ok" => Ok(b"ok".to_vec()),
        "headers" => Ok(headers(request)),
        "config" => setting(argument(0)),
        "config-all" => config::get_all().map(|all| format!("{all:?}").into_bytes()).map_err(|error| format!("{error:?}")),
        "kv-set" => bucket(argument(0))?.set(argument(1), &body(request)).map(|()| b"set".to_vec()).map_err(|error| format!("{error:?}")),
        "kv-get" => bucket(argument(0))?.get(argument(1)).map(Option::unwrap_or_default).map_err(|error| format!("{error:?}")),
        "kv-fill" => fill(argument(0)),
        "blob-put" => blob::put(argument(0), argument(1), &body(request)),
        "blob-abandon" => blob::abandon(argument(0), argument(1)),
        "blob-get" => blob::get(argument(0), argument(1), argument(2), argument(3)),
        "blob-list" => blob::list(argument(0)),
        "blob-info" => blob::info(argument(0), argument(1)),
        "blob-move" => blob::relocate(argument(0), argument(1), argument(2), argument(3)),
        "blob-delete" => blob::delete(argument(0), argument(1)),
        "blob-clear" => blob::clear(argument(0)),
        "blob-hoard" => blob::hoard(argument(0)),
        "tcp" => tcp(argument(0)),
        "tcp-listen" => TcpListener::bind(argument(0)).map(|_| b"listening".to_vec()).map_err(|error| error.to_string()),
        "tcp-hoard" => hoard(argument(0)),
        "udp" => udp(argument(0)),
        "look-up" => look_up(argument(0)),
        "file-read" => file::read(argument(0)),
        "file-write" => file::write(argument(0), argument(1)),
        "file-list" => file::list(argument(0)),
        "" => event(request),
        other => Err(format!("no verb `{other}`")),
    }
}

/// All headers of a request, a line each.
fn headers(request: &IncomingRequest) -> Vec<u8> {
    let lines = request.headers().entries().into_iter();
    lines.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(&value))).collect::<String>().into_bytes()
}

/// An event: its attributes and its data.
fn event(request: &IncomingRequest) -> Outcome {
    let headers = request.headers();
    let attribute = |name: &str| headers.get(name).first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    let data = body(request);
    Ok(format!("{} {} {}", attribute("ce-type"), attribute("ce-topic"), String::from_utf8_lossy(&data)).into_bytes())
}

fn setting(key: &str) -> Outcome {
    match config::get(key) {
        Ok(Some(value)) => Ok(value.into_bytes()),
        Ok(None) => Err("none".to_owned()),
        Err(error) => Err(format!("{error:?}")),
    }
}

fn bucket(name: &str) -> Result<keyvalue::Bucket, String> {
    keyvalue::open(name).map_err(|error| format!("{error:?}"))
}

/// Writes values of 1000 bytes until that is refused; answers how many there are and why there are no more.
fn fill(name: &str) -> Outcome {
    let bucket = bucket(name)?;
    for number in 0_u32.. {
        if let Err(error) = bucket.set(&format!("key-{number:06}"), &[b'x'; 990]) {
            return Ok(format!("{number}: {error:?}").into_bytes());
        }
    }
    Err("there is no end".to_owned())
}

fn tcp(address: &str) -> Outcome {
    let exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"ping")?;
        let mut answer = vec![0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    exchange().map_err(|error: std::io::Error| error.to_string())
}

/// Opens connections until that is refused; answers how many there were.
fn hoard(address: &str) -> Outcome {
    let mut streams = Vec::new();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => streams.push(stream),
            Err(error) => return Ok(format!("{}: {error}", streams.len()).into_bytes()),
        }
    }
}

fn udp(address: &str) -> Outcome {
    let exchange = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"ping", address)?;
        let mut answer = [0; 16];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(answer[..length].to_vec())
    };
    exchange().map_err(|error: std::io::Error| error.to_string())
}

fn look_up(name: &str) -> Outcome {
    let addresses = (name, 1).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" ").into_bytes())
}

/// The whole body of a request.
pub(crate) fn body(request: &IncomingRequest) -> Vec<u8> {
    let mut data = Vec::new();
    if let Ok(body) = request.consume() {
        if let Ok(mut stream) = body.stream() {
            let _ = stream.read_to_end(&mut data);
        }
        drop(IncomingBody::finish(body));
    }
    data
}

pub(crate) fn respond(answer: ResponseOutparam, status: u16, data: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(mut out) = body.write() {
        let _ = out.write_all(data).and_then(|()| Write::flush(&mut out));
    }
    let _ = OutgoingBody::finish(body, None);
}
