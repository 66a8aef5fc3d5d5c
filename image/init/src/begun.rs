//! How often this version has begun without saying that it came up: kept in the last block of its slot, where no file system is.
//!
//! ```text
//! │ root file system │ hash tree │ … │ "sedge-begun" count root-hash │
//! ```
//! The keeper of the operating system blanks the block once the node works. A version that begins again and again without that may be damaged
//! where it is read late, so its slot is read as a whole.

use crate::verity::{BLOCK_BYTES, Digest};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

const MAGIC: &[u8; 12] = b"sedge-begun\0";
/// Starts without success after which the slot is read as a whole.
const BEGINS_MAX: u32 = 3;

/// Counts one more start of the version with `root_hash` in the slot `device`; answers whether its slot is to be read as a whole.
pub(crate) fn count(device: &str, root_hash: &Digest) -> io::Result<bool> {
    let mut slot = File::options().read(true).write(true).open(device)?;
    let at = slot.seek(SeekFrom::End(0))?.checked_sub(BLOCK_BYTES as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut block = vec![0; BLOCK_BYTES];
    slot.read_exact_at(&mut block, at)?;
    let before = parse(&block, root_hash);
    slot.write_all_at(&encode(before.saturating_add(1), root_hash), at)?;
    slot.sync_data()?;
    Ok(before >= BEGINS_MAX)
}

fn parse(block: &[u8], root_hash: &Digest) -> u32 {
    let ours = block.starts_with(MAGIC) && block.get(16..48) == Some(root_hash);
    let count = block.get(12..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    if ours { count } else { 0 }
}

fn encode(count: u32, root_hash: &Digest) -> Vec<u8> {
    let mut block = [MAGIC.as_slice(), &count.to_le_bytes(), root_hash].concat();
    block.resize(BLOCK_BYTES, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_start_in_a_row_looks_at_the_whole_slot() {
        let path = std::env::temp_dir().join(format!("sedge-begun-{}", std::process::id()));
        std::fs::write(&path, vec![0; 5 * BLOCK_BYTES]).unwrap();
        let device = path.to_str().unwrap();
        let starts: Vec<bool> = (0..5).map(|_| count(device, &[1; 32]).unwrap()).collect();
        assert_eq!(starts, [false, false, false, true, true]);
        assert!(!count(device, &[2; 32]).unwrap(), "another version begins anew");
        assert!(std::fs::read(&path).unwrap()[..4 * BLOCK_BYTES].iter().all(|byte| *byte == 0));
        std::fs::write(&path, "short").unwrap();
        assert!(count(device, &[2; 32]).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
