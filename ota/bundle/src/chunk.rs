//! Chunks: pieces of an image whose borders follow from its content.

use fastcdc::v2020::StreamCDC;
use sedge_protocol::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{self, Read};

/// Smallest chunk, bytes.
const CHUNK_BYTES_MIN: usize = 8 * 1024;
/// Usual chunk, bytes. Smaller ones find more and cost more of the head.
const CHUNK_BYTES: usize = 32 * 1024;
/// Largest chunk, bytes.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;

/// Why packed bytes are not the chunk they should be.
#[derive(Debug, thiserror::Error)]
pub enum ChunkFault {
    /// They cannot be unpacked.
    #[error("a chunk cannot be unpacked")]
    Packed(#[source] io::Error),
    /// They are something else.
    #[error("a chunk is not what its digest says")]
    Digest,
}

/// Cuts what `from` gives. The same bytes give the same chunks, here and on every node.
pub fn cut(from: impl Read) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    StreamCDC::new(from, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX).map(|chunk| chunk.map(|chunk| chunk.data).map_err(Into::into))
}

/// The digest of all that `from` gives.
///
/// # Errors
/// When reading fails.
pub fn digest(mut from: impl Read) -> io::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hash.finalize().into())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Packs one chunk; as it is when that is not longer.
pub(crate) fn pack(chunk: &[u8]) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(chunk, PACK_LEVEL)?;
    Ok(if packed.len() < chunk.len() { packed } else { chunk.to_owned() })
}

const PACK_LEVEL: i32 = 19;

/// The chunk in `packed`, of `bytes` bytes; its digest is checked.
///
/// # Errors
/// When it is another one, or none.
pub fn unpack(packed: &[u8], bytes: usize, digest: &Digest) -> Result<Vec<u8>, ChunkFault> {
    let chunk = if packed.len() == bytes {
        packed.to_owned()
    } else {
        zstd::bulk::decompress(packed, bytes.min(CHUNK_BYTES_MAX)).map_err(ChunkFault::Packed)?
    };
    if Digest::of(&chunk) == *digest { Ok(chunk) } else { Err(ChunkFault::Digest) }
}

/// Where chunks lie in what a node has already.
#[derive(Debug, Default)]
pub struct Index {
    places: HashMap<Digest, Place>,
}

/// A place in one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which source, in the order they were added.
    pub source: usize,
    /// Where in it, bytes.
    pub offset: u64,
    /// How long, bytes.
    pub bytes: usize,
}

impl Index {
    /// Cuts a source and remembers what it holds. A source that cannot be read to its end is known as far as it was read: what is missing is
    /// fetched.
    pub fn add(&mut self, source: usize, from: impl Read) {
        let mut offset = 0;
        for chunk in cut(from).map_while(Result::ok) {
            self.places.entry(Digest::of(&chunk)).or_insert(Place { source, offset, bytes: chunk.len() });
            offset += chunk.len() as u64;
        }
    }

    /// Where a chunk lies.
    #[must_use]
    pub fn place(&self, digest: &Digest) -> Option<Place> {
        self.places.get(digest).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not repeat.
    pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    #[test]
    fn what_is_put_in_at_the_front_changes_the_first_chunks_only() {
        let before = noise(2 << 20, 7);
        let after = [noise(1000, 8).as_slice(), &before].concat();
        let mut index = Index::default();
        index.add(0, before.as_slice());
        let (mut found, mut bytes) = (0, 0);
        for chunk in cut(after.as_slice()) {
            let chunk = chunk.unwrap();
            bytes += chunk.len();
            if let Some(place) = index.place(&Digest::of(&chunk)) {
                let at = usize::try_from(place.offset).unwrap();
                assert_eq!(before[at..at + place.bytes], chunk);
                found += chunk.len();
            }
        }
        assert_eq!(bytes, after.len());
        assert!(found > bytes * 9 / 10, "{found} of {bytes}");
    }

    #[test]
    fn a_chunk_survives_packing_and_another_is_refused() {
        for chunk in [vec![7; 50_000], noise(20_000, 1), vec![1]] {
            let packed = pack(&chunk).unwrap();
            assert!(packed.len() <= chunk.len());
            assert_eq!(unpack(&packed, chunk.len(), &Digest::of(&chunk)).unwrap(), chunk);
            assert!(matches!(unpack(&chunk, chunk.len(), &Digest::of(b"other")), Err(ChunkFault::Digest)));
        }
        assert!(matches!(unpack(b"no zstd", 50, &Digest::of(b"")), Err(ChunkFault::Packed(_))));
        let bomb = zstd::bulk::compress(&vec![0; 10 << 20], 19).unwrap();
        assert!(unpack(&bomb, 10 << 20, &Digest::of(b"")).is_err(), "longer than a chunk may be");
    }
}
