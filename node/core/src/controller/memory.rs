//! The memory of instances: exact, from what is kept for a function or from what all share.

use sedge_protocol::FunctionName;
use std::collections::BTreeMap;

/// Memory that was handed out; give it back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomId {
    kind: Kind,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// An instance brought its own.
    Warm,
    Shared,
    /// Out of what is kept for a function, in this generation of it.
    Kept(FunctionName, u64),
}

#[derive(Debug)]
struct Kept {
    generation: u64,
    instance_bytes: u64,
    free: u32,
    all: u32,
}

#[derive(Debug)]
pub(super) struct Memory {
    total_bytes: u64,
    /// Handed out from what is shared.
    shared_bytes: u64,
    kept: BTreeMap<FunctionName, Kept>,
    generation: u64,
}

impl Memory {
    pub(super) fn new(total_bytes: u64) -> Self {
        Self { total_bytes, shared_bytes: 0, kept: BTreeMap::new(), generation: 0 }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Keeps room for so many instances of `function`; what it had before in use counts as shared until it comes back.
    pub(super) fn reserve(&mut self, function: &FunctionName, instances: u32, instance_bytes: u64) {
        if let Some(kept) = self.kept.get(function) {
            if kept.all == instances && kept.instance_bytes == instance_bytes {
                return;
            }
            self.shared_bytes += u64::from(kept.all - kept.free) * kept.instance_bytes;
            self.kept.remove(function);
        }
        if instances > 0 {
            self.generation += 1;
            let kept = Kept { generation: self.generation, instance_bytes, free: instances, all: instances };
            self.kept.insert(function.clone(), kept);
        }
    }

    /// What all share and nobody has.
    pub(super) fn free_bytes(&self) -> u64 {
        let kept: u64 = self.kept.values().map(|kept| u64::from(kept.all) * kept.instance_bytes).sum();
        self.total_bytes.saturating_sub(self.shared_bytes).saturating_sub(kept)
    }

    /// Handed out, from what is kept and from what is shared. What was handed out before a function kept memory may still be in use,
    /// so what is kept is not always there yet; but the next that comes free is.
    fn used_bytes(&self) -> u64 {
        self.shared_bytes + self.kept.values().map(|kept| u64::from(kept.all - kept.free) * kept.instance_bytes).sum::<u64>()
    }

    fn has_kept(&self, function: &FunctionName, bytes: u64) -> bool {
        let free = self.kept.get(function).is_some_and(|kept| kept.free > 0 && kept.instance_bytes == bytes);
        free && self.used_bytes() + bytes <= self.total_bytes
    }

    pub(super) fn has_room(&self, function: &FunctionName, bytes: u64) -> bool {
        self.has_kept(function, bytes) || bytes <= self.free_bytes()
    }

    /// Hands out memory for an instance; one that is `warm` has it already.
    pub(super) fn take(&mut self, function: &FunctionName, warm: bool, bytes: u64) -> Option<RoomId> {
        if warm {
            return Some(RoomId { kind: Kind::Warm, bytes: 0 });
        }
        if self.has_kept(function, bytes) {
            return self.take_kept(function);
        }
        if bytes > self.free_bytes() {
            return None;
        }
        self.shared_bytes += bytes;
        Some(RoomId { kind: Kind::Shared, bytes })
    }

    /// Hands out memory of what is kept for `function`.
    pub(super) fn take_kept(&mut self, function: &FunctionName) -> Option<RoomId> {
        let bytes = self.kept.get(function)?.instance_bytes;
        if !self.has_kept(function, bytes) {
            return None;
        }
        let kept = self.kept.get_mut(function)?;
        kept.free -= 1;
        Some(RoomId { kind: Kind::Kept(function.clone(), kept.generation), bytes })
    }

    pub(super) fn give_back(&mut self, room: RoomId) {
        match room.kind {
            Kind::Warm => {}
            Kind::Shared => self.shared_bytes = self.shared_bytes.saturating_sub(room.bytes),
            Kind::Kept(function, generation) => match self.kept.get_mut(&function).filter(|kept| kept.generation == generation) {
                Some(kept) => kept.free = (kept.free + 1).min(kept.all),
                None => self.shared_bytes = self.shared_bytes.saturating_sub(room.bytes),
            },
        }
    }
}
