//! The artifact stream: a head, then bytes from the offset on.

use super::Session;
use super::frames::{StreamFault, send};
use quinn::SendStream;
use sedge_protocol::Digest;
use sedge_protocol::limits::ARTIFACT_CHUNK_BYTES;
use sedge_protocol::message::FromFleet;
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

pub(super) async fn serve(session: &Session, digest: Digest, offset: u64, answer: &mut SendStream) -> Result<(), StreamFault> {
    let found = session.shared.artifacts.file(digest).await.map_err(StreamFault::Artifact)?;
    let Some((mut file, size)) = found else {
        return send(answer, &FromFleet::Refused { reason: format!("there is no artifact {digest}") }).await;
    };
    if offset > size {
        let reason = format!("the artifact has {size} bytes, byte {offset} was asked for");
        return send(answer, &FromFleet::Refused { reason }).await;
    }
    send(answer, &FromFleet::Head { size }).await?;
    file.seek(SeekFrom::Start(offset)).await.map_err(StreamFault::Artifact)?;
    let mut chunk = vec![0; ARTIFACT_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk).await.map_err(StreamFault::Artifact)? {
            0 => return Ok(()),
            length => answer.write_all(&chunk[..length]).await?,
        }
    }
}
