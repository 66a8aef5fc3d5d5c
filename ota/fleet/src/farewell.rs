//! With which code and word a connection of a node is closed, and who is let in.

use crate::store::Entry;
use sedge_protocol::message::{CLOSE_REPLACED, CLOSE_REVOKED, CLOSE_UNKNOWN};
use sedge_protocol::{Digest, Standing};

/// Why a connection is closed: what the node reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Farewell {
    pub(crate) code: u32,
    pub(crate) reason: String,
}

impl Farewell {
    /// Nobody has this id.
    pub(crate) fn unknown() -> Self {
        Self::of(CLOSE_UNKNOWN, "this fleet does not know the node: it was removed, or the fleet was set up anew")
    }

    /// Another connection of the node has come.
    pub(crate) fn replaced() -> Self {
        Self::of(CLOSE_REPLACED, "another connection of this node took its place")
    }

    /// Another box has the node's entry now.
    pub(crate) fn taken_over() -> Self {
        Self::of(CLOSE_REVOKED, "another box has taken over this node")
    }

    /// An operator does not want the node.
    pub(crate) fn revoked(reason: &str) -> Self {
        Self::of(CLOSE_REVOKED, reason)
    }

    fn of(code: u32, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }
}

/// Why somebody with a certificate for this entry and with this key is not let in; none when they are. The certificate alone does not do: it
/// may be of a former owner of the name.
pub(crate) fn refusal(entry: Option<&Entry>, key: Digest) -> Option<Farewell> {
    match entry {
        None => Some(Farewell::unknown()),
        Some(entry) if entry.key != key => Some(Farewell::taken_over()),
        Some(Entry { standing: Standing::Revoked { reason }, .. }) => Some(Farewell::revoked(reason)),
        Some(Entry { standing: Standing::Active | Standing::Pending | Standing::Quarantined { .. }, .. }) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_of_the_entry_is_let_in_and_only_while_it_is_wanted() {
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        let entry = |standing| Entry { key, standing, certificate_until_ms: 0 };
        assert_eq!(refusal(None, key).map(|farewell| farewell.code), Some(CLOSE_UNKNOWN));
        for standing in [Standing::Active, Standing::Pending, Standing::Quarantined { reason: "r".into() }] {
            assert_eq!(refusal(Some(&entry(standing.clone())), key), None, "{standing}");
            assert_eq!(refusal(Some(&entry(standing)), other), Some(Farewell::taken_over()));
        }
        let revoked = entry(Standing::Revoked { reason: "stolen".into() });
        assert_eq!(refusal(Some(&revoked), key), Some(Farewell::revoked("stolen")));
    }
}
