//! Pieces of an image, and how they are known again.

use sedge_protocol::Digest;

/// How much is read, written and compared at once.
pub(crate) const CHUNK_BYTES: usize = 4 << 20;
/// Pieces of a chunk that may be left out of a sparse file.
pub(crate) const HOLE_BYTES: usize = 64 << 10;

/// What a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Zeros and nothing else.
    Zeros,
    /// The digest of its bytes.
    Data(Digest),
}

impl Chunk {
    /// That of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if is_zero(bytes) { Self::Zeros } else { Self::Data(Digest::of(bytes)) }
    }
}

/// Whether there is nothing in it.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
