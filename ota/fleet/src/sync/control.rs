//! The control stream: greets, tells the desired state and the standing whenever they change, takes reports.

use super::Session;
use super::frames::{Frames, StreamFault, send};
use crate::hub::News;
use crate::limits::HEARTBEAT_MS;
use log::warn;
use quinn::SendStream;
use sedge_protocol::Standing;
use sedge_protocol::limits::{ASSIGNED_MAX, REPORT_ERRORS_MAX};
use sedge_protocol::message::{FromFleet, FromNode, Hello, Report, VERSION, Welcome};
use sedge_provisioning::clock::now_ms;

pub(super) async fn serve(
    session: &Session,
    hello: Hello,
    (frames, answer): (&mut Frames, &mut SendStream),
    News { mut desired, mut standing }: News,
) -> Result<(), StreamFault> {
    let (store, hub) = (&session.shared.store, &session.shared.hub);
    watch_for_twins(session, &hello).await?;
    let stands = store.entry(&session.node).await?.map(|entry| entry.standing).unwrap_or_default();
    let welcome = Welcome { version: VERSION, time_ms: now_ms(), heartbeat_ms: HEARTBEAT_MS, standing: stands };
    send(answer, &FromFleet::Welcome(welcome)).await?;
    hub.push(store.greet(&session.node, &hello, now_ms()).await?).await;
    // The seat was taken before: a change between this reading and now has been pushed already, and the larger epoch wins.
    if let Some(current) = store.desired(&session.node).await? {
        hub.push(vec![(session.node.clone(), current)]).await;
    }
    loop {
        tokio::select! {
            frame = frames.next() => match frame? {
                Some(FromNode::Report(report)) => take(session, report).await?,
                Some(FromNode::Hello(_) | FromNode::Fetch { .. } | FromNode::FetchRanges { .. } | FromNode::Usage(_) | FromNode::Renew { .. }) => {
                    return Err(StreamFault::Order("only reports belong on a control stream"));
                }
                None => return Ok(()),
            },
            changed = desired.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let state = desired.borrow_and_update().clone();
                if let Some(state) = state {
                    send(answer, &FromFleet::Desired((*state).clone())).await?;
                }
            }
            changed = standing.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let stands = standing.borrow_and_update().clone();
                if let Some(standing) = stands {
                    send(answer, &FromFleet::Standing { standing }).await?;
                }
            }
        }
    }
}

/// Two boxes with one key take the place from each other: the node is quarantined, and both connections with it, until somebody has looked.
async fn watch_for_twins(session: &Session, hello: &Hello) -> Result<(), StreamFault> {
    let (shared, node) = (&session.shared, &session.node);
    let from = session.connection.remote_address().to_string();
    let Some(twins) = shared.hub.greeted(node, hello.instance, from).await else { return Ok(()) };
    let [one, other] = twins.from;
    let reason = format!("two boxes have its key, at {one} and at {other}");
    if shared.store.quarantine(node, reason.clone(), now_ms()).await? {
        warn!(node:%, reason; "node quarantined");
        shared.hub.stands(node, Standing::Quarantined { reason }).await;
    }
    Ok(())
}

/// Errors are kept at once, since the node tells them once; the rest waits for the next flush, since it comes again.
async fn take(session: &Session, mut report: Report) -> Result<(), StreamFault> {
    if report.functions.len() > 2 * ASSIGNED_MAX || report.errors.len() > REPORT_ERRORS_MAX {
        return Err(StreamFault::Order("a report with more functions or errors than are allowed"));
    }
    let errors = std::mem::take(&mut report.errors);
    if !errors.is_empty() {
        session.shared.store.keep_errors(&session.node, report.vitals.started_ms, &errors, now_ms()).await?;
    }
    session.shared.hub.report(&session.node, session.number, report).await;
    Ok(())
}
