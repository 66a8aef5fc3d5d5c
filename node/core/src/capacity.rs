//! How much a box can run at once: bytes and instances, from what the machine has.

/// What functions may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Memory that instances may reserve, bytes.
    pub memory_bytes: u64,
    /// Invocations at the same time, at most.
    pub invocations: u32,
    /// Processors.
    pub cores: u32,
}

/// Invocations at the same time for each processor.
const PER_CORE: u32 = 16;
/// Least memory that instances get, however small the box.
const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;

impl Capacity {
    /// Half of the memory goes to instances; at most sixteen invocations a core.
    ///
    /// `memory_bytes` is what the machine or the daemon's control group has, whichever is less.
    #[must_use]
    pub fn of(cores: usize, memory_bytes: u64) -> Self {
        let cores = u32::try_from(cores.clamp(1, 256)).unwrap_or(1);
        Self { memory_bytes: (memory_bytes / 2).max(MEMORY_BYTES_MIN), invocations: cores * PER_CORE, cores }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_the_machine_and_has_a_floor() {
        let large = Capacity::of(2, 1 << 30);
        assert_eq!((large.memory_bytes, large.invocations), (1 << 29, 32));
        assert_eq!(Capacity::of(0, 0).memory_bytes, MEMORY_BYTES_MIN);
    }
}
