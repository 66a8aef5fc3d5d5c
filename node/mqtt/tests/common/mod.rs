//! A broker on a free port, a node that records and decides, and a client that speaks raw bytes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use sedge_mqtt::{Broker, BrokerConfig, Inbound, Ingress, QoS, Receipt, Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must happen; only a broken broker ever waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing happened"))
}

/// How the node answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Accept,
    Refuse,
    /// The test answers itself.
    Hold,
}

/// A publish that reached the node.
pub(crate) struct Arrived {
    pub(crate) inbound: Inbound,
    decide: Option<oneshot::Sender<Result<(), Refusal>>>,
}

impl Arrived {
    pub(crate) fn payload(&self) -> String {
        String::from_utf8_lossy(&self.inbound.message.payload).into_owned()
    }

    pub(crate) fn decide(mut self, outcome: Result<(), Refusal>) {
        let decide = self.decide.take().expect("held message of QoS >= 1");
        assert!(decide.send(outcome).is_ok(), "the broker waits for the receipt");
    }
}

struct Node {
    answer: Answer,
    arrived: mpsc::UnboundedSender<Arrived>,
}

impl Ingress for Node {
    fn publish(&self, inbound: Inbound) -> Receipt {
        let (sender, receiver) = oneshot::channel();
        let hold = matches!(self.answer, Answer::Hold) && inbound.message.qos > QoS::AtMostOnce;
        let arrived = Arrived { inbound, decide: hold.then_some(sender) };
        assert!(self.arrived.send(arrived).is_ok() || !hold, "the test listens");
        match self.answer {
            _ if hold => Receipt::Pending(receiver),
            Answer::Refuse => Receipt::Refused(Refusal::QuotaExceeded),
            Answer::Accept | Answer::Hold => Receipt::Accepted,
        }
    }
}

/// A running broker.
pub(crate) struct Running {
    pub(crate) broker: Broker,
    pub(crate) arrived: mpsc::UnboundedReceiver<Arrived>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn start(answer: Answer) -> Running {
    start_with(answer, Vec::new())
}

pub(crate) fn start_with(answer: Answer, users: Vec<(String, String)>) -> Running {
    let (sender, arrived) = mpsc::unbounded_channel();
    let config = BrokerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), users };
    let (broker, task) = Broker::bind(config, Arc::new(Node { answer, arrived: sender })).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(task.run(stop.clone()));
    Running { broker, arrived, stop, task }
}

impl Running {
    pub(crate) fn port(&self) -> u16 {
        self.broker.local_addr().port()
    }

    pub(crate) async fn next(&mut self) -> Arrived {
        soon("publish reaches the node", self.arrived.recv()).await.unwrap()
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw { stream: TcpStream::connect(self.broker.local_addr()).await.unwrap() }
    }

    /// A raw client that has been let in.
    pub(crate) async fn client(&self, version: u8, id: &str, clean: bool) -> Raw {
        let mut raw = self.raw().await;
        raw.send(&connect(version, id, clean)).await;
        let (first, body) = raw.frame().await;
        assert_eq!((first, body[1]), (0x20, 0), "let in: {body:?}");
        raw
    }

    /// Waits until the counters say so.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(sedge_mqtt::Stats) -> bool) {
        soon(what, async {
            while !holds(self.broker.stats()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn shut_down(self) {
        self.stop.cancel();
        soon("broker stops", self.task).await.unwrap().unwrap();
    }
}

/// A client that sends and receives exactly what the test says.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// First byte and body of the next packet.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        self.try_frame().await.expect("a packet and not the end of the stream")
    }

    /// The next packet, or none when the broker has closed the connection.
    pub(crate) async fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("packet from the broker", async {
            let first = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0usize, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((first, body))
        })
        .await
    }

    /// The broker closes the connection and says nothing before.
    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.try_frame().await, None);
    }

    /// All that was sent before has been handled once this returns; returns what came meanwhile.
    pub(crate) async fn ping(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.send(&[0xc0, 0]).await;
        let mut before = Vec::new();
        loop {
            match self.frame().await {
                (0xd0, _) => return before,
                other => before.push(other),
            }
        }
    }
}

/// Any packet.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let (mut bytes, mut left) = (vec![first], body.len());
    while left > 0x7f {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes.extend(body);
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// CONNECT; MQTT 5 asks for a session of one hour unless it is clean.
pub(crate) fn connect(version: u8, id: &str, clean: bool) -> Vec<u8> {
    let properties: &[u8] = match (version, clean) {
        (4, _) => &[],
        (_, true) => &[0],
        (_, false) => &[5, 0x11, 0, 0, 0x0e, 0x10],
    };
    packet(0x10, &[&text("MQTT"), &[version, if clean { 2 } else { 0 }, 0, 60], properties, &text(id)])
}

/// PUBLISH of QoS 1 or 2 without properties.
pub(crate) fn publish(version: u8, qos: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x30 | qos << 1, &[&text(topic), &id.to_be_bytes(), properties, payload.as_bytes()])
}

/// The same PUBLISH, sent again.
pub(crate) fn again(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 0x08;
    publish
}

/// PUBACK, PUBREL and the like.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()])
}

pub(crate) fn subscribe(version: u8, filter: &str, options: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x82, &[&[0, 9], properties, &text(filter), &[options]])
}

/// The packet identifier at the start of a body.
pub(crate) fn id_of(body: &[u8]) -> u16 {
    u16::from_be_bytes([body[0], body[1]])
}
