//! A fleet to test, an operator, and a node.

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use sedge_fleet::{Addresses, Certificates, Config, Fleet, Running};
use sedge_protocol::api::{CreatedClaim, NewClaim, Problem, Revision, Rollout};
use sedge_protocol::enrol::EnrolRequest;
use sedge_protocol::frame::{Decoder, encode};
use sedge_protocol::message::{Desired, FromFleet, FromNode, Hello, VERSION};
use sedge_protocol::{Digest, Labels, Manifest};
use sedge_provisioning::{Identity, csr, enrol, new_key, tls};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

pub(crate) fn config(data: &Path) -> Config {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    Config { data_dir: data.to_owned(), https_listen: any, sync_listen: any, ..Config::default() }
}

/// A fleet and its directory.
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) data: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        Self { running: Fleet::start(config(data.path())).await.unwrap(), data }
    }

    /// A fleet whose certificates live otherwise.
    pub(crate) async fn with(certificates: Certificates) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self { running: Fleet::start(Config { certificates, ..config(data.path()) }).await.unwrap(), data }
    }

    /// The node that has this identity.
    pub(crate) fn of(&self, identity: Identity) -> Node {
        let ca_pem = std::fs::read_to_string(self.data.path().join("ca.pem")).unwrap();
        Node { identity, ca_pem, labels: Labels::default(), instance: 0 }
    }

    /// Ends the fleet and starts it again on its data.
    pub(crate) async fn restart(self) -> Self {
        assert!(self.running.shutdown().await);
        Self { running: Fleet::start(config(self.data.path())).await.unwrap(), data: self.data }
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        self.running.addresses()
    }

    pub(crate) fn operator(&self) -> Operator {
        let http = sedge_provisioning::client::agent(self.addresses().ca_pin, Duration::from_secs(30)).unwrap();
        let token = std::fs::read_to_string(&self.addresses().admin_token_file).unwrap().trim().to_owned();
        Operator { http, base: self.addresses().https.clone(), token }
    }

    pub(crate) async fn claim(&self, new: NewClaim) -> CreatedClaim {
        self.operator().send("POST", "/api/v1/claims", &new).await.unwrap()
    }

    /// A node that has enrolled with these labels.
    pub(crate) async fn node(&self, name: &str, labels: &[(&str, &str)]) -> Node {
        let claim = self.claim(NewClaim::default()).await;
        let mut own = Labels::default();
        for (key, value) in labels {
            own.insert(key, value).unwrap();
        }
        let key = new_key().unwrap();
        let request = EnrolRequest { claim: claim.token, csr: csr(&key).unwrap(), name: Some(name.parse().unwrap()), labels: own.clone() };
        let (fleet, pin) = (claim.fleet, claim.ca_pin);
        let (enrolled, ca_pem) = spawn_blocking(move || enrol(&fleet, pin, &request)).await.unwrap().unwrap();
        assert_eq!(enrolled.sync, self.addresses().sync);
        Node { identity: Identity::from_pem(&enrolled.certificate, key).unwrap(), ca_pem, labels: own, instance: 0 }
    }

    /// Publishes a function made of `marker`, rolls it out to `filter`.
    pub(crate) async fn rollout(&self, name: &str, marker: &str, filter: &str) -> (Revision, Rollout) {
        let operator = self.operator();
        let revision = operator.publish(name, &wasm(marker)).await.unwrap();
        let rollout = operator.send("POST", "/api/v1/rollouts", &json!({ "function": name, "filter": filter })).await.unwrap();
        (revision, rollout)
    }
}

/// A command whose bytes differ with `marker`.
pub(crate) fn wasm(marker: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (memory 1) (data (i32.const 0) "{marker}") (func (export "_start")))"#)).unwrap()
}

/// A refusal: status and body.
pub(crate) type Refused = (u16, Problem);

/// Speaks the REST API as `sedge` does.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) http: ureq::Agent,
    pub(crate) base: String,
    pub(crate) token: String,
}

impl Operator {
    pub(crate) async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T, Refused> {
        self.raw("GET", path, Vec::new(), "application/json").await
    }

    pub(crate) async fn send<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Refused> {
        self.raw(method, path, serde_json::to_vec(body).unwrap(), "application/json").await
    }

    pub(crate) async fn publish(&self, name: &str, wasm: &[u8]) -> Result<Revision, Refused> {
        let digest = Digest::of(wasm);
        let _: Value = self.raw("PUT", &format!("/api/v1/artifacts/{digest}"), wasm.to_vec(), "application/wasm").await?;
        let manifest = Manifest::from_toml("function.toml", &format!("name = '{name}'")).unwrap().0;
        self.send("POST", "/api/v1/revisions", &json!({ "artifact": digest, "manifest": manifest })).await
    }

    pub(crate) async fn raw<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        path: &str,
        body: Vec<u8>,
        kind: &'static str,
    ) -> Result<T, Refused> {
        let (operator, path) = (self.clone(), path.to_owned());
        spawn_blocking(move || {
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}", operator.base))
                .header("authorization", format!("Bearer {}", operator.token))
                .header("content-type", kind)
                .body(body)
                .unwrap();
            let mut answer = operator.http.run(request).unwrap();
            let status = answer.status().as_u16();
            let text = answer.body_mut().read_to_string().unwrap();
            match status {
                200 => Ok(serde_json::from_str(&text).unwrap()),
                204 => Ok(serde_json::from_str("null").unwrap()),
                _ => Err((status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))),
            }
        })
        .await
        .unwrap()
    }
}

/// An enrolled node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) ca_pem: String,
    pub(crate) labels: Labels,
    /// What it draws at its start.
    pub(crate) instance: u64,
}

impl Node {
    pub(crate) async fn connect(&self, world: &World) -> Connection {
        let crypto = QuicClientConfig::try_from(tls::client_config(&self.ca_pem, &self.identity).unwrap()).unwrap();
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let address = world.addresses().sync.parse().unwrap();
        endpoint.connect(address, "127.0.0.1").unwrap().await.unwrap()
    }

    pub(crate) fn hello(&self, desired_epoch: u64) -> FromNode {
        FromNode::Hello(Hello {
            version: VERSION,
            daemon: "test".into(),
            desired_epoch,
            architecture: "x86_64".into(),
            board: None,
            labels: self.labels.clone(),
            instance: self.instance,
        })
    }

    /// Connects and greets; answers the connection, the control stream and the first desired state.
    pub(crate) async fn greet(&self, world: &World) -> (Connection, Stream, Desired) {
        let connection = self.connect(world).await;
        let mut control = Stream::open(&connection).await;
        control.send(&self.hello(0)).await;
        assert!(matches!(control.next().await, Some(FromFleet::Welcome(_))));
        let desired = control.desired().await;
        (connection, control, desired)
    }
}

/// One stream of a connection.
pub(crate) struct Stream {
    pub(crate) answers: RecvStream,
    pub(crate) asks: SendStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Stream {
    pub(crate) async fn open(connection: &Connection) -> Self {
        Self::try_open(connection).await.unwrap()
    }

    /// [`Stream::open`] on a connection that may be closed at any moment.
    pub(crate) async fn try_open(connection: &Connection) -> Option<Self> {
        let (asks, answers) = connection.open_bi().await.ok()?;
        Some(Self { answers, asks, decoder: Decoder::default(), buffer: vec![0; 4096] })
    }

    pub(crate) async fn send(&mut self, message: &FromNode) {
        self.asks.write_all(&encode(message).unwrap()).await.unwrap();
    }

    /// The next message; none when the fleet has ended the stream.
    pub(crate) async fn next(&mut self) -> Option<FromFleet> {
        loop {
            if let Some(message) = self.decoder.poll_message().unwrap() {
                return Some(message);
            }
            let length = self.answers.read(&mut self.buffer).await.ok()??;
            self.decoder.push(&self.buffer[..length]);
        }
    }

    /// The next desired state; what an operator decides comes between.
    pub(crate) async fn desired(&mut self) -> Desired {
        loop {
            match self.next().await {
                Some(FromFleet::Desired(desired)) => return desired,
                Some(FromFleet::Standing { .. }) => {}
                other => panic!("not a desired state: {other:?}"),
            }
        }
    }

    /// The bytes after the frames, until the end of the stream.
    pub(crate) async fn bytes(mut self) -> Vec<u8> {
        // The decoder may hold bytes that came with the last frame: they are the first of the rest.
        let mut bytes = self.decoder.take();
        while let Some(length) = self.answers.read(&mut self.buffer).await.unwrap() {
            bytes.extend_from_slice(&self.buffer[..length]);
        }
        bytes
    }
}
