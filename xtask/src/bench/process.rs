//! What the kernel says of a process.

use std::fs;

use anyhow::{Context, Result};

/// Memory of process `pid` that is resident now, bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

/// Bytes that process `pid` has caused to be written to block devices.
pub(crate) fn written(pid: u32) -> Result<u64> {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    let number = line.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("{path}: {name} is `{number}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_has_written() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100 * 1024);
        written(pid).unwrap();
        assert!(field("/proc/self/status", "NoSuchField:").is_err());
    }
}
