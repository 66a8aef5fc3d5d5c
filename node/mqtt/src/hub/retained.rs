//! The last message of each topic whose publisher asked to retain it.  Pure, bounded, in memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    limits::{RETAINED_BYTES_MAX, RETAINED_TOPICS_MAX},
    message::Message,
    topic,
};

/// Retained messages by topic.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    topics: BTreeMap<String, (Duration, Arc<Message>)>,
    bytes: usize,
}

impl Retained {
    /// Keeps a message that bears the retain flag, or forgets its topic when the payload is empty.  False: no room, nothing changed.
    pub(crate) fn handle_message(&mut self, message: &Arc<Message>, now: Duration) -> bool {
        if message.payload.is_empty() {
            self.forget(&message.topic);
            return true;
        }
        let old = self.topics.get(&message.topic).map(|(_, message)| message.len());
        let bytes = self.bytes - old.unwrap_or(0) + message.len();
        if bytes > RETAINED_BYTES_MAX || (old.is_none() && self.topics.len() >= RETAINED_TOPICS_MAX) {
            return false;
        }
        self.bytes = bytes;
        self.topics.insert(message.topic.clone(), (now, Arc::clone(message)));
        true
    }

    /// Messages a new subscription with `filter` receives, and since when they are here.  Forgets what has expired.
    pub(crate) fn matching(&mut self, filter: &str, now: Duration) -> Vec<(Duration, Arc<Message>)> {
        let found: Vec<_> = self.topics.values().filter(|(_, message)| topic::matches(filter, &message.topic)).cloned().collect();
        let expired = |since: Duration, message: &Message| message.properties.expiry.is_some_and(|expiry| now >= since + expiry);
        for (since, message) in &found {
            if expired(*since, message) {
                self.forget(&message.topic);
            }
        }
        found.into_iter().filter(|(since, message)| !expired(*since, message)).collect()
    }

    fn forget(&mut self, topic: &str) {
        if let Some((_, old)) = self.topics.remove(topic) {
            self.bytes -= old.len();
        }
    }

    /// Topics with a message.
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn keep(retained: &mut Retained, topic: &str, bytes: usize) -> bool {
        retained.handle_message(&Arc::new(Message::new(topic, vec![1; bytes])), NOW)
    }

    #[test]
    fn last_message_of_a_topic_wins_and_an_empty_one_clears() {
        let mut retained = Retained::default();
        assert!(keep(&mut retained, "a/b", 1) && keep(&mut retained, "a/b", 2) && keep(&mut retained, "a/c", 3));
        let found = retained.matching("a/+", NOW);
        assert_eq!(found.iter().map(|(_, message)| message.payload.len()).collect::<Vec<_>>(), [2, 3]);
        assert!(keep(&mut retained, "a/b", 0) && keep(&mut retained, "a/c", 0));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }

    #[test]
    fn one_topic_too_many_is_not_kept_but_known_ones_change() {
        let mut retained = Retained::default();
        assert!((0..RETAINED_TOPICS_MAX).all(|number| keep(&mut retained, &number.to_string(), 1)));
        assert!(!keep(&mut retained, "more", 1));
        assert!(keep(&mut retained, "0", 2));
    }

    #[test]
    fn one_byte_too_many_is_not_kept() {
        let mut retained = Retained::default();
        assert!(keep(&mut retained, "a", RETAINED_BYTES_MAX - 1));
        assert!(!keep(&mut retained, "b", 1));
        assert!(!keep(&mut retained, "a", RETAINED_BYTES_MAX));
    }

    #[test]
    fn expired_message_is_forgotten() {
        let mut retained = Retained::default();
        let mut message = Message::new("a", "x");
        message.properties.expiry = Some(Duration::from_secs(1));
        assert!(retained.handle_message(&Arc::new(message), NOW));
        assert_eq!(retained.matching("#", NOW).len(), 1);
        assert_eq!(retained.matching("#", NOW + Duration::from_secs(1)).len(), 0);
        assert_eq!(retained.len(), 0);
    }
}
