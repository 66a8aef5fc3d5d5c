//! Numbers about the broker.

/// What the broker holds now, and what it has counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Clients connected.
    pub clients: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Filters that sessions subscribed with.
    pub subscriptions: usize,
    /// Topics with a retained message.
    pub retained: usize,
    /// Messages that clients published, repetitions and wills included.
    pub received: u64,
    /// Messages sent to clients, repetitions included.
    pub sent: u64,
    /// Sessions given up because too many were kept.
    pub forgotten: u64,
    /// Messages that were not sent or not retained because a queue or the store was full, or because they were too large for the client.
    pub dropped: u64,
    /// Messages that the node or a rule of the broker refused.
    pub refused: u64,
}
