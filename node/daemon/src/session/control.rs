//! The control stream: greeting, desired states in, reports out.

use super::frames::{Exchange, Frames};
use super::{Link, Session};
use crate::limits::{BOARD_WAIT, HEARTBEAT_MAX, HEARTBEAT_MIN, REASON_SHORT_BYTES};
use crate::vitals;
use anyhow::Context as _;
use quinn::{Connection, SendStream};
use sedge_protocol::Standing;
use sedge_protocol::frame::{FrameError, encode};
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::{FromFleet, FromNode, FunctionState, Hello, Report, VERSION, Welcome};
use sedge_provisioning::enrolment::Event;
use std::sync::Arc;
use std::time::Duration;

/// Serves the stream until it ends; answers why. An error means that not even the greeting came.
pub(super) async fn run(session: &Session, connection: &Connection) -> anyhow::Result<anyhow::Error> {
    let board = board(session).await;
    let hello = Hello {
        version: VERSION,
        daemon: env!("CARGO_PKG_VERSION").to_owned(),
        desired_epoch: session.desired.borrow().epoch,
        architecture: std::env::consts::ARCH.to_owned(),
        board,
        labels: session.fleet.labels.clone(),
        instance: session.instance,
    };
    let mut exchange = Exchange::open(connection, &FromNode::Hello(hello)).await?;
    let welcome = match exchange.answer().await? {
        FromFleet::Welcome(welcome) => welcome,
        other => anyhow::bail!("the fleet answered {other:?} instead of a greeting"),
    };
    log::info!(fleet:% = connection.remote_address(), version = welcome.version; "connected to the fleet");
    drop(session.events.send(Event::Greeted { fleet_ms: welcome.time_ms }).await);
    let standing = welcome.standing.clone();
    if standing != Standing::Active {
        log::warn!(standing:%; "the fleet gives this node nothing new");
    }
    session.link.send_replace(Link { state: FleetLink::Online, connection: Some(connection.clone()), standing });
    let (send, frames) = exchange.split();
    let error = tokio::select! {
        error = report(session, send, &welcome) => error,
        error = receive(session, frames) => error,
    };
    Ok(error)
}

/// What images the node takes. Its keeper is asked when the daemon starts, which may be a moment ago.
async fn board(session: &Session) -> Option<String> {
    let mut os = session.os.clone();
    let known = tokio::time::timeout(BOARD_WAIT, os.wait_for(Option::is_some)).await;
    known.ok()?.ok()?.as_ref().map(|report| report.board.clone())
}

async fn receive(session: &Session, mut frames: Frames) -> anyhow::Error {
    loop {
        match frames.next().await {
            Ok(FromFleet::Desired(desired)) => {
                let current = session.desired.borrow().epoch;
                if desired.epoch < current {
                    log::debug!(epoch = desired.epoch, current; "an older desired state is ignored");
                } else {
                    session.desired.send_if_modified(|known| {
                        let changed = *known != desired;
                        *known = desired;
                        changed
                    });
                }
            }
            Ok(FromFleet::Standing { standing }) => {
                log::info!(standing:%; "an operator has decided about this node");
                session.link.send_modify(|link| link.standing = standing);
            }
            Ok(FromFleet::Refused { reason }) => return anyhow::anyhow!("the fleet refused: {reason}"),
            Ok(other) => return anyhow::anyhow!("unexpected on the control stream: {other:?}"),
            Err(error) => return error,
        }
    }
}

async fn report(session: &Session, mut send: SendStream, welcome: &Welcome) -> anyhow::Error {
    let heartbeat = Duration::from_millis(welcome.heartbeat_ms).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
    let (mut functions, mut os) = (session.functions.clone(), session.os.clone());
    loop {
        if let Err(error) = send_report(session, &mut send).await {
            return error;
        }
        tokio::select! {
            changed = functions.changed() => if let Err(error) = changed { return error.into() },
            // Its sender may be gone: not every node keeps its operating system.
            Ok(()) = os.changed() => {}
            () = tokio::time::sleep(heartbeat) => {}
        }
    }
}

async fn send_report(session: &Session, send: &mut SendStream) -> anyhow::Result<()> {
    let (stats, store, devices) = (Arc::clone(&session.stats), session.store.clone(), session.devices.clone());
    let vitals = tokio::task::spawn_blocking(move || vitals::read(&stats, &store, &devices)).await?;
    let table = session.functions.table();
    let report = Report {
        desired_epoch: table.desired_epoch,
        functions: session.meter.with_totals(table.reports(&session.secrets)),
        errors: session.errors.newest(),
        vitals,
        os: session.os.borrow().clone(),
    };
    send.write_all(&frame_of(report)?).await.context("send a report")
}

/// Many functions that all say at length why they do not run may pass the bound of a frame: then reasons are shortened.
fn frame_of(mut report: Report) -> anyhow::Result<Vec<u8>> {
    match encode(&FromNode::Report(report.clone())) {
        Err(FrameError::TooLong(_)) => {}
        frame => return frame.context("encode a report"),
    }
    for function in &mut report.functions {
        if let FunctionState::Failed { reason } = &mut function.state {
            reason.truncate(reason.floor_char_boundary(REASON_SHORT_BYTES));
        }
        if let Some(failure) = &mut function.health.last_failure {
            failure.reason.truncate(failure.reason.floor_char_boundary(REASON_SHORT_BYTES));
        }
        function.missing_secrets.truncate(1);
        function.health.lost_routes.clear();
    }
    encode(&FromNode::Report(report)).context("encode a report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LOST_ROUTES_MAX, MISSING_SECRETS_MAX};
    use sedge_protocol::limits::{ASSIGNED_MAX, HEALTH_REASON_BYTES_MAX, REASON_BYTES_MAX, REPORT_ERRORS_MAX};
    use sedge_protocol::message::{ErrorReport, FunctionReport, Health, LastFailure, LostRoute};
    use sedge_protocol::usage::Counters;
    use sedge_protocol::{Digest, Manifest, RevisionId};

    #[test]
    fn the_largest_report_fits_into_a_frame() {
        let manifest = Manifest::from_toml("f", "name = 'f'").unwrap().0;
        let revision = Some(RevisionId::of(&Digest::of(b""), &manifest));
        let large = Counters { calls_ok: u64::MAX, cpu_us: u64::MAX, memory_mib_ms: u64::MAX, bytes_in: u64::MAX, ..Counters::default() };
        let reason = "ü".repeat(REASON_BYTES_MAX / 2);
        let function = |number: usize| format!("f{number:062}").parse().unwrap();
        let functions = (0..ASSIGNED_MAX).map(|number| FunctionReport {
            function: function(number),
            running: revision,
            state: FunctionState::Failed { reason: reason.clone() },
            assigned: revision,
            missing_secrets: vec!["s".repeat(63).parse().unwrap(); MISSING_SECRETS_MAX],
            totals: large,
            health: Health {
                failed_hour: u32::MAX,
                last_failure: Some(LastFailure { time_ms: u64::MAX, reason: "ü".repeat(HEALTH_REASON_BYTES_MAX / 2) }),
                lost_routes: vec![
                    LostRoute { route: format!("/{}", "r".repeat(255)).parse().unwrap(), served_by: function(number) };
                    LOST_ROUTES_MAX
                ],
            },
        });
        let error = ErrorReport { number: u64::MAX, time_ms: u64::MAX, function: function(1), revision, reason: reason.clone() };
        let errors = vec![error; REPORT_ERRORS_MAX];
        let report = Report { functions: functions.collect(), errors, ..Report::default() };
        assert!(matches!(encode(&FromNode::Report(report.clone())), Err(FrameError::TooLong(_))));
        frame_of(report).unwrap();
    }
}
