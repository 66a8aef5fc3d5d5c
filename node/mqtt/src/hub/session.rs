//! What the broker remembers of one client.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{ConnectionId, inbox::Inbox, outbox::Outbox};
use crate::wire::{Options, Will};

/// A session of one client identifier; it may outlive its connections.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    /// User who opened it; no other may take it over.
    pub(crate) user: Option<String>,
    pub(crate) presence: Presence,
    /// How long it is kept without a connection.
    pub(crate) expiry: Duration,
    /// Subscriptions by the text the client used, `$share/` included.
    pub(crate) filters: BTreeMap<String, Options>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

/// Whether a client is connected.
#[derive(Debug)]
pub(crate) enum Presence {
    /// Connected; the will is said unless the client says goodbye.
    Here { connection: ConnectionId, will: Option<Will> },
    /// Gone since a time; the will is said at a time unless the client comes back before.
    Away { since: Duration, will: Option<(Duration, Will)> },
}

impl Session {
    /// The connection, while there is one.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Here { connection, .. } => Some(connection),
            Presence::Away { .. } => None,
        }
    }

    /// Whether it has been away longer than it is kept.
    pub(crate) fn expired(&self, now: Duration) -> bool {
        match self.presence {
            Presence::Here { .. } => false,
            Presence::Away { since, .. } => now >= since + self.expiry,
        }
    }

    /// Since when it has been away.
    pub(crate) fn away_since(&self) -> Option<Duration> {
        match self.presence {
            Presence::Here { .. } => None,
            Presence::Away { since, .. } => Some(since),
        }
    }
}
