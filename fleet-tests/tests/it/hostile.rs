//! Bytes that no decent client sends, over real sockets: each is answered or cut off, and the node goes on.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::http::Target;
use fleet_tests::{Node, artifact, until};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No answer takes longer than this, a hostile one included.
const PATIENCE: Duration = Duration::from_secs(20);

fn address(node: &Node) -> Result<SocketAddr> {
    let Target::Tcp(address) = node.http() else { anyhow::bail!("the listener is TCP") };
    Ok(address)
}

/// Sends bytes, and nothing more if that is the `end`; answers what came back until the node closed the connection. That it closes it
/// while we send is its right.
fn send(node: &Node, bytes: &[u8], end: bool) -> Result<String> {
    let mut stream = TcpStream::connect(address(node)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if stream.write_all(bytes).is_ok() && end {
        drop(stream.shutdown(std::net::Shutdown::Write));
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error).context("the node neither answered nor closed the connection"),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn started() -> Result<(tempfile::TempDir, Node)> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.request_mb = 1;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    Ok((directory, node))
}

#[test]
fn hostile_heads_are_refused_and_the_node_goes_on() -> Result<()> {
    let (_directory, node) = started()?;
    let many: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let big = format!("x-big: {}\r\n", "y".repeat(1024 * 1024));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("10 000 fields", format!("GET /hello HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes()),
        ("a field of 1 MiB", format!("GET /hello HTTP/1.1\r\nhost: a\r\n{big}\r\n").into_bytes()),
        ("a path of 1 MiB", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(1024 * 1024)).into_bytes()),
        ("a newline in a name", b"GET /hello HTTP/1.1\r\nhost: a\r\nx-a\nb: c\r\n\r\n".to_vec()),
        ("a carriage return in a value", b"GET /hello HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n".to_vec()),
        ("a zero byte in a value", b"GET /hello HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".to_vec()),
        ("a space in a name", b"GET /hello HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n".to_vec()),
        ("a name that is not ASCII", b"GET /hello HTTP/1.1\r\nhost: a\r\n\xff\xfe: z\r\n\r\n".to_vec()),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("two lengths", b"POST /faulty/ok HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde".to_vec()),
        ("a length that is no number", b"POST /faulty/ok HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let answer = send(&node, &bytes, true)?;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(answer.is_empty() || matches!(status.as_str(), "400" | "414" | "431"), "{what}: {answer}");
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200, "after {what}");
    }
    // Bytes beyond ASCII in a value are allowed, and the function gets them.
    let answer = send(&node, b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: \xff\xfe\r\n\r\n", false)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

#[test]
fn hostile_bodies_end_with_their_request_and_the_node_goes_on() -> Result<()> {
    let (_directory, node) = started()?;
    // The wish of a path without a last part is in the body: the function reads it.
    let chunked = "POST /faulty/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = format!("{chunked}{}", format!("10000\r\n{}\r\n", "x".repeat(65_536)).repeat(64));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("chunks without end", endless.into_bytes()),
        ("a chunk that is longer than it says", format!("{chunked}3\r\nabcdef\r\n0\r\n\r\n").into_bytes()),
        ("a chunk of more bytes than there are numbers", format!("{chunked}FFFFFFFFFFFFFFFFF\r\nab\r\n").into_bytes()),
        ("a chunk without a length", format!("{chunked}\r\n\r\n").into_bytes()),
        ("a chunk that breaks off", format!("{chunked}400\r\nabc").into_bytes()),
        ("an extension without end", format!("{chunked}1;{}\r\na\r\n0\r\n\r\n", "x".repeat(1024 * 1024)).into_bytes()),
        ("trailers without end", format!("{chunked}2\r\nok\r\n0\r\n{}\r\n", "x: y\r\n".repeat(100_000)).into_bytes()),
        ("a body that is shorter than it says", b"POST /faulty/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nok".to_vec()),
        (
            "a body that is said to be endless",
            b"POST /faulty/ HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\nok".to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        let begin = Instant::now();
        let answer = send(&node, &bytes, true)?;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(status != "200" || answer.contains("\r\n\r\n"), "{what}: {answer}");
        assert!(answer.is_empty() || matches!(status.as_str(), "200" | "400" | "404" | "413" | "431" | "500" | "504"), "{what}: {answer}");
        assert!(begin.elapsed() < PATIENCE, "{what}");
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200, "after {what}");
    }
    until("no invocation is left", || Ok((node.status()?.admission.running == 0).then_some(())))?;
    assert_eq!(node.fetch("/faulty/ok")?.text(), "ok");
    Ok(())
}
