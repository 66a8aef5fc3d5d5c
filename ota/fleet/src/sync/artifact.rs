//! The artifact stream: a head, then bytes from the offset on.

use super::Session;
use super::frames::{StreamFault, send};
use quinn::SendStream;
use sedge_protocol::Digest;
use sedge_protocol::limits::{ARTIFACT_CHUNK_BYTES, RANGES_MAX};
use sedge_protocol::message::FromFleet;
use std::io::SeekFrom;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

pub(super) async fn serve(session: &Session, digest: Digest, offset: u64, answer: &mut SendStream) -> Result<(), StreamFault> {
    let Some((file, size)) = find(session, digest, answer).await? else { return Ok(()) };
    let Some(length) = size.checked_sub(offset) else {
        let reason = format!("the artifact has {size} bytes, byte {offset} was asked for");
        return send(answer, &FromFleet::Refused { reason }).await;
    };
    send_parts(file, size, &[(offset, length)], answer).await
}

/// The parts that are asked for, one after the other behind one head.
pub(super) async fn serve_ranges(
    session: &Session,
    digest: Digest,
    ranges: &[(u64, u64)],
    answer: &mut SendStream,
) -> Result<(), StreamFault> {
    let Some((file, size)) = find(session, digest, answer).await? else { return Ok(()) };
    let outside = ranges.iter().any(|(begin, length)| begin.checked_add(*length).is_none_or(|end| end > size));
    if outside || ranges.len() > RANGES_MAX {
        let reason = format!("the artifact has {size} bytes and {RANGES_MAX} ranges are answered at once; other ones were asked for");
        return send(answer, &FromFleet::Refused { reason }).await;
    }
    send_parts(file, size, ranges, answer).await
}

/// The artifact and its size; who asked for one that is not here is told so.
async fn find(session: &Session, digest: Digest, answer: &mut SendStream) -> Result<Option<(File, u64)>, StreamFault> {
    let found = session.shared.artifacts.file(digest).await.map_err(StreamFault::Artifact)?;
    if found.is_none() {
        send(answer, &FromFleet::Refused { reason: format!("there is no artifact {digest}") }).await?;
    }
    Ok(found)
}

/// The head, then the parts, which lie in the file.
async fn send_parts(mut file: File, size: u64, parts: &[(u64, u64)], answer: &mut SendStream) -> Result<(), StreamFault> {
    send(answer, &FromFleet::Head { size }).await?;
    let mut chunk = vec![0; ARTIFACT_CHUNK_BYTES];
    for (begin, length) in parts {
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
