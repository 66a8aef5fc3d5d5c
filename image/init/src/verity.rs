//! The head of a dm-verity hash tree, as `veritysetup format` writes it.

use sha2::{Digest as _, Sha256};

/// SHA-256.
pub(crate) type Digest = [u8; 32];

/// Size of the blocks of data and hashes: the builder makes no others.
pub(crate) const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
const MAGIC: &[u8] = b"verity\0\0";
const SECTOR_BYTES: u64 = 512;
const SALT_BYTES_MAX: usize = 256;

/// What happens when a block is read that does not agree with its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFault {
    /// The kernel panics, and so reboots: whatever is read is what was signed.
    Panic,
    /// Who reads it gets an error.
    Error,
}

/// What the tree says about itself. Nothing of it is trusted: with a wrong value no block agrees with the root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    data_blocks: u64,
    salt: Vec<u8>,
}

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("no hash tree")]
    Absent,
    #[error("a hash tree of another kind than SHA-256 over blocks of 4096 bytes")]
    Kind,
}

impl Superblock {
    /// Reads the first block of the tree.
    pub(crate) fn parse(block: &[u8]) -> Result<Self, Fault> {
        let field = |at: usize, bytes: usize| block.get(at..at + bytes).ok_or(Fault::Absent);
        if field(0, 8)? != MAGIC {
            return Err(Fault::Absent);
        }
        let word = |at| Ok(u32::from_le_bytes(field(at, 4)?.try_into().unwrap_or_default()));
        let algorithm = field(32, 32)?;
        let (version, kind, data_block, hash_block) = (word(8)?, word(12)?, word(64)?, word(68)?);
        let data_blocks = u64::from_le_bytes(field(72, 8)?.try_into().unwrap_or_default());
        let salt_bytes = usize::from(u16::from_le_bytes(field(80, 2)?.try_into().unwrap_or_default()));
        let usual = (version, kind, u64::from(data_block), u64::from(hash_block)) == (1, 1, BLOCK, BLOCK);
        if !usual || !algorithm.starts_with(b"sha256\0") || salt_bytes > SALT_BYTES_MAX || data_blocks == 0 {
            return Err(Fault::Kind);
        }
        Ok(Self { data_blocks, salt: field(88, salt_bytes)?.to_owned() })
    }

    /// The digest of one block; that of the topmost hash block is the root hash.
    pub(crate) fn digest(&self, block: &[u8]) -> Digest {
        Sha256::new().chain_update(&self.salt).chain_update(block).finalize().into()
    }

    /// The line that device-mapper takes: data and tree on `device`, the tree from `hash_offset` on.
    pub(crate) fn table(&self, device: &str, hash_offset: u64, root_hash: &Digest, on_fault: OnFault) -> String {
        let sectors = self.data_blocks.saturating_mul(BLOCK / SECTOR_BYTES);
        let tree = hash_offset / BLOCK + 1;
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex::encode(&self.salt) };
        let (blocks, root_hash) = (self.data_blocks, hex::encode(root_hash));
        let option = match on_fault {
            OnFault::Panic => " 1 panic_on_corruption",
            OnFault::Error => "",
        };
        format!("0 {sectors} verity 1 {device} {device} {BLOCK} {BLOCK} {blocks} {tree} sha256 {root_hash} {salt}{option}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(salt: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        block[..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&1_u32.to_le_bytes());
        block[12..16].copy_from_slice(&1_u32.to_le_bytes());
        block[32..38].copy_from_slice(b"sha256");
        block[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        block[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        block[72..80].copy_from_slice(&10_u64.to_le_bytes());
        block[80..82].copy_from_slice(&u16::try_from(salt.len()).unwrap().to_le_bytes());
        block[88..88 + salt.len()].copy_from_slice(salt);
        block
    }

    #[test]
    fn the_table_is_that_of_veritysetup() {
        let superblock = Superblock::parse(&block(&[])).unwrap();
        let hash = "00".repeat(32);
        assert_eq!(
            superblock.table("254:2", 40_960, &[0; 32], OnFault::Panic),
            format!("0 80 verity 1 254:2 254:2 4096 4096 10 11 sha256 {hash} - 1 panic_on_corruption")
        );
        let salted = Superblock::parse(&block(&[1, 2])).unwrap();
        assert!(salted.table("8:1", 40_960, &[0; 32], OnFault::Error).ends_with(" 0102"));
        assert_eq!(salted.digest(b"x"), <Digest>::from(Sha256::digest([1, 2, b'x'])));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        assert_eq!(Superblock::parse(&[0; BLOCK_BYTES]), Err(Fault::Absent));
        assert_eq!(Superblock::parse(MAGIC), Err(Fault::Absent));
        for at in [8, 32, 64, 69, 81] {
            let mut other = block(&[]);
            other[at] ^= 0xff;
            assert_eq!(Superblock::parse(&other), Err(Fault::Kind), "byte {at}");
        }
    }
}
