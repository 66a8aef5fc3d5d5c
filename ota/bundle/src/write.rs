//! Makes a bundle of a kernel image and a root file system.

use crate::chunk::{cut, pack};
use crate::head::{Chunk, HeadError, Manifest, Part};
use crate::trust::SigningKey;
use sedge_protocol::Digest;
use sedge_protocol::image::ImageVersion;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{self, Read, Write};

/// What is said of it.
#[derive(Debug, Clone)]
pub struct About {
    /// What it is for, such as `gateway-x86-64`.
    pub board: String,
    /// Its version.
    pub version: ImageVersion,
    /// The oldest version that can be followed by it.
    pub minimum: Option<ImageVersion>,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Reading or writing.
    #[error("read the images or write the bundle")]
    Io(#[from] io::Error),
    /// Too large, mostly.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Length of the head, bytes.
    pub head: u64,
    /// Length of the whole, bytes.
    pub bytes: u64,
}

#[derive(Default)]
struct Builder {
    numbers: HashMap<Digest, u32>,
    chunks: Vec<Chunk>,
    packed: Vec<Vec<u8>>,
}

/// Writes the bundle, signed by every key given. The same input gives the same bytes.
///
/// # Errors
/// When reading or writing fails, or the image is larger than a bundle can be.
pub fn write(to: &mut impl Write, about: &About, parts: (impl Read, impl Read), keys: &[SigningKey]) -> Result<Written, WriteError> {
    let (kernel, root) = parts;
    let mut builder = Builder::default();
    let (kernel, root) = (builder.part(kernel)?, builder.part(root)?);
    let About { board, version, minimum } = about.clone();
    let manifest = Manifest { board, version, minimum, kernel, root, chunks: builder.chunks };
    let head = manifest.encode(|document| keys.iter().map(|key| key.sign(document)).collect())?;
    to.write_all(&head)?;
    let mut bytes = head.len() as u64;
    for packed in &builder.packed {
        to.write_all(packed)?;
        bytes += packed.len() as u64;
    }
    to.flush()?;
    Ok(Written { head: head.len() as u64, bytes })
}

impl Builder {
    fn part(&mut self, from: impl Read) -> Result<Part, WriteError> {
        let (mut size, mut whole, mut chunks) = (0, Sha256::new(), Vec::new());
        for chunk in cut(from) {
            let chunk = chunk?;
            size += chunk.len() as u64;
            whole.update(&chunk);
            chunks.push(self.number(&chunk)?);
        }
        Ok(Part { size, digest: Digest::from_bytes(whole.finalize().into()), chunks })
    }

    fn number(&mut self, chunk: &[u8]) -> Result<u32, WriteError> {
        let digest = Digest::of(chunk);
        if let Some(number) = self.numbers.get(&digest) {
            return Ok(*number);
        }
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let packed = pack(chunk)?;
        let number = length(self.chunks.len())?;
        self.chunks.push(Chunk { digest, bytes: length(chunk.len())?, packed: length(packed.len())?, offset: 0 });
        self.packed.push(packed);
        self.numbers.insert(digest, number);
        Ok(number)
    }
}
