//! `wasi:messaging/producer`: publishing on topics that the manifest grants.

#![expect(unreachable_pub, reason = "the generated bindings re-export the resource types")]

use super::bindings::messaging::{producer, types};
use super::{HostError, LogLevel, LogLine, LogStream};
use crate::limits::{MESSAGE_BYTES_MAX, MESSAGES_BYTES_MAX};
use crate::state::State;
use bytes::Bytes;
use sedge_protocol::Topic;
use sedge_protocol::limits::{CONTENT_TYPE_BYTES_MAX, EVENT_BYTES_MAX};
use wasmtime::component::Resource;

type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

/// A connection to the node's bus; the only service there is, so it has no name.
#[derive(Debug)]
pub struct Client;

/// What a pair of metadata takes beside its text.
const METADATA_COST: usize = 64;

/// A message under construction. What is in it is counted with all other messages of the instance.
#[derive(Debug, Default)]
pub struct Message {
    data: Vec<u8>,
    content_type: Option<String>,
    metadata: Vec<(String, String)>,
    /// Why it can never be sent: what was too much is not kept.
    unfit: Option<String>,
}

impl Message {
    /// What it takes.
    fn bytes(&self) -> usize {
        let texts = self.metadata.iter().map(|(key, value)| METADATA_COST + key.len() + value.len());
        self.data.len() + self.content_type.as_ref().map_or(0, String::len) + texts.sum::<usize>()
    }

    /// Empties it when it, or all of the instance together, become too large: `others` is what the others take.
    fn fit(&mut self, others: usize) {
        let (size, bytes) = (self.data.len(), self.bytes());
        let why = if size > EVENT_BYTES_MAX {
            format!("a message of {size} bytes: {EVENT_BYTES_MAX} are the most")
        } else if let Some(text) = self.content_type.as_ref().filter(|text| text.len() > CONTENT_TYPE_BYTES_MAX) {
            format!("a content type of {} bytes: {CONTENT_TYPE_BYTES_MAX} are the most", text.len())
        } else if bytes > MESSAGE_BYTES_MAX {
            format!("a message of {bytes} bytes with its metadata: {MESSAGE_BYTES_MAX} are the most")
        } else if others + bytes > MESSAGES_BYTES_MAX {
            format!("{} bytes of messages that are neither sent nor dropped: {MESSAGES_BYTES_MAX} are the most", others + bytes)
        } else {
            return;
        };
        *self = Self { unfit: Some(why), ..Self::default() };
    }
}

/// Changes a message that is still fit to be sent.
fn edit(state: &mut State, message: &Resource<Message>, change: impl FnOnce(&mut Message)) -> wasmtime::Result<()> {
    let all = state.messages_bytes;
    let message = state.table().get_mut(message)?;
    let others = all - message.bytes();
    if message.unfit.is_none() {
        change(message);
        message.fit(others);
    }
    let now = message.bytes();
    state.messages_bytes = others + now;
    state.weigh();
    Ok(())
}

impl producer::Host for State {
    fn send(&mut self, client: Resource<Client>, topic: String, message: Resource<Message>) -> Answer<()> {
        self.table().get(&client)?;
        let message = self.take(message)?;
        Ok(self.publish(&topic, message))
    }
}

impl State {
    fn take(&mut self, message: Resource<Message>) -> wasmtime::Result<Message> {
        let message = self.table().delete(message)?;
        self.messages_bytes -= message.bytes();
        Ok(message)
    }

    fn publish(&self, topic: &str, message: Message) -> Result<(), types::Error> {
        let topic: Topic = topic.parse().map_err(|fault| types::Error::Other(format!("{fault}")))?;
        if !self.manifest().access.publish.iter().any(|granted| granted.matches(&topic)) {
            let line = format!("publish = [\"{topic}\"]");
            self.refuse("wasi:messaging/producer", &format!("a message on `{topic}`"), &line);
            return Err(types::Error::PermissionDenied(format!("add `{line}` under [access] in function.toml")));
        }
        if let Some(why) = message.unfit {
            self.emit(LogLine { stream: LogStream::Logging(LogLevel::Warn), text: format!("not published on {topic}: {why}") });
            return Err(types::Error::Other(why));
        }
        let bytes = message.data.len();
        self.host.publish(self.call.info(), &topic, Bytes::from(message.data), message.content_type.as_deref()).map_err(
            |error| match error {
                HostError::Denied(reason) => types::Error::PermissionDenied(reason),
                HostError::Full(reason) | HostError::Failed(reason) => types::Error::Other(reason),
            },
        )?;
        self.call.count_out(bytes);
        Ok(())
    }
}

impl types::Host for State {}

impl types::HostClient for State {
    fn connect(&mut self, _name: String) -> Answer<Resource<Client>> {
        Ok(Ok(self.table().push(Client)?))
    }

    fn disconnect(&mut self, client: Resource<Client>) -> Answer<()> {
        self.table().get(&client)?;
        Ok(Ok(()))
    }

    fn drop(&mut self, client: Resource<Client>) -> wasmtime::Result<()> {
        self.table().delete(client)?;
        Ok(())
    }
}

impl types::HostMessage for State {
    fn new(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        let message = self.table().push(Message::default())?;
        edit(self, &message, |message| message.data = data)?;
        Ok(message)
    }

    /// Only received messages have a topic; events reach a function through its trigger.
    fn topic(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        self.table().get(&message)?;
        Ok(None)
    }

    fn content_type(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.table().get(&message)?.content_type.clone())
    }

    fn set_content_type(&mut self, message: Resource<Message>, content_type: String) -> wasmtime::Result<()> {
        edit(self, &message, |message| message.content_type = Some(content_type))
    }

    fn data(&mut self, message: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table().get(&message)?.data.clone())
    }

    fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> wasmtime::Result<()> {
        edit(self, &message, |message| message.data = data)
    }

    fn metadata(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<Vec<(String, String)>>> {
        let metadata = &self.table().get(&message)?.metadata;
        Ok((!metadata.is_empty()).then(|| metadata.clone()))
    }

    fn add_metadata(&mut self, message: Resource<Message>, key: String, value: String) -> wasmtime::Result<()> {
        edit(self, &message, |message| message.metadata.push((key, value)))
    }

    fn set_metadata(&mut self, message: Resource<Message>, metadata: Vec<(String, String)>) -> wasmtime::Result<()> {
        edit(self, &message, |message| message.metadata = metadata)
    }

    fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> wasmtime::Result<()> {
        edit(self, &message, |message| message.metadata.retain(|(name, _)| *name != key))
    }

    fn drop(&mut self, message: Resource<Message>) -> wasmtime::Result<()> {
        self.take(message).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message { data: vec![0; bytes], ..Message::default() }
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_says_why() {
        let fitted = |mut message: Message, others: usize| {
            message.fit(others);
            (message.bytes(), message.unfit)
        };
        assert_eq!(fitted(message(EVENT_BYTES_MAX), 0), (EVENT_BYTES_MAX, None));
        let (bytes, why) = fitted(message(EVENT_BYTES_MAX + 1), 0);
        assert_eq!((bytes, why.as_deref()), (0, Some("a message of 262145 bytes: 262144 are the most")));
        let many = Message { metadata: vec![(String::new(), String::new()); MESSAGE_BYTES_MAX / METADATA_COST + 1], ..Message::default() };
        assert!(fitted(many, 0).1.is_some_and(|why| why.contains("with its metadata")));
        let typed = |bytes: usize| Message { content_type: Some("x".repeat(bytes)), ..message(EVENT_BYTES_MAX) };
        assert_eq!(fitted(typed(CONTENT_TYPE_BYTES_MAX), 0), (EVENT_BYTES_MAX + CONTENT_TYPE_BYTES_MAX, None));
        assert!(fitted(typed(CONTENT_TYPE_BYTES_MAX + 1), 0).1.is_some_and(|why| why.contains("a content type of 1025 bytes")));
        assert_eq!(fitted(message(1), MESSAGES_BYTES_MAX - 1), (1, None));
        assert!(fitted(message(2), MESSAGES_BYTES_MAX - 1).1.is_some_and(|why| why.contains("neither sent nor dropped")));
    }
}
