//! Who takes places and leaves none to others: idle connections, followers, uploads that are refused.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::http::Target;
use fleet_tests::{Node, artifact, until};
use http::Method;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// More than a listener has places.
const FLOOD: usize = 1030;
/// Of the places of the local socket, those for followers.
const FOLLOWERS_MAX: usize = 16;
/// Far below the time after which the node closes an idle connection by itself.
const SOON: Duration = Duration::from_secs(5);
/// That time, and what a slow machine adds.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// More than a socket takes without a reader.
const UPLOAD_BYTES: usize = 700_000;

fn started() -> Result<(tempfile::TempDir, Node)> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    Ok((directory, node))
}

fn address(node: &Node) -> Result<SocketAddr> {
    let Target::Tcp(address) = node.http() else { anyhow::bail!("the listener is TCP") };
    Ok(address)
}

/// A connection from another address of this machine.
fn connect_from(from: &str, to: SocketAddr) -> Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().map_err(std::io::Error::other)?, 0))?;
        socket.connect(to).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads until `text` has come.
fn hear(stream: &mut impl Read, text: &str) -> Result<String> {
    let (mut heard, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let all = String::from_utf8_lossy(&heard).into_owned();
        if all.contains(text) {
            return Ok(all);
        }
        let count = stream.read(&mut part).with_context(|| format!("waiting for `{text}` after `{all}`"))?;
        anyhow::ensure!(count > 0, "closed before `{text}`: `{all}`");
        heard.extend_from_slice(&part[..count]);
    }
}

#[test]
fn idle_connections_make_room_for_others_and_a_request_under_way_is_never_closed() -> Result<()> {
    let (_directory, node) = started()?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.timeout_ms = 60_000;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let to = address(&node)?;
    // The first of the greedy address would be the first to go, were its request not under way.
    let mut busy = connect_from("127.0.0.2", to)?;
    busy.write_all(b"POST /faulty/ HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\no")?;
    // Idle for longer than all others, of an address that holds only one.
    let mut modest = connect_from("127.0.0.3", to)?;
    modest.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")?;
    hear(&mut modest, "hello")?;
    let begin = Instant::now();
    let mut flood = Vec::new();
    for number in 0..FLOOD {
        let mut stream = connect_from("127.0.0.2", to)?;
        if number % 2 == 0 {
            stream.write_all(b"GET /hello HTTP/1.1\r\nx: ")?;
        }
        flood.push(stream);
    }
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    modest.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")?;
    hear(&mut modest, "hello")?;
    assert!(begin.elapsed() < HEAD_TIMEOUT, "{:?} is too long to tell what made room", begin.elapsed());
    busy.write_all(b"k")?;
    assert!(hear(&mut busy, "ok")?.starts_with("HTTP/1.1 200"));
    Ok(())
}

#[test]
fn a_head_that_comes_by_drops_is_cut_off() -> Result<()> {
    let (_directory, node) = started()?;
    let mut stream = TcpStream::connect(address(&node)?)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let begin = Instant::now();
    let mut byte = [0];
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: ")?;
    loop {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => anyhow::bail!("an answer to half a request"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(begin.elapsed() < 2 * HEAD_TIMEOUT, "it is still waited for");
        drop(stream.write_all(b"y"));
    }
    assert!(begin.elapsed() > HEAD_TIMEOUT / 2, "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn followers_are_bounded_and_leave_the_local_socket_to_others() -> Result<()> {
    let (_directory, node) = started()?;
    let follow = |path: &str| -> Result<(UnixStream, String)> {
        let mut stream = UnixStream::connect(node.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes())?;
        let head = hear(&mut stream, "\r\n\r\n")?;
        Ok((stream, head))
    };
    let mut followers = Vec::new();
    for number in 0..40 {
        let path = if number % 2 == 0 { "/v1/logs?follow=true" } else { "/v1/invocations/stream" };
        let (mut stream, head) = follow(path)?;
        if number < FOLLOWERS_MAX {
            assert!(head.starts_with("HTTP/1.1 200"), "{number}: {head}");
        } else {
            assert!(head.starts_with("HTTP/1.1 503"), "{number}: {head}");
            let text = if head.ends_with('}') { head } else { hear(&mut stream, "}")? };
            assert!(text.contains("16 readers follow this node already") && text.contains("end one of them"), "{text}");
        }
        followers.push(stream);
    }
    for _ in 0..40 {
        let asked = Instant::now();
        node.status()?;
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    drop(followers.drain(..1));
    until("one may follow again", || Ok(follow("/v1/logs?follow=true")?.1.starts_with("HTTP/1.1 200").then_some(())))
}

#[test]
fn a_request_of_http_1_1_names_its_host_exactly_once() -> Result<()> {
    let (_directory, node) = started()?;
    let say = |head: &str| -> Result<String> {
        let mut stream = TcpStream::connect(address(&node)?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(head.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    for (head, status, said) in [
        ("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n", 200, "hello"),
        ("GET /hello HTTP/1.0\r\n\r\n", 200, "hello"),
        ("GET /hello HTTP/1.1\r\n\r\n", 400, "the header `Host` is missing"),
        ("GET /hello HTTP/1.1\r\nhost: a\r\nHost: b\r\n\r\n", 400, "more than one header `Host`"),
        ("GET /hello HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400, "more than one header `Host`"),
        ("GET /hello HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400, "more than one header `Host`"),
        ("GET /hello HTTP/1.1\r\nhost: a b\r\n\r\n", 400, "no host"),
    ] {
        let answer = say(head)?;
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()) && answer.contains(said), "{head}: {answer}");
    }
    Ok(())
}

#[test]
fn the_refusal_of_an_upload_can_be_read_by_who_sends_first_and_reads_then() -> Result<()> {
    let (_directory, node) = started()?;
    let upload = |stream: &mut dyn ReadWrite, line: &str, more: &str| -> Result<String> {
        write!(stream, "{line} HTTP/1.1\r\nhost: a\r\n{more}content-length: {UPLOAD_BYTES}\r\n\r\n")?;
        for chunk in vec![b'x'; UPLOAD_BYTES].chunks(10_000) {
            stream.write_all(chunk).with_context(|| format!("{line}: while sending"))?;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("{line}: while reading"))?;
        Ok(answer)
    };
    for (line, status) in [("PUT /v1/artifacts/none", "400"), ("PUT /v1/nothing", "404"), ("POST /v1/functions/none/invoke", "404")] {
        let mut stream = UnixStream::connect(node.socket())?;
        let answer = upload(&mut stream, line, "")?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("error"), "{line}: {answer}");
    }
    for (line, more, status) in
        [("PUT /nothing", "", "404"), ("POST /hello", "prefer: respond-async\r\n", "413"), ("PUT /hello", "host: b\r\n", "400")]
    {
        let mut stream = TcpStream::connect(address(&node)?)?;
        let answer = upload(&mut stream, line, more)?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    assert_eq!(node.ask(Method::GET, "/v1/status", "")?.status.as_u16(), 200);
    Ok(())
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
