//! The usage stream: batch after batch, each answered when it is durable.

use super::Session;
use super::frames::{Frames, StreamFault, send};
use crate::store::UsageFault;
use quinn::SendStream;
use sedge_protocol::message::{FromFleet, FromNode, UsageBatch};

pub(super) async fn serve(session: &Session, first: UsageBatch, frames: &mut Frames, answer: &mut SendStream) -> Result<(), StreamFault> {
    let mut next = Some(FromNode::Usage(first));
    while let Some(frame) = next {
        let FromNode::Usage(batch) = frame else { return Err(StreamFault::Order("only usage belongs on a usage stream")) };
        match session.shared.store.apply_usage(&session.node, &batch).await {
            Ok(through) => send(answer, &FromFleet::UsageApplied { epoch: batch.epoch, through }).await?,
            Err(UsageFault::Store(cause)) => return Err(cause.into()),
            Err(UsageFault::BeginAnew { through, cause }) => {
                log::warn!(node:% = session.node, through, cause; "a usage ledger cannot go on: the node is told to begin a new one");
                return send(answer, &FromFleet::UsageBeginAnew { through }).await;
            }
            Err(fault @ UsageFault::TooMany(_)) => {
                return send(answer, &FromFleet::Refused { reason: fault.to_string() }).await;
            }
        }
        next = frames.next().await?;
    }
    Ok(())
}
