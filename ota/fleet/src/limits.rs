//! Every bound of the fleet, with its unit.

use std::time::Duration;

/// Connections to the database.
pub(crate) const DATABASE_CONNECTIONS: u32 = 6;
/// Longest wait for one of them.
pub(crate) const DATABASE_WAIT: Duration = Duration::from_secs(20);
/// Life of a node's certificate, unless the configuration says otherwise.
pub(crate) const CERTIFICATE_LIFE_S: u64 = 30 * 24 * 3600;
/// Shortest and longest that the configuration may say.
pub(crate) const CERTIFICATE_LIFE_S_RANGE: std::ops::RangeInclusive<u64> = 10..=10 * 366 * 24 * 3600;
/// How long after its end a known key gets another, unless the configuration says otherwise.
pub(crate) const RETURN_DAYS: u32 = 365;
/// Certificates that a node is given at once on its way back.
pub(crate) const RETURNS_BURST: u32 = 5;
/// One more in this time.
pub(crate) const RETURN_REFILL_MS: u64 = 60_000;
/// Most nodes that one claim lets in.
pub(crate) const CLAIM_USES_MAX: u32 = 1_000_000;
/// Longest life of a claim: a year.
pub(crate) const CLAIM_TTL_S_MAX: u64 = 366 * 24 * 3600;
/// All artifacts of a bundle together.
pub(crate) const BUNDLE_BYTES_MAX: u64 = 1 << 30;
/// How often a node reports when nothing changes.
pub(crate) const HEARTBEAT_MS: u64 = 2_000;
/// How often what nodes last said is written down.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// Most connections of nodes at a time.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;
/// Most streams that a node may have open.
pub(crate) const STREAMS_MAX: u32 = 16;
/// Silence after which a connection is given up.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the first frame of a stream.
pub(crate) const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Most errors that are kept for the whole fleet.
pub(crate) const ERRORS_MAX: u64 = 10_000;
/// Most errors that one answer lists.
pub(crate) const ERRORS_LISTED_MAX: u64 = 200;
/// Largest body of a request that is not an artifact.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest wait for the first request of a connection, and for the head of each.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the head of a request to its answer, its body included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for an artifact: 64 MiB over a slow line.
pub(crate) const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Most artifacts that are received at the same time; each is held in memory until it is checked.
pub(crate) const UPLOADS_MAX: usize = 2;
/// How long a sign-in is good.
pub(crate) const SESSION_MS: u64 = 12 * 3_600_000;
/// Most sign-ins at a time; the oldest goes first.
pub(crate) const SESSIONS_MAX: u64 = 64;
/// Most server-sent event streams at a time.
pub(crate) const WATCHERS_MAX: usize = 64;
/// Tries that a source has at once before it is slowed down.
pub(crate) const TRIES_BURST: u32 = 10;
/// One more try in this time.
pub(crate) const TRY_REFILL_MS: u64 = 3_000;
/// Most sources that are remembered.
pub(crate) const SOURCES_MAX: usize = 10_000;
/// Longest wait for connections to end at shutdown.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Commands that wait for the hub.
pub(crate) const HUB_QUEUE: usize = 1024;
