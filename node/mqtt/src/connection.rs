//! One TCP connection: bytes in, packets to the hub; batches from the hub, bytes out.
//!
//! It decides nothing but what concerns its own bytes: framing, topic aliases, credentials, keep-alive, and when to stop
//! reading because a client of MQTT 3.1.1 has as many publishes pending as MQTT 5 would allow it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::ConnectionId,
    limits::{BATCH_BYTES_MAX, CONNECT_TIMEOUT, READ_BYTES, RECEIVE_MAX, TOPIC_ALIASES_MAX, WRITE_TIMEOUT},
    message::{Message, QoS},
    user::Users,
    wire::{Connect, Frames, FromClient, Publish, Reason, ToClient, Version, encode},
};

/// What tasks tell the hub.
#[derive(Debug)]
pub(crate) enum Command {
    /// A client with good credentials asks to be let in; batches go to the sender.
    Connect { connection: ConnectionId, connect: Box<Connect>, batches: mpsc::Sender<Batch> },
    /// A packet after CONNECT.
    Packet { connection: ConnectionId, packet: FromClient },
    /// The batch has been written.
    Ready { connection: ConnectionId },
    /// The connection is gone.
    Closed { connection: ConnectionId },
    /// A message of the node.
    Publish(Message),
}

/// What the hub tells a connection: packets to write, then perhaps to close.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) packets: Vec<ToClient>,
    pub(crate) last: bool,
}

/// Batches the hub may have sent and the connection not taken: one in work, and the last.
pub(crate) const BATCHES_MAX: usize = 2;

/// Why a connection ended other than by the hub's will.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("socket")]
    Io(#[from] io::Error),
    #[error("client closed without DISCONNECT")]
    Eof,
    #[error("client does not read")]
    Stalled,
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("client broke the protocol: {0}")]
    Offence(Reason),
    #[error("broker stops")]
    Stopped,
}

/// State of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    frames: Frames,
    input: BytesMut,
    output: BytesMut,
    aliases: BTreeMap<u16, String>,
    /// Identifiers of publishes that wait for their acknowledgement; a client of MQTT 3.1.1 is not read while there are too many.
    unacknowledged: BTreeSet<u16>,
    commands: mpsc::Sender<Command>,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, stream: TcpStream, commands: mpsc::Sender<Command>) -> Self {
        Self {
            id,
            stream,
            frames: Frames::new(),
            input: BytesMut::with_capacity(READ_BYTES),
            output: BytesMut::new(),
            aliases: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            commands,
        }
    }

    /// Runs until the client, the hub or `stop` ends it.
    pub(crate) async fn run(mut self, users: Arc<Users>, stop: CancellationToken) -> Result<(), EndError> {
        let connect = tokio::select! {
            connect = timeout(CONNECT_TIMEOUT, self.read_connect()) => connect.map_err(|_| EndError::NoConnect)?,
            () = stop.cancelled() => return Err(EndError::Stopped),
        };
        let connect = match connect {
            Ok(connect) if users.accept(connect.user.as_deref(), connect.password.as_deref()) => connect,
            Ok(_) => return self.turn_away(Reason::Credentials).await,
            Err(EndError::Offence(reason)) => return self.turn_away(reason).await,
            Err(error) => return Err(error),
        };
        let silence_max = silence_max(connect.keep_alive);
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let connection = self.id;
        self.tell(Command::Connect { connection, connect, batches: sender }).await?;
        let end = match self.exchange(batches, silence_max, stop).await {
            Err(EndError::Offence(reason)) => {
                // MQTT 5 tells the client what it did wrong; whether it can still be told does not matter.
                let told = self.write(&[ToClient::Disconnect(reason)]).await;
                log::debug!(connection = connection.0, told = told.is_ok(); "client was told its offence");
                Err(EndError::Offence(reason))
            }
            end => end,
        };
        self.finish().await;
        end
    }

    async fn read_connect(&mut self) -> Result<Box<Connect>, EndError> {
        loop {
            match self.frames.poll_packet(&mut self.input).map_err(EndError::Offence)? {
                Some(FromClient::Connect(connect)) => return Ok(connect),
                Some(_) => return Err(EndError::Offence(Reason::Protocol)),
                None => self.read().await?,
            }
        }
    }

    /// CONNACK with a reason, as far as the bytes have shown that this is MQTT at all.
    async fn turn_away(mut self, reason: Reason) -> Result<(), EndError> {
        if self.frames.version().is_some() || reason == Reason::Version {
            self.write(&[ToClient::Unwelcome(reason)]).await?;
            self.finish().await;
        }
        Err(EndError::Offence(reason))
    }

    async fn exchange(
        &mut self,
        mut batches: mpsc::Receiver<Batch>,
        silence_max: Option<Duration>,
        stop: CancellationToken,
    ) -> Result<(), EndError> {
        let mut heard = Instant::now();
        loop {
            let stopping = stop.is_cancelled();
            while !stopping && !self.full() {
                let Some(packet) = self.frames.poll_packet(&mut self.input).map_err(EndError::Offence)? else {
                    break;
                };
                if self.handle_packet(packet).await? {
                    return Ok(());
                }
            }
            let reading = !stopping && !self.full();
            tokio::select! {
                batch = batches.recv() => {
                    let Some(Batch { packets, last }) = batch else { return Ok(()) };
                    let full = self.full();
                    self.write(&packets).await?;
                    if last {
                        return Ok(());
                    }
                    if full {
                        // It could not have been heard while nobody listened.
                        heard = Instant::now();
                    }
                    self.tell(Command::Ready { connection: self.id }).await?;
                }
                read = self.read(), if reading => {
                    read?;
                    heard = Instant::now();
                }
                () = sleep_until(heard + silence_max.unwrap_or_default()), if reading && silence_max.is_some() => {
                    return Err(EndError::Offence(Reason::KeepAlive));
                }
                () = stop.cancelled(), if !stopping => {}
            }
        }
    }

    /// Whether a client of MQTT 3.1.1 has to wait; that of MQTT 5 knows its limit, and the hub sees to it.
    fn full(&self) -> bool {
        self.frames.version() == Some(Version::V3) && self.unacknowledged.len() >= usize::from(RECEIVE_MAX)
    }

    /// Passes a packet on to the hub; true when it was the client's last.
    async fn handle_packet(&mut self, mut packet: FromClient) -> Result<bool, EndError> {
        if let FromClient::Publish(publish) = &mut packet {
            self.resolve_alias(publish).map_err(EndError::Offence)?;
            if publish.message.qos > QoS::AtMostOnce {
                self.unacknowledged.insert(publish.packet_id);
            }
        }
        let last = matches!(packet, FromClient::Disconnect { .. });
        self.tell(Command::Packet { connection: self.id, packet }).await?;
        Ok(last)
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Reason> {
        let topic = &mut publish.message.topic;
        match publish.alias {
            None => {}
            Some(alias) if alias == 0 || alias > TOPIC_ALIASES_MAX => {
                return Err(Reason::TopicAlias);
            }
            Some(alias) if topic.is_empty() => topic.clone_from(self.aliases.get(&alias).ok_or(Reason::Protocol)?),
            Some(alias) if topic.len() <= crate::limits::TOPIC_BYTES_MAX => {
                self.aliases.insert(alias, topic.clone());
            }
            Some(_) => return Err(Reason::Topic),
        }
        Ok(())
    }

    /// Cancel safe: bytes are either in `input` or still in the socket.
    async fn read(&mut self) -> Result<(), EndError> {
        self.input.reserve(READ_BYTES);
        let count = (&mut self.stream).take(READ_BYTES as u64).read_buf(&mut self.input).await?;
        if count == 0 { Err(EndError::Eof) } else { Ok(()) }
    }

    async fn write(&mut self, packets: &[ToClient]) -> Result<(), EndError> {
        let version = self.frames.version().unwrap_or(Version::V3);
        for packet in packets {
            if let ToClient::PubAck { packet_id, .. } | ToClient::PubRec { packet_id, .. } = packet {
                self.unacknowledged.remove(packet_id);
            }
            encode(version, packet, &mut self.output);
        }
        timeout(WRITE_TIMEOUT, self.stream.write_all(&self.output)).await.map_err(|_| EndError::Stalled)??;
        self.output.clear();
        if self.output.capacity() > BATCH_BYTES_MAX {
            // One large message must not cost its memory for as long as the client stays.
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Lets what was written arrive: a socket closed with unread input would discard it.
    async fn finish(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            let mut discarded = [0; 1024];
            while self.stream.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
        };
        if timeout(LINGER, rest).await.is_err() {
            log::debug!(connection = self.id.0; "client kept its side open");
        }
    }

    async fn tell(&self, command: Command) -> Result<(), EndError> {
        self.commands.send(command).await.map_err(|_| EndError::Stopped)
    }
}

/// How long a closed connection waits for the client to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// Half as long again as the client promised; none for zero.
fn silence_max(keep_alive: Duration) -> Option<Duration> {
    (!keep_alive.is_zero()).then(|| keep_alive * 3 / 2)
}
