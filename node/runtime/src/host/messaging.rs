//! `wasi:messaging/producer`: publishing on topics that the manifest grants.

#![expect(unreachable_pub, reason = "the generated bindings re-export the resource types")]

use super::HostError;
use super::bindings::messaging::{producer, types};
use crate::state::State;
use bytes::Bytes;
use sedge_protocol::Topic;
use wasmtime::component::Resource;

type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

/// A connection to the node's bus; the only service there is, so it has no name.
#[derive(Debug)]
pub struct Client;

/// A message under construction.
#[derive(Debug, Default)]
pub struct Message {
    data: Vec<u8>,
    content_type: Option<String>,
    metadata: Vec<(String, String)>,
}

impl producer::Host for State {
    fn send(&mut self, client: Resource<Client>, topic: String, message: Resource<Message>) -> Answer<()> {
        self.table().get(&client)?;
        let message = self.table().delete(message)?;
        Ok(self.publish(&topic, message))
    }
}

impl State {
    fn publish(&self, topic: &str, message: Message) -> Result<(), types::Error> {
        let topic: Topic = topic.parse().map_err(|fault| types::Error::Other(format!("{fault}")))?;
        if !self.manifest().access.publish.iter().any(|granted| granted.matches(&topic)) {
            let line = format!("publish = [\"{topic}\"]");
            self.refuse("wasi:messaging/producer", &format!("a message on `{topic}`"), &line);
            return Err(types::Error::PermissionDenied(format!("add `{line}` under [access] in function.toml")));
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
        Ok(self.table().push(Message { data, ..Message::default() })?)
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
        self.table().get_mut(&message)?.content_type = Some(content_type);
        Ok(())
    }

    fn data(&mut self, message: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table().get(&message)?.data.clone())
    }

    fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> wasmtime::Result<()> {
        self.table().get_mut(&message)?.data = data;
        Ok(())
    }

    fn metadata(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<Vec<(String, String)>>> {
        let metadata = &self.table().get(&message)?.metadata;
        Ok((!metadata.is_empty()).then(|| metadata.clone()))
    }

    fn add_metadata(&mut self, message: Resource<Message>, key: String, value: String) -> wasmtime::Result<()> {
        self.table().get_mut(&message)?.metadata.push((key, value));
        Ok(())
    }

    fn set_metadata(&mut self, message: Resource<Message>, metadata: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.table().get_mut(&message)?.metadata = metadata;
        Ok(())
    }

    fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> wasmtime::Result<()> {
        self.table().get_mut(&message)?.metadata.retain(|(name, _)| *name != key);
        Ok(())
    }

    fn drop(&mut self, message: Resource<Message>) -> wasmtime::Result<()> {
        self.table().delete(message)?;
        Ok(())
    }
}
