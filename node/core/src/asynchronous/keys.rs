//! Which calls are the same: idempotency keys of a day.

use super::Steady;
use sedge_protocol::invocation::InvocationId;
use sedge_protocol::{Digest, FunctionName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a key joins duplicates.
pub const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A key of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Digest);

impl Key {
    /// The key `text` as clients of `function` say it.
    #[must_use]
    pub fn of(function: &FunctionName, text: &str) -> Self {
        Self(Digest::of(&[function.as_str().as_bytes(), b"\0", text.as_bytes()].concat()))
    }
}

/// What a key says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Nobody has used it within a day.
    New,
    /// It is this call's, and the request is the same.
    Same(InvocationId),
    /// It is this call's, and the request is another.
    Other(InvocationId),
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    id: InvocationId,
    request: Digest,
    since: Steady,
}

/// The keys in use.
#[derive(Debug, Default)]
pub struct Keys {
    holders: BTreeMap<Key, Holder>,
    ages: BTreeSet<(Steady, Key)>,
}

impl Keys {
    /// Whose `key` is. `request` is the digest of what makes two requests the same.
    pub fn join(&mut self, key: Key, request: Digest, now: Steady) -> Join {
        self.expire(now);
        match self.holders.get(&key) {
            None => Join::New,
            Some(holder) if holder.request == request => Join::Same(holder.id),
            Some(holder) => Join::Other(holder.id),
        }
    }

    /// Gives `key` to a call.
    pub fn hold(&mut self, key: Key, id: InvocationId, request: Digest, since: Steady) {
        if let Some(old) = self.holders.insert(key, Holder { id, request, since }) {
            self.ages.remove(&(old.since, key));
        }
        self.ages.insert((since, key));
    }

    /// Frees `key` if it is that call's.
    pub fn release(&mut self, key: Key, id: InvocationId) {
        if let Some(holder) = self.holders.get(&key).copied().filter(|holder| holder.id == id) {
            self.holders.remove(&key);
            self.ages.remove(&(holder.since, key));
        }
    }

    /// Number of keys in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether none is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    fn expire(&mut self, now: Steady) {
        while let Some((since, key)) = self.ages.first().copied().filter(|(since, _)| now.since(*since) >= KEYS_AGE_MAX) {
            self.ages.remove(&(since, key));
            self.holders.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u64) -> InvocationId {
        InvocationId { number, secret: 9 }
    }

    fn day() -> u64 {
        u64::try_from(KEYS_AGE_MAX.as_millis()).unwrap()
    }

    #[test]
    fn a_key_joins_the_same_request_of_the_same_function_for_a_day() {
        let (f, g) = ("f".parse().unwrap(), "g".parse().unwrap());
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let mut keys = Keys::default();
        let key = Key::of(&f, "order 7");
        assert_eq!(keys.join(key, one, Steady(0)), Join::New);
        keys.hold(key, id(1), one, Steady(0));
        assert_eq!(keys.join(key, one, Steady(day() - 1)), Join::Same(id(1)));
        assert_eq!(keys.join(key, other, Steady(day() - 1)), Join::Other(id(1)));
        assert_eq!(keys.join(Key::of(&g, "order 7"), one, Steady(0)), Join::New);
        assert_eq!(keys.join(key, one, Steady(day())), Join::New);
        assert!(keys.is_empty());
    }

    proptest! {
        /// However calls come and go, a key is one call's and both indexes agree.
        #[test]
        fn a_key_is_never_two_calls(steps in prop::collection::vec((0_u8..3, 0_u8..4, 0_u64..20_000_000), 1..100)) {
            let f: FunctionName = "f".parse().unwrap();
            let (mut keys, mut now, mut held) = (Keys::default(), Steady(0), BTreeMap::new());
            for (number, (kind, which, pause)) in (0_u64..).zip(steps) {
                now = Steady(now.0 + pause);
                let key = Key::of(&f, &which.to_string());
                held.retain(|_, (_, since)| now.since(*since) < KEYS_AGE_MAX);
                let expected = held.get(&key).map_or(Join::New, |(id, _)| Join::Same(*id));
                prop_assert_eq!(keys.join(key, Digest::of(b""), now), expected);
                match (kind, held.get(&key).copied()) {
                    (0 | 1, None) => {
                        keys.hold(key, id(number), Digest::of(b""), now);
                        held.insert(key, (id(number), now));
                    }
                    (2, Some((id, _))) => {
                        keys.release(key, id);
                        held.remove(&key);
                    }
                    _ => keys.release(key, id(u64::MAX)),
                }
                prop_assert_eq!((keys.len(), keys.ages.len()), (held.len(), held.len()));
            }
        }
    }
}
