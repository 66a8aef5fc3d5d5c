//! Misbehaves on demand.

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme};

const MIB: usize = 1024 * 1024;
const BIG_BYTES: usize = 8 * MIB;
const SLOW: Duration = Duration::from_secs(2);
/// Long enough for the head of an answer to leave.
const SOON: Duration = Duration::from_millis(100);
const LINES: usize = 10_000;

struct Faulty;
wasip2::http::proxy::export!(Faulty);

impl Guest for Faulty {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        match wish(&request).as_str() {
            "ok" => respond(answer, 200, b"ok"),
            "count" => respond(answer, 200, count().to_string().as_bytes()),
            "keep-request" => {
                // The next invocation of this instance still holds what belongs to this one.
                std::mem::forget(request);
                respond(answer, 200, b"kept");
            }
            "trap" => core::arch::wasm32::unreachable(),
            "panic" => panic!("as you wished"),
            "loop" => spin(),
            "allocate" => allocate(),
            "nothing" => {}
            "slow" => {
                std::thread::sleep(SLOW);
                respond(answer, 200, b"slow");
            }
            "print-a-lot" => {
                (0..LINES).for_each(|line| println!("line {line} of {LINES}"));
                respond(answer, 200, b"printed");
            }
            "big" => respond(answer, 200, &vec![b'x'; BIG_BYTES]),
            "hoard-fields" => respond(answer, 200, hoard_fields().as_bytes()),
            "hoard-bodies" => respond(answer, 200, hoard_bodies().to_string().as_bytes()),
            "fetch" => respond(answer, 200, fetch().as_bytes()),
            "leave-body" => std::mem::forget(begin(answer, b"half")),
            "leave-body-late" => {
                let body = begin(answer, b"half");
                std::thread::sleep(SOON);
                std::mem::forget(body);
            }
            "exit-half" => {
                let _body = begin(answer, b"half");
                std::process::exit(0);
            }
            "status" => respond(answer, 500, b"as you wished"),
            other if status_of(other).is_some() => respond(answer, status_of(other).unwrap_or_default(), b"as you wished"),
            "trace" => {
                println!("traced");
                respond(answer, 200, &request.headers().get("traceparent").concat());
            }
            other => match order(other) {
                Some((rounds, mib)) => respond(answer, 200, compute(rounds, mib).to_string().as_bytes()),
                None => respond(answer, 404, b"no such fault"),
            },
        }
    }
}

/// The last part of the path, or the body if the path has none.
fn wish(request: &IncomingRequest) -> String {
    let target = request.path_with_query().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let word = path.rsplit('/').next().unwrap_or_default();
    if !word.is_empty() {
        return word.to_owned();
    }
    let mut text = String::new();
    if let Ok(body) = request.consume()
        && let Ok(mut stream) = body.stream()
        && stream.read_to_string(&mut text).is_err()
    {
        return "a body that is no text".into();
    }
    text.trim().to_owned()
}

/// Invocations of this instance so far.
fn count() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

/// `status-CODE`
fn status_of(wish: &str) -> Option<u16> {
    wish.strip_prefix("status-")?.parse().ok()
}

/// `compute-ROUNDS-MIB`: so many thousand rounds of arithmetic in so much memory.
fn order(wish: &str) -> Option<(u64, usize)> {
    let (rounds, mib) = wish.strip_prefix("compute-")?.split_once('-')?;
    Some((rounds.parse().ok()?, mib.parse().ok()?))
}

/// Touches each page of the memory, and computes for a time that only the processor decides.
fn compute(thousands: u64, mib: usize) -> u64 {
    let mut memory = vec![0_u8; mib * MIB];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = black_box(1));
    let mut number = black_box(88_172_645_463_325_252_u64);
    for _ in 0..thousands * 1000 {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    black_box(&memory);
    number
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(Vec::<u8>::with_capacity(MIB)));
    }
}

/// Makes many large headers and drops none.
fn hoard_fields() -> String {
    let value = [b'x'; 60 * 1024];
    for made in 0..400 {
        let fields = Fields::new();
        if fields.append("hoard", &value).is_err() {
            return format!("refused after {made}");
        }
        std::mem::forget(fields);
    }
    "all".into()
}

/// Makes answers that are never sent, and fills their bodies; how many bytes somebody else had to keep.
fn hoard_bodies() -> u64 {
    let mut kept = 0;
    for _ in 0..150 {
        let response = OutgoingResponse::new(Fields::new());
        let Ok(body) = response.body() else { return kept };
        let Ok(stream) = body.write() else { return kept };
        while let Ok(room @ 1..) = stream.check_write() {
            let Ok(()) = stream.write(&vec![b'x'; room as usize]) else { break };
            kept += room;
        }
        std::mem::forget((response, body, stream));
    }
    kept
}

/// What comes of a request to somewhere else.
fn fetch() -> String {
    let request = OutgoingRequest::new(Fields::new());
    let target =
        [request.set_scheme(Some(&Scheme::Https)), request.set_authority(Some("example.org")), request.set_path_with_query(Some("/"))];
    if target.iter().any(Result::is_err) {
        return "no such address".into();
    }
    let future = match outgoing_handler::handle(request, None) {
        Ok(future) => future,
        Err(code) => return format!("{code:?}"),
    };
    future.subscribe().block();
    match future.get() {
        Some(Ok(Err(code))) => format!("{code:?}"),
        Some(Ok(Ok(_)) | Err(())) | None => "an answer".into(),
    }
}

/// Begins an answer; whoever has the body finishes it.
fn begin(answer: ResponseOutparam, data: &[u8]) -> Option<OutgoingBody> {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().ok()?;
    ResponseOutparam::set(answer, Ok(response));
    body.write().ok()?.blocking_write_and_flush(data).ok()?;
    Some(body)
}

fn respond(answer: ResponseOutparam, status: u16, data: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(mut out) = body.write() {
        let _ = out.write_all(data).and_then(|()| Write::flush(&mut out));
    }
    let _ = OutgoingBody::finish(body, None);
}
