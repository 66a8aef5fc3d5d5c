//! What the kernel's command line says about the root file system.

use crate::verity::Digest;

/// The root file system that belongs to the running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// `sedge.roothash=`: what its hash tree ends in.
    pub(crate) root_hash: Digest,
    /// `sedge.hash_offset=`: where the hash tree begins in the slot, bytes.
    pub(crate) hash_offset: u64,
    /// `sedge.version=`: its version.
    pub(crate) version: Option<String>,
}

/// What is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is not what it should be")]
    Value(&'static str),
}

const ROOT_HASH: &str = "sedge.roothash=";
const HASH_OFFSET: &str = "sedge.hash_offset=";
const VERSION: &str = "sedge.version=";

impl CommandLine {
    /// Reads the text of `/proc/cmdline`. What is given twice counts as it was given first: the firmware can only append.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let value = |name| text.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)).ok_or(Fault::Missing(name));
        let mut root_hash = Digest::default();
        hex::decode_to_slice(value(ROOT_HASH)?, &mut root_hash).map_err(|_| Fault::Value(ROOT_HASH))?;
        let hash_offset = value(HASH_OFFSET)?.parse().map_err(|_| Fault::Value(HASH_OFFSET))?;
        Ok(Self { root_hash, hash_offset, version: value(VERSION).ok().map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_hash_and_offset_are_read() {
        let text = format!(
            "console=ttyS0 sedge.roothash={} ro sedge.hash_offset=8192 sedge.hash_offset=4096 sedge.version=1.2\n",
            "ab".repeat(32)
        );
        assert_eq!(
            CommandLine::parse(&text),
            Ok(CommandLine { root_hash: [0xab; 32], hash_offset: 8192, version: Some("1.2".to_owned()) })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(CommandLine::parse("ro quiet"), Err(Fault::Missing(ROOT_HASH)));
        assert_eq!(CommandLine::parse("sedge.roothash=abc sedge.hash_offset=1"), Err(Fault::Value(ROOT_HASH)));
        let text = format!("sedge.roothash={} sedge.hash_offset=-1", "00".repeat(32));
        assert_eq!(CommandLine::parse(&text), Err(Fault::Value(HASH_OFFSET)));
    }
}
