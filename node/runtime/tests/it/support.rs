//! A host in memory, and the few steps that every test takes.

use bytes::Bytes;
use http_body_util::Full;
use sedge_protocol::{Digest, Event, FunctionName, Manifest, RevisionId, Topic};
use sedge_runtime::{
    CallInfo, Ending, Engine, EngineConfig, Failure, Function, Host, HostError, Invocation, KeyPage, LogLine, Machine, PrepareError, Reply,
    ResponseBody, RevisionRef, Swap,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// State, messages and log lines in memory.
#[derive(Default)]
pub(crate) struct MemoryHost {
    pub(crate) values: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    pub(crate) messages: Mutex<Vec<(Topic, Bytes)>>,
    pub(crate) lines: Mutex<Vec<LogLine>>,
    pub(crate) dumps: Mutex<Vec<Vec<u8>>>,
}

impl MemoryHost {
    pub(crate) fn value(&self, bucket: &str, key: &str) -> Option<String> {
        let values = self.values.lock().unwrap();
        values.get(&(bucket.to_owned(), key.to_owned())).map(|value| String::from_utf8(value.clone()).unwrap())
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }
}

impl Host for MemoryHost {
    fn kv_get(&self, _: &FunctionName, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.values.lock().unwrap().get(&(bucket.to_owned(), key.to_owned())).cloned())
    }

    fn kv_set(&self, _: &FunctionName, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), HostError> {
        self.values.lock().unwrap().insert((bucket.to_owned(), key.to_owned()), value);
        Ok(())
    }

    fn kv_delete(&self, _: &FunctionName, bucket: &str, key: &str) -> Result<(), HostError> {
        self.values.lock().unwrap().remove(&(bucket.to_owned(), key.to_owned()));
        Ok(())
    }

    fn kv_list(&self, _: &FunctionName, bucket: &str, _: Option<&str>) -> Result<KeyPage, HostError> {
        let values = self.values.lock().unwrap();
        let keys = values.keys().filter(|(name, _)| name == bucket).map(|(_, key)| key.clone()).collect();
        Ok(KeyPage { keys, cursor: None })
    }

    fn kv_increment(&self, _: &FunctionName, bucket: &str, key: &str, delta: i64) -> Result<i64, HostError> {
        let mut values = self.values.lock().unwrap();
        let value = values.entry((bucket.to_owned(), key.to_owned())).or_insert_with(|| b"0".to_vec());
        let number: i64 = std::str::from_utf8(value).unwrap().parse().map_err(|_| HostError::Failed("not a number".to_owned()))?;
        *value = (number + delta).to_string().into_bytes();
        Ok(number + delta)
    }

    fn kv_swap(&self, _: &FunctionName, bucket: &str, key: &str, swap: Swap<'_>) -> Result<bool, HostError> {
        let mut values = self.values.lock().unwrap();
        let place = (bucket.to_owned(), key.to_owned());
        let fits = values.get(&place).map(Vec::as_slice) == swap.expected;
        if fits {
            values.insert(place, swap.value.to_vec());
        }
        Ok(fits)
    }

    fn publish(&self, _: &CallInfo, topic: &Topic, message: Bytes, _: Option<&str>) -> Result<(), HostError> {
        self.messages.lock().unwrap().push((topic.clone(), message));
        Ok(())
    }

    fn log(&self, _: &CallInfo, line: LogLine) {
        self.lines.lock().unwrap().push(line);
    }

    fn core_dump(&self, _: &CallInfo, dump: Vec<u8>) {
        self.dumps.lock().unwrap().push(dump);
    }
}

/// An engine, its host and a place for files.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) host: Arc<MemoryHost>,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of_memory(256)
    }

    /// A machine with so much memory, which decides how many instances there can be.
    pub(crate) fn of_memory(memory_mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine { cores: 2, memory_bytes: memory_mib * 1024 * 1024 };
        let engine = Engine::new(EngineConfig { machine, cache_dir: dir.path().join("compiled") }).unwrap();
        Self { engine, host: Arc::default(), dir }
    }

    /// The function of a text in WebAssembly's text format.
    pub(crate) fn wat(&self, text: &str, manifest: &str) -> Function {
        self.try_bytes(&wat::parse_str(text).unwrap(), manifest).unwrap()
    }

    pub(crate) fn try_bytes(&self, bytes: &[u8], manifest: &str) -> Result<Function, PrepareError> {
        let path = self.dir.path().join("artifact.wasm");
        std::fs::write(&path, bytes).unwrap();
        self.engine.prepare(&path, &revision(bytes, manifest), self.host.clone())
    }

    /// A function that `cargo xtask guests` built.
    pub(crate) fn guest(&self, name: &str, manifest: &str) -> Function {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests").join(name).with_extension("wasm");
        let bytes = std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: run cargo xtask guests first", path.display()));
        self.try_bytes(&bytes, manifest).unwrap()
    }
}

/// The revision of some bytes under the rest of a manifest.
pub(crate) fn revision(bytes: &[u8], manifest: &str) -> RevisionRef {
    let (manifest, _) = Manifest::from_toml("function.toml", &format!("name = \"probe\"\n{manifest}")).unwrap();
    let digest = Digest::of(bytes);
    let revision = RevisionId::of(&digest, &manifest);
    RevisionRef { function: manifest.name.clone(), revision, digest, manifest: Arc::new(manifest) }
}

pub(crate) fn event(data: &[u8]) -> Event {
    Event {
        id: "e-1".to_owned(),
        source: "/test".to_owned(),
        kind: "sedge.test".to_owned(),
        time_ms: None,
        topic: "plant/a/temperature".parse().unwrap(),
        content_type: None,
        extensions: BTreeMap::new(),
        data: data.to_vec(),
    }
}

/// Where the ending of one call arrives.
pub(crate) fn ending() -> (impl FnOnce(Ending) + Send + 'static, oneshot::Receiver<Ending>) {
    let (sender, receiver) = oneshot::channel();
    let ended = move |ending| {
        // A test that is not interested drops the receiver.
        drop(sender.send(ending));
    };
    (ended, receiver)
}

/// Handles one event to its end.
pub(crate) async fn handle(function: &Function, data: &[u8]) -> (Result<Reply, Failure>, Ending) {
    let (ended, receiver) = ending();
    let result = function.event(&event(data), Invocation::new("i-1", (), ended)).await;
    (result, receiver.await.expect("every call ends"))
}

/// Sends `GET path`; the ending arrives once the body is consumed or dropped.
pub(crate) async fn get(function: &Function, path: &str) -> (Result<http::Response<ResponseBody>, Failure>, oneshot::Receiver<Ending>) {
    let (ended, receiver) = ending();
    let request = http::Request::get(path).header("host", "node.local").body(Full::new(Bytes::new())).unwrap();
    (function.http(request, Invocation::new("i-1", (), ended)).await, receiver)
}
