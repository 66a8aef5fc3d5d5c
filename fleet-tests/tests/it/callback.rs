//! The end of an asynchronous call is told to whoever wants to hear it, until he does.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::{Node, artifact, until};
use sedge_protocol::invocation::{CallbackState, InvocationState};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What came to a receiver.
#[derive(Debug, Clone)]
struct Heard {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A real HTTP server that answers the first requests with 500 and all others with 200.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Receiver {
    fn start(failures: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver = Self { address: listener.local_addr()?, heard: Arc::default() };
        let heard = Arc::clone(&receiver.heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(request) = read(&stream) else { continue };
                let mut heard = heard.lock().unwrap();
                heard.push(request);
                let status = if heard.len() <= failures { "500 Internal Server Error" } else { "200 OK" };
                drop((&stream).write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()));
            }
        });
        Ok(receiver)
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Result<Heard> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").context("no length")?.parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Heard { line: line.trim().to_owned(), headers, body: String::from_utf8(body)? })
}

fn faulty(outgoing: SocketAddr) -> Result<sedge_protocol::Manifest> {
    let mut manifest = artifact::manifest("faulty")?;
    manifest.access.outgoing = vec![format!("http://{outgoing}").parse()?];
    Ok(manifest)
}

#[test]
fn a_receiver_that_fails_twice_hears_the_end_of_a_call_as_an_event() -> Result<()> {
    let directory = directory()?;
    let receiver = Receiver::start(2)?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&faulty(receiver.address)?, &artifact::guest("faulty")?)?;
    let url = format!("http://{}/done?order=7", receiver.address);
    let id = node.call("/faulty/ok", &[("sedge-callback", &url)], "")?;
    assert_eq!(node.over(id)?.state, InvocationState::Succeeded);
    let callback = until("the callback is delivered", || {
        Ok(node.invocation(id)?.callback.filter(|callback| callback.state == CallbackState::Delivered))
    })?;
    assert_eq!((callback.attempts, callback.url.as_str()), (3, url.as_str()));
    let heard = receiver.heard();
    assert_eq!(heard.len(), 3);
    let Heard { line, headers, body } = &heard[2];
    assert_eq!((line.as_str(), body.as_str()), ("POST /done?order=7 HTTP/1.1", "ok"));
    let header = |name: &str| headers.get(name).map(String::as_str);
    assert_eq!((header("ce-specversion"), header("ce-source")), (Some("1.0"), Some("/function/faulty")));
    assert_eq!((header("ce-type"), header("ce-status")), (Some("sedge.invocation.succeeded"), Some("200")));
    assert_eq!(header("ce-id"), Some(id.to_string().as_str()));
    Ok(())
}

#[test]
fn a_callback_survives_a_kill_and_a_dead_call_is_told_too() -> Result<()> {
    let directory = directory()?;
    let receiver = Receiver::start(0)?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    // Nobody listens on this port: the one that the receiver of this test gets later is another.
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut manifest = faulty(receiver.address)?;
    manifest.access.outgoing.push(format!("http://{nobody}").parse()?);
    (manifest.retry.attempts, manifest.retry.backoff_ms) = (3, 300);
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let waiting = node.call("/faulty/trap", &[("sedge-callback", &format!("http://{nobody}/"))], "")?;
    assert_eq!(node.over(waiting)?.state, InvocationState::Dead);
    node.kill9()?;
    node.restart()?;
    let given_up =
        until("it is given up", || Ok(node.invocation(waiting)?.callback.filter(|callback| callback.state == CallbackState::GivenUp)))?;
    assert!(given_up.reason.as_deref().is_some_and(|reason| reason.contains("connect to")), "{given_up:?}");
    let told = node.call("/faulty/trap", &[("sedge-callback", &format!("http://{}/", receiver.address))], "")?;
    until("the receiver hears of it", || Ok((!receiver.heard().is_empty()).then_some(())))?;
    assert_eq!(receiver.heard()[0].headers.get("ce-type").map(String::as_str), Some("sedge.invocation.dead"));
    assert_eq!(node.invocation(told)?.state, InvocationState::Dead);
    Ok(())
}

#[test]
fn a_callback_to_a_function_of_the_node_needs_no_socket() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.access.outgoing = vec!["http://average.sedge.internal".parse()?];
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let id = node.call("/faulty/ok", &[("sedge-callback", "http://average.sedge.internal/told")], "")?;
    let failed = until("the first attempt failed", || Ok(node.invocation(id)?.callback.and_then(|callback| callback.reason)))?;
    assert_eq!(failed, "no function called `average` runs here");
    // The receiver takes anything, and its log is its own matter.
    let mut receiver = artifact::manifest("beat")?;
    receiver.name = "average".parse()?;
    node.give(&receiver, &artifact::guest("beat")?)?;
    until("the callback is delivered", || {
        Ok(node.invocation(id)?.callback.filter(|callback| callback.state == CallbackState::Delivered).map(drop))
    })?;
    Ok(())
}
