//! Slows down who guesses, and who asks too often: a bucket of tries for each, refilled with time. Time is an argument.

use crate::limits::{RETURN_REFILL_MS, RETURNS_BURST, SOURCES_MAX, TRIES_BURST, TRY_REFILL_MS};
use sedge_protocol::NodeId;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Failed tries of every source that had some lately.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Until when the source's failures weigh on it. Each adds [`TRY_REFILL_MS`].
    sources: BTreeMap<IpAddr, u64>,
}

impl Tries {
    /// Whether a source may try now.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(crate) fn check(&self, source: IpAddr, now_ms: u64) -> Result<(), u64> {
        let debt_ms = self.sources.get(&network(source)).map_or(0, |until_ms| until_ms.saturating_sub(now_ms));
        let allowed_ms = TRY_REFILL_MS * u64::from(TRIES_BURST - 1);
        if debt_ms <= allowed_ms { Ok(()) } else { Err((debt_ms - allowed_ms).div_ceil(1000)) }
    }

    /// Notes that a try failed.
    pub(crate) fn failed(&mut self, source: IpAddr, now_ms: u64) {
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, until_ms| *until_ms > now_ms);
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.pop_first();
        }
        let until_ms = self.sources.entry(network(source)).or_insert(now_ms);
        *until_ms = (*until_ms).max(now_ms) + TRY_REFILL_MS;
    }
}

/// Certificates that nodes were given on their way back lately.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    /// Until when those of a node weigh on it.
    nodes: BTreeMap<NodeId, u64>,
}

impl Returns {
    /// Takes a turn.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(crate) fn take(&mut self, node: NodeId, now_ms: u64) -> Result<(), u64> {
        if self.nodes.len() >= SOURCES_MAX {
            self.nodes.retain(|_, until_ms| *until_ms > now_ms);
        }
        if self.nodes.len() >= SOURCES_MAX {
            self.nodes.pop_first();
        }
        let until_ms = self.nodes.entry(node).or_insert(now_ms);
        let debt_ms = until_ms.saturating_sub(now_ms);
        let allowed_ms = RETURN_REFILL_MS * u64::from(RETURNS_BURST - 1);
        if debt_ms > allowed_ms {
            return Err((debt_ms - allowed_ms).div_ceil(1000));
        }
        *until_ms = (*until_ms).max(now_ms) + RETURN_REFILL_MS;
        Ok(())
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_failures_is_slowed_and_forgiven() {
        let mut tries = Tries::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..TRIES_BURST {
            assert_eq!(tries.check(one, 0), Ok(()));
            tries.failed(one, 0);
        }
        assert_eq!(tries.check(one, 0), Err(TRY_REFILL_MS.div_ceil(1000)));
        assert_eq!(tries.check(other, 0), Ok(()));
        assert_eq!(tries.check(one, TRY_REFILL_MS), Ok(()));
    }

    #[test]
    fn a_node_comes_back_so_often_and_others_do_not_wait_for_it() {
        let mut returns = Returns::default();
        let (one, other): (NodeId, NodeId) = ("one".parse().unwrap(), "other".parse().unwrap());
        for _ in 0..RETURNS_BURST {
            assert_eq!(returns.take(one.clone(), 0), Ok(()));
        }
        assert_eq!(returns.take(one.clone(), 0), Err(RETURN_REFILL_MS.div_ceil(1000)));
        assert_eq!(returns.take(other, 0), Ok(()));
        assert_eq!(returns.take(one, RETURN_REFILL_MS), Ok(()));
        for i in 0..SOURCES_MAX + 5 {
            assert_eq!(returns.take(format!("n{i}").parse().unwrap(), 0), Ok(()));
        }
        assert!(returns.nodes.len() <= SOURCES_MAX);
    }

    #[test]
    fn a_source_cannot_hide_in_its_own_network_nor_fill_the_memory() {
        let mut tries = Tries::default();
        for i in 0..u128::from(TRIES_BURST) {
            tries.failed(IpAddr::V6((1_u128 << 100 | i).into()), 0);
        }
        assert!(tries.check(IpAddr::V6((1_u128 << 100 | 99).into()), 0).is_err());
        for i in 0..u32::try_from(SOURCES_MAX).unwrap() + 5 {
            tries.failed(IpAddr::V4(i.into()), 0);
        }
        assert!(tries.sources.len() <= SOURCES_MAX);
    }
}
