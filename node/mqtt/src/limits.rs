//! Every bound of the broker, with its unit.  Each is enforced in one place and tested one above its value.

use std::time::Duration;

/// Connections open at once, those that have not finished CONNECT included.
pub const CLIENTS_MAX: usize = 200;
/// Sessions remembered, connected or not; the one that has been away longest is forgotten first.
pub const SESSIONS_MAX: usize = 2 * CLIENTS_MAX;
/// Payload of one message.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Size of one MQTT packet in either direction, header included: the largest payload, the longest topic, and properties.
pub const PACKET_BYTES_MAX: u32 = 264 * 1024;
/// Length of a client identifier.
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// Length of a topic or filter.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// Levels of a topic or filter.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// Topic aliases a client may define.
pub const TOPIC_ALIASES_MAX: u16 = 16;
/// Filters one session may hold.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Publishes of one client that wait for their acknowledgement, as MQTT 5 calls it the receive maximum.
pub const RECEIVE_MAX: u16 = 32;
/// Publishes of QoS 2 of one MQTT 3.1.1 client that were acknowledged and not yet released.
pub const RELEASES_MAX: usize = 1024;
/// Messages that are on the way to one client and not yet acknowledged by it.
pub const INFLIGHT_MAX: u16 = 32;
/// Messages queued for one client.
pub const QUEUE_MESSAGES_MAX: usize = 1_000;
/// Bytes queued for one client (topics, payloads and properties).
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes queued for all clients together; beyond it every queue counts as full.
pub const QUEUE_BYTES_TOTAL_MAX: usize = 64 * 1024 * 1024;
/// Topics with a retained message.
pub const RETAINED_TOPICS_MAX: usize = 5_000;
/// Bytes of all retained messages.
pub const RETAINED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Answers (SUBACK, PUBCOMP, ..) waiting for a client that does not read; beyond it the connection is closed.
pub const ANSWERS_MAX: usize = 1024;
/// Bytes handed to a connection at once; the next batch follows when it has been written.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Packets handed to a connection at once.
pub const BATCH_PACKETS_MAX: usize = 256;
/// Commands waiting for the hub; with packets of [`PACKET_BYTES_MAX`] that is 16.5 MiB.
pub const COMMANDS_MAX: usize = 64;
/// User properties of one message.
pub const USER_PROPERTIES_MAX: usize = 64;
/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 8 * 1024;

/// Longest time a session outlives its connection.
pub const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time from the TCP connection to a whole CONNECT.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a client may take to accept one batch before it counts as dead.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for pending acknowledgements and last writes when the broker stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause of the listener after `accept` failed (no file descriptors, for example).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
