//! A host in memory, and the few steps that every test takes.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_protocol::manifest::SecretName;
use sedge_protocol::{Digest, Event, FunctionName, Manifest, RevisionId, Topic};
use sedge_runtime::{
    Assets, BlobChange, CallAnswer, CallInfo, Egress, Ending, Engine, EngineConfig, Failure, Function, Host, HostError, Invocation,
    KeyPage, LogLine, Machine, PrepareError, Reply, ResponseBody, RevisionRef, Secret, StoreRef, Swap, WasiBody,
};
use sedge_store::Blobs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// State, messages and log lines in memory; files in a directory.
pub(crate) struct MemoryHost {
    pub(crate) values: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    pub(crate) messages: Mutex<Vec<(Topic, Bytes)>>,
    pub(crate) changes: Mutex<Vec<BlobChange>>,
    pub(crate) lines: Mutex<Vec<LogLine>>,
    pub(crate) dumps: Mutex<Vec<Vec<u8>>>,
    pub(crate) secrets: Mutex<BTreeMap<String, String>>,
    assets: Assets,
    blobs: Blobs,
    egress: Egress,
}

impl MemoryHost {
    fn new(dir: &Path, authority: Option<&str>) -> Self {
        Self {
            values: Mutex::default(),
            messages: Mutex::default(),
            changes: Mutex::default(),
            lines: Mutex::default(),
            dumps: Mutex::default(),
            secrets: Mutex::default(),
            assets: Assets::open(&dir.join("assets"), None).unwrap(),
            blobs: Blobs::open(&dir.join("blobs"), None).unwrap(),
            egress: Egress::new(authority.map(str::as_bytes)).unwrap(),
        }
    }

    pub(crate) fn value(&self, bucket: &str, key: &str) -> Option<String> {
        let values = self.values.lock().unwrap();
        values.get(&(bucket.to_owned(), key.to_owned())).map(|value| String::from_utf8(value.clone()).unwrap())
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }

    /// Whether a line of the log has all these parts.
    pub(crate) fn logged(&self, parts: &[&str]) -> bool {
        self.log().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

fn place(store: StoreRef<'_>, key: &str) -> (String, String) {
    let shared = if store.owner.is_none() { "shared " } else { "" };
    (format!("{shared}{}", store.bucket), key.to_owned())
}

impl Host for MemoryHost {
    fn kv_get(&self, store: StoreRef<'_>, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.values.lock().unwrap().get(&place(store, key)).cloned())
    }

    fn kv_set(&self, store: StoreRef<'_>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        let mut values = self.values.lock().unwrap();
        values.extend(pairs.into_iter().map(|(key, value)| (place(store, &key), value)));
        Ok(())
    }

    fn kv_delete(&self, store: StoreRef<'_>, keys: &[String]) -> Result<(), HostError> {
        let mut values = self.values.lock().unwrap();
        values.retain(|at, _| keys.iter().all(|key| *at != place(store, key)));
        Ok(())
    }

    fn kv_list(&self, store: StoreRef<'_>, _: Option<&str>) -> Result<KeyPage, HostError> {
        let values = self.values.lock().unwrap();
        let keys = values.keys().filter(|(name, _)| *name == place(store, "").0).map(|(_, key)| key.clone()).collect();
        Ok(KeyPage { keys, cursor: None })
    }

    fn kv_increment(&self, store: StoreRef<'_>, key: &str, delta: i64) -> Result<i64, HostError> {
        let mut values = self.values.lock().unwrap();
        let value = values.entry(place(store, key)).or_insert_with(|| b"0".to_vec());
        let number: i64 = std::str::from_utf8(value).unwrap().parse().map_err(|_| HostError::Failed("not a number".to_owned()))?;
        *value = (number + delta).to_string().into_bytes();
        Ok(number + delta)
    }

    fn kv_swap(&self, store: StoreRef<'_>, key: &str, swap: Swap<'_>) -> Result<bool, HostError> {
        let mut values = self.values.lock().unwrap();
        let place = place(store, key);
        let fits = values.get(&place).map(Vec::as_slice) == swap.expected;
        if fits {
            values.insert(place, swap.value.to_vec());
        }
        Ok(fits)
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    fn blob_changed(&self, _: &CallInfo, change: &BlobChange) -> Result<(), HostError> {
        self.changes.lock().unwrap().push(change.clone());
        Ok(())
    }

    fn secret(&self, name: &SecretName) -> Result<Option<Secret<String>>, HostError> {
        Ok(self.secrets.lock().unwrap().get(name.as_str()).cloned().map(Secret::new))
    }

    fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Says who was called by whom, and what was sent.
    fn call(&self, caller: &CallInfo, callee: &FunctionName, request: http::Request<WasiBody>) -> CallAnswer {
        let who = format!("{} calls {callee}{}: ", caller.revision.function, request.uri().path());
        Box::pin(async move {
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            let said = Bytes::from([who.as_bytes(), &sent].concat());
            http::Response::new(Full::new(said).map_err(|never| match never {}).boxed_unsync())
        })
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

    /// A host that trusts one more authority.
    pub(crate) fn trusting(authority: &str) -> Self {
        let mut bench = Self::new();
        bench.host = Arc::new(MemoryHost::new(bench.dir.path(), Some(authority)));
        bench
    }

    /// A machine with so much memory, which decides how many instances there can be.
    pub(crate) fn of_memory(memory_mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine { cores: 2, memory_bytes: memory_mib * 1024 * 1024 };
        let engine = Engine::new(EngineConfig { machine, cache_dir: dir.path().join("compiled") }).unwrap();
        let host = Arc::new(MemoryHost::new(dir.path(), None));
        Self { engine, host, dir }
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
        self.try_bytes(&std::fs::read(guest_path(name)).unwrap(), manifest).unwrap()
    }
}

/// Where `cargo xtask guests` put a function.
pub(crate) fn guest_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests").join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is missing: run cargo xtask guests first", path.display());
    path
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

/// The whole answer to a request with a body: status, text, ending.
pub(crate) async fn ask(function: &Function, path: &str, body: impl Into<Bytes>) -> (u16, String, Ending) {
    let (ended, receiver) = ending();
    let body = body.into();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = http::Request::builder().method(method).uri(path).header("host", "node.local").body(Full::new(body)).unwrap();
    let response = match function.http(request, Invocation::new("i-1", (), ended)).await {
        Ok(response) => response,
        Err(failure) => return (0, failure.to_string(), receiver.await.unwrap()),
    };
    let (head, body) = response.into_parts();
    let text = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(failure) => failure.to_string(),
    };
    (head.status.as_u16(), text, receiver.await.unwrap())
}

/// Sends `GET path`; the ending arrives once the body is consumed or dropped.
pub(crate) async fn get(function: &Function, path: &str) -> (Result<http::Response<ResponseBody>, Failure>, oneshot::Receiver<Ending>) {
    let (ended, receiver) = ending();
    let request = http::Request::get(path).header("host", "node.local").body(Full::new(Bytes::new())).unwrap();
    (function.http(request, Invocation::new("i-1", (), ended)).await, receiver)
}
