//! The handle of the broker, and how to start it.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use tokio::sync::{mpsc, watch};

use crate::{
    connection::Command,
    limits::{COMMANDS_MAX, PACKET_BYTES_MAX},
    message::{Ingress, Message, Properties},
    stats::Stats,
    supervisor::BrokerTask,
    topic::{TopicError, check_topic},
    user::Users,
};

/// Where the broker listens and to whom.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Address; port 0 takes any free one, see [`Broker::local_addr`].
    pub listen: SocketAddr,
    /// Names and passwords; empty lets everybody in, which is only allowed on a loopback address.
    pub users: Vec<(String, String)>,
}

impl Default for BrokerConfig {
    /// Loopback, port 1883, everybody.
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 1883)), users: Vec::new() }
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&str> = self.users.iter().map(|(name, _)| name.as_str()).collect();
        out.debug_struct("BrokerConfig").field("listen", &self.listen).field("users", &users).finish()
    }
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The network could reach it and nobody would be asked for a password.
    #[error("MQTT on {listen} is open to the network: name users, or listen on a loopback address")]
    OpenToNetwork {
        /// Address of the configuration.
        listen: SocketAddr,
    },
    /// The address cannot be had; the port is in use, for example.
    #[error("listen for MQTT on {listen}")]
    Listen {
        /// Address of the configuration.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// Why a message of the node was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not a topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Larger than a packet, or a property longer than 65 535 bytes.
    #[error("message does not fit a packet of {PACKET_BYTES_MAX} bytes")]
    TooLarge,
    /// The broker has stopped.
    #[error("broker has stopped")]
    Stopped,
}

/// Handle of a broker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    commands: mpsc::Sender<Command>,
    stats: watch::Receiver<Stats>,
    address: SocketAddr,
}

impl Broker {
    /// Takes the address; nothing is accepted before [`BrokerTask::run`].
    ///
    /// # Errors
    /// The address is open to the network without passwords, or cannot be had.
    pub fn bind(config: BrokerConfig, ingress: Arc<dyn Ingress>) -> Result<(Self, BrokerTask), BindError> {
        let BrokerConfig { listen, users } = config;
        if users.is_empty() && !listen.ip().is_loopback() {
            return Err(BindError::OpenToNetwork { listen });
        }
        let failed = |cause| BindError::Listen { listen, cause };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (counted, stats) = watch::channel(Stats::default());
        let task = BrokerTask::new(listener, Users::new(users), ingress, (commands.clone(), received), counted);
        Ok((Self { commands, stats, address }, task))
    }

    /// Sends a message of the node to the subscribers, and retains it if it asks for that.  It does not come back through the
    /// [`Ingress`].  Waits while the hub is busy; delivery itself is not awaited.
    ///
    /// # Errors
    /// The message breaks a rule, or the broker has stopped.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        check_topic(&message.topic)?;
        if !fits(&message) {
            return Err(PublishError::TooLarge);
        }
        self.commands.send(Command::Publish(message)).await.map_err(|_| PublishError::Stopped)
    }

    /// What the broker counts, a moment ago.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.stats.borrow()
    }

    /// Address it listens on, with the port that was given out.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Whether every property fits its length field and the whole fits a packet, its header and some identifiers included.
fn fits(message: &Message) -> bool {
    let Properties { content_type, response_topic, correlation_data, user, .. } = &message.properties;
    let texts = [content_type, response_topic].into_iter().flatten().chain(user.iter().flat_map(|(name, value)| [name, value]));
    let longest = texts.map(String::len).chain(correlation_data.iter().map(bytes::Bytes::len)).max().unwrap_or(0);
    let overhead = 1024 + 5 * user.len();
    longest <= usize::from(u16::MAX) && message.len() + overhead <= PACKET_BYTES_MAX as usize
}
