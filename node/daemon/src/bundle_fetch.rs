//! Brings the parts of a bundle that a node lacks from the fleet.

use crate::limits::ARTIFACT_STALL_MAX;
use crate::os::Sending;
use crate::session::{Exchange, Frames};
use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use quinn::Connection;
use sedge_bundle::{HEAD_BYTES_MAX, Head, Missing, Unproven, missing, unpack};
use sedge_protocol::Digest;
use sedge_protocol::image::ImageAssignment;
use sedge_protocol::limits::RANGES_MAX;
use sedge_protocol::message::{FromFleet, FromNode};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Why a bundle did not come.
#[derive(Debug)]
pub(crate) enum FetchFault {
    /// Worth another try.
    Passing(anyhow::Error),
    /// What the fleet has is not what its manifest says.
    Bundle(String),
}

impl From<anyhow::Error> for FetchFault {
    fn from(error: anyhow::Error) -> Self {
        Self::Passing(error)
    }
}

/// One bundle on its way.
#[derive(Debug)]
pub(crate) struct BundleFetch {
    connection: Connection,
    artifact: Digest,
    head: u64,
    size: u64,
    pace: Pace,
}

impl BundleFetch {
    pub(crate) fn new(connection: Connection, image: &ImageAssignment, rate: Option<u64>) -> Self {
        let pace = Pace { rate, began: Instant::now(), bytes: 0 };
        Self { connection, artifact: image.artifact, head: image.head, size: image.size, pace }
    }

    /// Its head.
    pub(crate) async fn head(&mut self) -> anyhow::Result<Vec<u8>> {
        let bytes = usize::try_from(self.head).ok().filter(|bytes| *bytes <= HEAD_BYTES_MAX).context("the head is too long")?;
        let mut stream = self.open(vec![(0, self.head)]).await?;
        Ok(stream.take(0, bytes, &mut self.pace).await?.to_vec())
    }

    /// Fetches the chunks that are missing, and hands them over. `progress` is told the bytes that have come and that have to come.
    pub(crate) async fn send(
        &mut self,
        head: &[u8],
        chunks: &[u32],
        mut sending: Sending,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Sending, FetchFault> {
        // The keeper has verified it; here it only says where things lie.
        let Unproven(manifest) =
            Head::parse(head).and_then(|head| head.unproven()).map_err(|fault| FetchFault::Bundle(fault.to_string()))?;
        let wanted: BTreeSet<u32> = chunks.iter().copied().collect();
        let lacking = missing(&manifest, |number| wanted.contains(&number));
        let total = lacking.bytes();
        let Missing { chunks, ranges } = lacking;
        let (mut come, mut chunks) = (0, VecDeque::from(chunks));
        progress(0, total);
        for batch in ranges.chunks(RANGES_MAX) {
            let end = batch.last().map_or(0, |(begin, length)| begin + length);
            let mut stream = self.open(batch.to_vec()).await?;
            while let Some(chunk) =
                chunks.front().and_then(|number| manifest.chunks.get(*number as usize)).filter(|chunk| chunk.offset < end)
            {
                let packed = stream.take(chunk.offset, chunk.packed as usize, &mut self.pace).await?;
                let (bytes, digest) = (chunk.bytes as usize, chunk.digest);
                let unpacked = tokio::task::spawn_blocking(move || unpack(&packed, bytes, &digest)).await.context("unpack a chunk")?;
                let unpacked = unpacked.map_err(|fault| FetchFault::Bundle(format!("what the fleet has of it is damaged: {fault}")))?;
                sending = sending.chunk(unpacked).await?;
                come += u64::from(chunk.packed);
                progress(come.min(total), total);
                chunks.pop_front();
            }
        }
        Ok(sending)
    }

    async fn open(&mut self, ranges: Vec<(u64, u64)>) -> anyhow::Result<Ranges> {
        // Time in which nothing was asked for is no credit.
        self.pace.begin();
        let waiting = ranges.iter().copied().collect();
        let mut exchange = Exchange::open(&self.connection, &FromNode::FetchRanges { digest: self.artifact, ranges }).await?;
        let FromFleet::Head { size } = exchange.answer().await? else { anyhow::bail!("the fleet answered no head") };
        anyhow::ensure!(size == self.size, "the fleet has {size} bytes, {} were assigned", self.size);
        Ok(Ranges { frames: exchange.finish_sending(), waiting, buffer: BytesMut::new() })
    }
}

/// The parts of a file that come one after the other.
#[derive(Debug)]
struct Ranges {
    frames: Frames,
    /// What is still to be taken: where it begins in the file, and its length.
    waiting: VecDeque<(u64, u64)>,
    buffer: BytesMut,
}

impl Ranges {
    /// The bytes from `offset` on, which lie in what was asked for; what lies before them is passed over.
    async fn take(&mut self, offset: u64, bytes: usize, pace: &mut Pace) -> anyhow::Result<Bytes> {
        while let Some((begin, length)) = self.waiting.front().copied() {
            if begin == offset {
                break;
            }
            let skip = length.min(offset.saturating_sub(begin));
            anyhow::ensure!(skip > 0, "the ranges of a bundle are out of order");
            self.next(usize::try_from(skip)?, pace).await?;
        }
        self.next(bytes, pace).await
    }

    async fn next(&mut self, bytes: usize, pace: &mut Pace) -> anyhow::Result<Bytes> {
        while self.buffer.len() < bytes {
            let piece = tokio::time::timeout(ARTIFACT_STALL_MAX, self.frames.raw()).await.context("the bundle stalls")??;
            let piece = piece.context("the bundle ended early")?;
            pace.took(piece.len()).await;
            self.buffer.extend_from_slice(&piece);
        }
        let (begin, length) = self.waiting.pop_front().context("more was taken than was asked for")?;
        let rest = length.checked_sub(bytes as u64).context("a chunk lies across two ranges")?;
        if rest > 0 {
            self.waiting.push_front((begin + bytes as u64, rest));
        }
        Ok(self.buffer.split_to(bytes).freeze())
    }
}

/// Keeps to a rate: reading slowly is what slows the sender down.
#[derive(Debug)]
struct Pace {
    /// Bytes in a second.
    rate: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn begin(&mut self) {
        (self.began, self.bytes) = (Instant::now(), 0);
    }

    async fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        tokio::time::sleep(self.due().saturating_sub(self.began.elapsed())).await;
    }

    /// How long what has come should have taken.
    fn due(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_held_to_the_rate() {
        let due = |rate, bytes| Pace { rate, began: Instant::now(), bytes }.due();
        assert_eq!(due(None, u64::MAX), Duration::ZERO);
        assert_eq!(due(Some(1024), 10 * 1024), Duration::from_secs(10));
        assert_eq!(due(Some(0), 2), Duration::from_secs(2), "a rate of nothing is the least there is");
    }
}
