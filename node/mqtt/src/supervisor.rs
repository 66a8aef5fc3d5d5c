//! Runs the broker: the listener, a task for each connection, and the hub with its clock.
//!
//! ```text
//!  listener ─ spawn ─▶ connection ── Command ──▶ hub loop ── Inbound ──▶ Ingress
//!                          ▲                      │   ▲                     │
//!                          └──────── Batch ───────┘   └───── receipts ◀─────┘
//! ```
//! Stopping: no new connection; connections stop reading; pending receipts are awaited for [`DRAIN_TIMEOUT`] and acknowledged;
//! then each client of MQTT 5 hears DISCONNECT and every connection is closed.

use std::{collections::BTreeMap, net::TcpListener, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Batch, Command, Connection},
    hub::{ConnectionId, Effect, Hub, Ticket},
    limits::{ACCEPT_PAUSE, CLIENTS_MAX, DRAIN_TIMEOUT},
    message::{Inbound, Ingress, Receipt, Refusal},
    stats::Stats,
    user::Users,
};

/// The running part of a broker.
#[must_use = "nothing is accepted before it runs"]
pub struct BrokerTask {
    listener: TcpListener,
    users: Arc<Users>,
    commands: mpsc::Sender<Command>,
    station: Station,
}

impl std::fmt::Debug for BrokerTask {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("BrokerTask").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl BrokerTask {
    pub(crate) fn new(
        listener: TcpListener,
        users: Users,
        ingress: Arc<dyn Ingress>,
        (commands, received): (mpsc::Sender<Command>, mpsc::Receiver<Command>),
        stats: watch::Sender<Stats>,
    ) -> Self {
        let station = Station {
            hub: Hub::default(),
            ingress,
            commands: received,
            batches: BTreeMap::new(),
            receipts: FuturesUnordered::new(),
            started: Instant::now(),
            stats,
        };
        Self { listener, users: Arc::new(users), commands, station }
    }

    /// Serves clients until `stop` is cancelled and all of them are closed, which takes no longer than twice [`DRAIN_TIMEOUT`].
    ///
    /// Not cancel safe: dropping the future closes the connections without acknowledgement.
    ///
    /// # Errors
    /// The listener cannot be registered with the runtime.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let closed = CancellationToken::new();
        let serve = async {
            serve(listener, self.users, self.commands, &stop).await;
            closed.cancel();
        };
        tokio::join!(serve, self.station.run(&stop, &closed));
        Ok(())
    }
}

/// Accepts and runs connections; returns when `stop` is cancelled and the last one has ended.
async fn serve(listener: tokio::net::TcpListener, users: Arc<Users>, commands: mpsc::Sender<Command>, stop: &CancellationToken) {
    let mut connections = JoinSet::new();
    let mut accepted = 0;
    loop {
        tokio::select! {
            result = listener.accept() => match result {
                Ok((stream, peer)) if connections.len() < CLIENTS_MAX => {
                    accepted += 1;
                    log::debug!(connection = accepted, peer:% = peer; "connection accepted");
                    connections.spawn(attend(ConnectionId(accepted), stream, Arc::clone(&users), commands.clone(), stop.clone()));
                }
                Ok((_, peer)) => log::warn!(peer:% = peer, clients = connections.len(); "connection refused, too many"),
                Err(error) => {
                    log::error!(error:% = error; "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    // The hub closes them within DRAIN_TIMEOUT; what hangs in a write longer than that again is cut off.
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(2 * DRAIN_TIMEOUT, all).await.is_err() {
        connections.shutdown().await;
    }
}

/// Runs one connection and tells the hub of its end, whatever it was.
///
/// A panic is not passed on: the parser is not ours and its input is the network's; a connection shares no state that could be
/// left half-changed, so hostile bytes cost their sender the connection and nobody else anything.
async fn attend(id: ConnectionId, stream: TcpStream, users: Arc<Users>, commands: mpsc::Sender<Command>, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!(connection = id.0, error:% = error; "answers may be delayed");
    }
    let connection = Connection::new(id, stream, commands.clone());
    match AssertUnwindSafe(connection.run(users, stop)).catch_unwind().await {
        Ok(Ok(())) => log::debug!(connection = id.0; "connection closed"),
        Ok(Err(reason)) => log::info!(connection = id.0, reason:% = reason; "connection ended"),
        Err(_) => log::error!(connection = id.0; "connection panicked"),
    }
    if commands.send(Command::Closed { connection: id }).await.is_err() {
        log::debug!(connection = id.0; "hub ended first");
    }
}

/// The hub with everything it needs from the world.
struct Station {
    hub: Hub,
    ingress: Arc<dyn Ingress>,
    commands: mpsc::Receiver<Command>,
    batches: BTreeMap<ConnectionId, mpsc::Sender<Batch>>,
    receipts: FuturesUnordered<BoxFuture<'static, (Ticket, Result<(), Refusal>)>>,
    started: Instant,
    stats: watch::Sender<Stats>,
}

impl Station {
    /// Serves until every connection is `closed`.
    async fn run(mut self, stop: &CancellationToken, closed: &CancellationToken) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut drain_until = None;
        let mut stopped = false;
        loop {
            tokio::select! {
                Some(command) = self.commands.recv() => self.handle_command(command),
                Some((ticket, outcome)) = self.receipts.next() => self.hub.handle_receipt(ticket, outcome, self.now()),
                _ = tick.tick() => self.hub.handle_tick(self.now()),
                () = stop.cancelled(), if drain_until.is_none() => drain_until = Some(Instant::now() + DRAIN_TIMEOUT),
                () = sleep_until(drain_until.unwrap_or(self.started)), if drain_until.is_some() && !stopped => {}
                () = closed.cancelled() => break,
            }
            self.perform();
            let drained = |until| self.hub.receipts_pending() == 0 || Instant::now() >= until;
            if stopped || drain_until.is_some_and(drained) {
                // Again after each command: a client may have been let in a moment ago.
                stopped = true;
                self.hub.stop(self.now());
                self.perform();
            }
            self.stats.send_replace(self.hub.stats());
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Connect { connection, connect, batches } => {
                self.batches.insert(connection, batches);
                self.hub.handle_connect(connection, *connect, now);
            }
            Command::Packet { connection, packet } => self.hub.handle_packet(connection, packet, now),
            Command::Ready { connection } => self.hub.handle_ready(connection),
            Command::Closed { connection } => {
                self.batches.remove(&connection);
                self.hub.handle_closed(connection, now);
            }
            Command::Publish(message) => self.hub.publish(message, now),
        }
    }

    /// Does what the hub wants done until it wants nothing more.
    fn perform(&mut self) {
        while let Some(effect) = self.hub.poll_effect(self.now()) {
            match effect {
                Effect::Ingress { ticket, inbound } => self.hand_over(ticket, inbound),
                Effect::Send { connection, packets, last } => self.send(connection, Batch { packets, last }),
            }
        }
    }

    fn hand_over(&mut self, ticket: Option<Ticket>, inbound: Inbound) {
        match (self.ingress.publish(inbound), ticket) {
            (Receipt::Accepted, Some(ticket)) => self.hub.handle_receipt(ticket, Ok(()), self.now()),
            (Receipt::Refused(refusal), Some(ticket)) => self.hub.handle_receipt(ticket, Err(refusal), self.now()),
            (Receipt::Pending(answer), Some(ticket)) => {
                let receipt = async move { (ticket, answer.await.unwrap_or(Err(Refusal::Unavailable))) };
                self.receipts.push(receipt.boxed());
            }
            (Receipt::Refused(_), None) => self.hub.count_refused(),
            (Receipt::Accepted | Receipt::Pending(_), None) => {}
        }
    }

    fn send(&mut self, connection: ConnectionId, batch: Batch) {
        let last = batch.last;
        if let Some(batches) = self.batches.get(&connection) {
            // The hub keeps to one batch and the last, so the only way to fail is a connection that has just ended.
            if let Err(mpsc::error::TrySendError::Full(_)) = batches.try_send(batch) {
                unreachable!("a connection has at most one batch it has not taken, and the last");
            }
        }
        if last {
            self.batches.remove(&connection);
        }
    }
}
