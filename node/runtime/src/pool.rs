//! How many instances fit at one time, and how much address space each may take.
//!
//! The pool reserves `slots × (reservation + guard)` of address space at once. Boards with 39-bit addresses have
//! 256 GiB of it, so plans are tried from the fastest (4 GiB each: no bounds checks) to the smallest; what the
//! kernel grants first is taken. On-demand allocation is never used: it is nine times slower.

use crate::limits::{CORE_INSTANCES_MAX, MEMORIES_MAX, MIB, TABLE_ELEMENTS_MAX, TABLES_MAX};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

const GIB: u64 = 1024 * MIB;
/// Memory of the machine that stands behind one slot: smaller functions are rare.
const BYTES_PER_SLOT: u64 = 4 * MIB;
const SLOTS_MIN: u64 = 32;
const SLOTS_MAX: u64 = 1024;
/// Wasm page: sizes of memories are multiples of it.
const PAGE_BYTES: u64 = 64 * 1024;
/// What an idle slot keeps of its last instance, so that the next one finds it mapped.
const KEEP_MEMORY_BYTES: usize = 512 * 1024;
const KEEP_TABLE_BYTES: usize = 64 * 1024;
/// Stacks behind one slot of a component of WASI 0.3: the mean, not a bound of one instance.
const STACKS_PER_SLOT: u32 = 4;
const DECOMMIT_BATCH: usize = 16;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processor cores that the daemon may use.
    pub cores: usize,
    /// Memory that the daemon may use.
    pub memory_bytes: u64,
}

/// One way to lay out the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Instances at one time.
    pub slots: u32,
    /// Address space of one linear memory.
    pub reservation_bytes: u64,
    /// Unmapped space behind it.
    pub guard_bytes: u64,
    /// Most memory that one instance can be given.
    pub memory_bytes_max: u64,
}

impl Plan {
    /// All plans for a machine, best first.
    pub(crate) fn candidates(machine: Machine) -> impl Iterator<Item = Self> {
        let wanted = (machine.memory_bytes / BYTES_PER_SLOT).clamp(SLOTS_MIN, SLOTS_MAX);
        let sizes = [
            (4 * GIB, 32 * MIB, SLOTS_MAX),
            (4 * GIB, 32 * MIB, 128),
            (4 * GIB, 32 * MIB, SLOTS_MIN),
            (GIB, MIB, 128),
            (256 * MIB, MIB, 128),
            (128 * MIB, MIB, SLOTS_MIN),
        ];
        sizes.into_iter().map(move |(reservation_bytes, guard_bytes, slots)| Self {
            slots: u32::try_from(slots.min(wanted)).unwrap_or(u32::MAX),
            reservation_bytes,
            guard_bytes,
            memory_bytes_max: reservation_bytes.min(machine.memory_bytes / PAGE_BYTES * PAGE_BYTES).max(PAGE_BYTES),
        })
    }

    /// Writes the plan into a configuration. Instances that are `concurrent` do several things at a time, each of which that waits
    /// keeps a stack.
    pub(crate) fn apply(self, machine: Machine, concurrent: bool, config: &mut Config) {
        let stacks = if concurrent { self.slots.saturating_mul(STACKS_PER_SLOT) } else { self.slots };
        let warm = u32::try_from(machine.cores * 4).unwrap_or(self.slots).min(self.slots);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(self.slots)
            .total_core_instances(self.slots.saturating_mul(CORE_INSTANCES_MAX / 8))
            .total_memories(self.slots)
            .total_tables(self.slots.saturating_mul(4))
            .total_stacks(stacks)
            .total_gc_heaps(0)
            .max_core_instances_per_component(CORE_INSTANCES_MAX)
            .max_memories_per_component(MEMORIES_MAX)
            .max_tables_per_component(TABLES_MAX)
            .max_memories_per_module(MEMORIES_MAX)
            .max_tables_per_module(TABLES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .max_memory_size(usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX))
            .max_unused_warm_slots(warm)
            .linear_memory_keep_resident(KEEP_MEMORY_BYTES)
            .table_keep_resident(KEEP_TABLE_BYTES)
            .decommit_batch_size(DECOMMIT_BATCH)
            .pagemap_scan(Enabled::Auto);
        lay_out_memory(config, self.reservation_bytes, self.guard_bytes);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
}

/// The part of a plan that compiled code depends on.
pub(crate) fn lay_out_memory(config: &mut Config, reservation_bytes: u64, guard_bytes: u64) {
    config.memory_reservation(reservation_bytes).memory_guard_size(guard_bytes).memory_may_move(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_with_39_bit_addresses_finds_a_plan() {
        let board = Machine { cores: 4, memory_bytes: GIB };
        let space = 1 << 38;
        let fits = |plan: &Plan| u64::from(plan.slots) * (plan.reservation_bytes + plan.guard_bytes) < space;
        let plan = Plan::candidates(board).find(fits).unwrap();
        assert_eq!((plan.slots, plan.reservation_bytes), (32, 4 * GIB));
        assert_eq!(plan.memory_bytes_max, GIB, "an instance never gets more than the machine has");
    }

    #[test]
    fn plans_only_shrink() {
        let plans: Vec<Plan> = Plan::candidates(Machine { cores: 64, memory_bytes: 512 * GIB }).collect();
        assert_eq!(plans[0].slots, 1024);
        assert!(plans.windows(2).all(|two| two[0].reservation_bytes >= two[1].reservation_bytes));
    }
}
