//! The end of an asynchronous call is told to whoever wants to hear it, until he does.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::{Node, artifact, until};
use sedge_protocol::invocation::{CallbackState, InvocationState};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
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

/// A certificate for 127.0.0.1 and the authority that signed it, in PEM form.
fn certificate() -> Result<(Arc<rustls::ServerConfig>, String)> {
    let key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key)?.pem();
    let issuer = rcgen::Issuer::new(authority, key);
    let key = rcgen::KeyPair::generate()?;
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let secret = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], secret)?;
    Ok((Arc::new(config), pem))
}

impl Receiver {
    fn start(failures: usize) -> Result<Self> {
        Self::start_with(failures, None)
    }

    fn start_with(failures: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver = Self { address: listener.local_addr()?, heard: Arc::default() };
        let heard = Arc::clone(&receiver.heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tls = tls.as_ref().and_then(|config| rustls::ServerConnection::new(Arc::clone(config)).ok());
                // A client that does not trust us says so in the handshake: then there is nothing to read.
                drop(match tls {
                    Some(tls) => serve(rustls::StreamOwned::new(tls, stream), &heard, failures),
                    None => serve(stream, &heard, failures),
                });
            }
        });
        Ok(receiver)
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

fn serve(mut stream: impl std::io::Read + std::io::Write, heard: &Mutex<Vec<Heard>>, failures: usize) -> Result<()> {
    let request = read(&mut stream)?;
    let mut heard = heard.lock().unwrap();
    heard.push(request);
    let status = if heard.len() <= failures { "500 Internal Server Error" } else { "200 OK" };
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())?;
    Ok(stream.flush()?)
}

fn read(stream: impl std::io::Read) -> Result<Heard> {
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
    // More attempts than it takes to bring the receiver.
    manifest.retry.attempts = 50;
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

#[test]
fn a_callback_over_tls_goes_to_who_the_nodes_authorities_vouch_for_and_to_nobody_else() -> Result<()> {
    let directory = directory()?;
    let (config, authority) = certificate()?;
    let receiver = Receiver::start_with(1, Some(config))?;
    let (stranger, _) = certificate()?;
    let stranger = Receiver::start_with(0, Some(stranger))?;
    let ca_file = directory.path().join("authority.pem");
    std::fs::write(&ca_file, authority)?;
    let keys = format!("functions = {{ ca_file = '{}' }}\n", ca_file.display());
    let node = Node::start_with(directory.path(), "node-1", None, &keys)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.access.outgoing = vec![format!("https://{}", receiver.address).parse()?, format!("https://{}", stranger.address).parse()?];
    (manifest.retry.attempts, manifest.retry.backoff_ms) = (3, 100);
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let ended = |address: SocketAddr, state: CallbackState| {
        let id = node.call("/faulty/ok", &[("sedge-callback", &format!("https://{address}/done"))], "")?;
        until("the callback is over", || Ok(node.invocation(id)?.callback.filter(|callback| callback.state == state)))
    };
    assert_eq!(ended(receiver.address, CallbackState::Delivered)?.attempts, 2);
    let heard = receiver.heard();
    assert_eq!((heard.len(), heard[1].line.as_str(), heard[1].body.as_str()), (2, "POST /done HTTP/1.1", "ok"));
    let given_up = ended(stranger.address, CallbackState::GivenUp)?;
    assert!(given_up.reason.as_deref().is_some_and(|reason| reason.contains("invalid peer certificate")), "{given_up:?}");
    assert!(stranger.heard().is_empty());
    Ok(())
}
