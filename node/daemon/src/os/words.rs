//! What the daemon asks of the process that may change the operating system. One request and one answer for each connection; both ends are of
//! the same program, so there are no versions. After [`Request::Stage`] the head of a bundle follows as it is, and after
//! [`Answer::Missing`] the chunks that it names, unpacked, one after the other; then comes the last answer.

use anyhow::Context as _;
use sedge_protocol::image::{ImageVersion, OsReport};
use sedge_protocol::limits::FRAME_BYTES_MAX;
use sedge_protocol::{Digest, frame};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// The box has its certificate: the claim can go.
    ClaimUsed {
        /// Digest of the one that it joined with; any, when that is not known. Another one is not touched: it was not used.
        claim: Option<Digest>,
    },
    /// The box has what the stick's bundle grants: the copy of it can go.
    BundleTaken,
    /// How things stand.
    Status,
    /// This version does not do its work yet.
    Waits {
        /// What is missing.
        what: String,
    },
    /// This version does its work: the boot loader shall keep to it.
    Healthy,
    /// A new version comes.
    Stage {
        /// Length of the bundle's head, bytes.
        head: u64,
        /// Number of the rollout: another number is another try of a version that was given up.
        rollout: u64,
    },
    /// What was staged, or begun, is not wanted any more.
    Abandon,
    /// The staged version shall be tried now.
    Activate {
        /// Which.
        version: ImageVersion,
        /// Number of the rollout.
        rollout: u64,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done, or had been done before.
    Done,
    /// How things stand.
    Status {
        /// All of it.
        report: OsReport,
    },
    /// These chunks are to come.
    Missing {
        /// Their places in the manifest, ascending.
        chunks: Vec<u32>,
    },
    /// It will never be done.
    Refused {
        /// Why.
        reason: String,
    },
    /// It could not be done; another try may do it.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Reads one message.
pub(crate) fn read<M: DeserializeOwned>(from: &mut impl Read) -> anyhow::Result<M> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).context("read a message")?;
    let bytes = usize::try_from(u32::from_be_bytes(prefix))?;
    anyhow::ensure!(bytes <= FRAME_BYTES_MAX, "a message of {bytes} bytes");
    let mut body = vec![0; bytes];
    from.read_exact(&mut body).context("read a message")?;
    Ok(frame::decode_body(&body)?)
}

/// Writes one message.
pub(crate) fn write<M: Serialize>(to: &mut impl Write, message: &M) -> anyhow::Result<()> {
    to.write_all(&frame::encode(message)?).context("write a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_a_cut_one_is_refused() {
        let answer = Answer::Failed { reason: "sedge_1.0.efi".to_owned() };
        let mut bytes = Vec::new();
        write(&mut bytes, &answer).unwrap();
        assert_eq!(read::<Answer>(&mut bytes.as_slice()).unwrap(), answer);
        for cut in 0..bytes.len() {
            assert!(read::<Answer>(&mut &bytes[..cut]).is_err(), "{cut}");
        }
        assert!(read::<Request>(&mut [0xff_u8; 8].as_slice()).is_err());
    }
}
