//! Requests of functions to other machines, and to each other.

use crate::server::{Server, raw};
use crate::support::{Bench, ask};
use std::time::{Duration, Instant};

fn granting(origins: &[&str]) -> String {
    let list: Vec<String> = origins.iter().map(|origin| format!("\"{origin}\"")).collect();
    format!(
        "[limits]\ntimeout_ms = 5000\nmemory_mb = 32\n[access]\nkeyvalue = [\"own\"]\nblobstore = [\"files\"]\noutgoing = [{}]\n",
        list.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_origin_is_reached_over_connections_that_are_kept() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let origin = format!("http://{}", server.address);
    let reach = bench.guest("reach", &granting(&[&origin]));
    for _ in 0..20 {
        let (status, text, ending) = ask(&reach, &format!("/reach/fetch?{origin}/hello"), "").await;
        assert_eq!((status, text), (200, format!("GET /hello \"{}\"", server.address)));
        assert_eq!(ending.result, Ok(()));
    }
    let (status, text, _) = ask(&reach, &format!("/reach/fetch?http://127.0.0.1:1@{}/hello", server.address), "").await;
    assert_eq!((status, text), (200, format!("GET /hello \"{}\"", server.address)), "a user is told to nobody");
    assert_eq!(server.accepted(), 1, "twenty instances of one function share a connection");
    let other = bench.guest("reach", &format!("[settings]\na = \"b\"\n{}", granting(&[&origin])));
    ask(&other, &format!("/reach/fetch?{origin}/hello"), "").await;
    assert_eq!(server.accepted(), 1, "another revision of the function uses it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_and_are_metered() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let origin = format!("http://{}", server.address);
    let reach = bench.guest("reach", &granting(&[&origin]));
    let body = vec![b'x'; 4 * 1024 * 1024];
    let (status, text, ending) = ask(&reach, &format!("/reach/fetch?{origin}/echo"), body.clone()).await;
    assert_eq!((status, text.len()), (200, body.len()));
    let bytes = body.len() as u64;
    assert_eq!(ending.usage.bytes_in, 2 * bytes, "the request that came in, and the answer of the other machine");
    assert_eq!(ending.usage.bytes_out, 2 * bytes, "the request that went out, and the function's own answer");
    assert!(ending.usage.memory_peak_bytes < bytes, "nothing of it is held as a whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_with_the_line_to_add() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let granted = format!("http://{}", server.address);
    let reach = bench.guest("reach", &granting(&[&granted]));
    for url in [
        "https://example.org/",
        &format!("https://{}/", server.address),
        &format!("http://127.0.0.1:{}/", server.address.port() ^ 1),
        &format!("http://localhost:{}/", server.address.port()),
        &format!("http://{}@example.org/", server.address),
        "http://average.sedge.internal/",
    ] {
        let (status, text, _) = ask(&reach, &format!("/reach/fetch?{url}"), "").await;
        assert_eq!((status, text.as_str()), (502, "ErrorCode::HttpRequestDenied"), "{url}");
    }
    assert!(bench.host.logged(&[
        "wasi:http/outgoing-handler: a request to https://example.org was refused",
        "add `outgoing = [\"https://example.org\"]` under [access] in function.toml",
    ]));
    assert_eq!(server.accepted(), 0);
    let (status, text, _) = ask(&reach, &format!("/reach/fetch?{granted}/redirect"), "").await;
    assert_eq!((status, text.as_str()), (302, "elsewhere"), "a redirect is the function's to judge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_the_node_says_so_and_not_else() {
    let (server, authority) = Server::tls().await;
    for (bench, expected) in [
        (Bench::trusting(&authority), (200, format!("GET /hello \"localhost:{}\"", server.address.port()))),
        (Bench::new(), (502, "ErrorCode::TlsCertificateError".to_owned())),
    ] {
        let origin = format!("https://localhost:{}", server.address.port());
        let reach = bench.guest("reach", &granting(&[&origin]));
        let (status, text, _) = ask(&reach, &format!("/reach/fetch?{origin}/hello"), "").await;
        assert_eq!((status, text), expected);
        assert_eq!(bench.host.logged(&["failed", "invalid peer certificate: UnknownIssuer"]), status == 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_do_not_answer_as_they_should_are_told_apart() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let closed = "http://127.0.0.1:1".to_owned();
    let garbage = format!("http://{}", raw(b"\x16\x03\x01\x00\xff not HTTP at all \r\n\r\n").await);
    let silent = format!("http://{}", raw(b"").await);
    let cut = format!("http://{}", raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await);
    let smuggled = format!("http://{}", raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 9\r\n\r\nhalf").await);
    let good = format!("http://{}", server.address);
    let reach = bench.guest("reach", &granting(&[&closed, &garbage, &silent, &cut, &smuggled, &good]));
    for (url, expected) in [
        (closed, "ErrorCode::ConnectionRefused"),
        (garbage, "ErrorCode::HttpProtocolError"),
        (silent, "ErrorCode::ConnectionTerminated"),
        (smuggled, "ErrorCode::HttpProtocolError"),
        (format!("{good}/head"), "ErrorCode::HttpResponseHeaderSectionSize"),
        (format!("{good}/fields"), "ErrorCode::HttpResponseHeaderSectionSize"),
        (format!("{good}/never"), "ErrorCode::ConnectionReadTimeout"),
    ] {
        let (status, text, _) = ask(&reach, &format!("/reach/fetch?{url}"), "").await;
        assert!(status == 502 && text.starts_with(expected), "{url}: {status} {text}");
    }
    for url in [cut, format!("{good}/stall")] {
        let (status, text, ending) = ask(&reach, &format!("/reach/fetch?{url}"), "").await;
        // Whether the head was on its way before the answer broke off is chance; that it broke off is told either way.
        assert!(matches!(status, 0 | 200) && text == "the response body was not finished", "{url}: {status} {text}");
        assert!(ending.result.is_err(), "half an answer never looks whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_ends_at_the_deadline() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let origin = format!("http://{}", server.address);
    let reach = bench.guest("reach", &granting(&[&origin]).replace("5000", "300"));
    let begin = Instant::now();
    let (status, text, _) = ask(&reach, &format!("/reach/fetch?{origin}/never"), "").await;
    assert_eq!((status, text.as_str()), (0, "not done after 300 ms"));
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_the_node_is_called_without_a_socket() {
    let bench = Bench::new();
    let reach = bench.guest("reach", &granting(&["http://average.sedge.internal"]));
    let (status, text, ending) = ask(&reach, "/reach/fetch?http://Average.sedge.internal/a/b?c", "hello").await;
    assert_eq!((status, text.as_str()), (200, "probe calls average/a/b: hello"));
    assert_eq!((ending.usage.bytes_in, ending.usage.bytes_out), (5 + 30, 5 + 30));
    let (status, text, _) = ask(&reach, "/reach/fetch?https://average.sedge.internal/", "").await;
    assert_eq!((status, text.as_str()), (502, "ErrorCode::HttpRequestDenied"));
}
