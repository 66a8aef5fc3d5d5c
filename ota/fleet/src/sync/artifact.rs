//! The artifact stream: a head, then bytes from the offset on.

use super::Session;
use super::frames::{StreamFault, send};
use quinn::SendStream;
use sedge_protocol::Digest;
use sedge_protocol::limits::{ARTIFACT_CHUNK_BYTES, RANGES_MAX};
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

/// The parts that are asked for, one after the other behind one head.
pub(super) async fn serve_ranges(
    session: &Session,
    digest: Digest,
    ranges: &[(u64, u64)],
    answer: &mut SendStream,
) -> Result<(), StreamFault> {
    let found = session.shared.artifacts.file(digest).await.map_err(StreamFault::Artifact)?;
    let Some((mut file, size)) = found else {
        return send(answer, &FromFleet::Refused { reason: format!("there is no artifact {digest}") }).await;
    };
    let outside = ranges.iter().find(|(begin, length)| begin.checked_add(*length).is_none_or(|end| end > size));
    if outside.is_some() || ranges.len() > RANGES_MAX {
        let reason = format!("the artifact has {size} bytes and {RANGES_MAX} ranges are answered at once; other ones were asked for");
        return send(answer, &FromFleet::Refused { reason }).await;
    }
    send(answer, &FromFleet::Head { size }).await?;
    let mut chunk = vec![0; ARTIFACT_CHUNK_BYTES];
    for (begin, length) in ranges {
        file.seek(SeekFrom::Start(*begin)).await.map_err(StreamFault::Artifact)?;
        let mut rest = *length;
        while rest > 0 {
            let most = usize::try_from(rest).unwrap_or(usize::MAX).min(chunk.len());
            let read = file.read(&mut chunk[..most]).await.map_err(StreamFault::Artifact)?;
            if read == 0 {
                return Err(StreamFault::Artifact(std::io::ErrorKind::UnexpectedEof.into()));
            }
            answer.write_all(&chunk[..read]).await?;
            rest -= read as u64;
        }
    }
    Ok(())
}
