//! Things of up to some hundred KiB in the store, whose values are bounded: in pieces, below the number of the thing.
//!
//! Key of the first piece: the number, big-endian; of the others: the number and one byte that counts from 1.

use sedge_store::{Batch, ReadError, Store, Tree};

/// Size of a piece: a value of the store and room for its head.
const CHUNK_BYTES: usize = 60 * 1024;
/// Pieces of one thing, at most.
const CHUNKS_MAX: usize = 16;

/// Puts `bytes` under `number`.
///
/// # Panics
/// When they are more than 16 pieces; everything that is put here is bounded far below.
pub(crate) fn set(batch: &mut Batch, tree: Tree, number: u64, bytes: &[u8]) {
    assert!(count(bytes.len()) <= CHUNKS_MAX, "{} bytes are not a thing of some hundred KiB", bytes.len());
    if bytes.is_empty() {
        batch.set(tree, key(number, 0), Vec::new());
    }
    for (at, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        batch.set(tree, key(number, at), chunk);
    }
}

/// Removes a thing of so many bytes.
pub(crate) fn delete(batch: &mut Batch, tree: Tree, number: u64, bytes: usize) {
    for at in 0..count(bytes) {
        batch.delete(tree, key(number, at));
    }
}

/// The bytes under `number`. May read the disk.
pub(crate) fn get(store: &Store, tree: Tree, number: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let chunks = store.scan(tree, &number.to_be_bytes(), None, CHUNKS_MAX)?;
    if chunks.is_empty() {
        return Ok(None);
    }
    Ok(Some(chunks.into_iter().flat_map(|(_, chunk)| chunk).collect()))
}

/// The number that a key belongs to.
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    key.first_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}

fn count(bytes: usize) -> usize {
    bytes.div_ceil(CHUNK_BYTES).max(1)
}

fn key(number: u64, at: usize) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.extend((at > 0).then(|| u8::try_from(at).unwrap_or(u8::MAX)));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_store::{Durability, StoreConfig};

    #[test]
    fn what_is_put_in_pieces_comes_back_whole_and_goes_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path(), StoreConfig::default()).unwrap();
        let commit = |batch| drop(store.commit(batch, Durability::None).unwrap());
        for length in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 4 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut batch = Batch::new();
            set(&mut batch, Tree::Answer, 7, &bytes);
            set(&mut batch, Tree::Answer, 8, b"neighbour");
            commit(batch);
            assert_eq!(get(&store, Tree::Answer, 7).unwrap(), Some(bytes));
            let mut batch = Batch::new();
            delete(&mut batch, Tree::Answer, 7, length);
            commit(batch);
            assert_eq!(get(&store, Tree::Answer, 7).unwrap(), None);
            assert_eq!(get(&store, Tree::Answer, 8).unwrap().as_deref(), Some(&b"neighbour"[..]));
        }
    }
}
