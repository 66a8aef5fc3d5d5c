//! Calls one function over and over on one thread and prints what a call costs: `cargo run --release --example spin -- hello.wasm`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for tuning the pool, not a product")]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_protocol::{Digest, FunctionName, Manifest, RevisionId, Topic};
use sedge_runtime::{CallInfo, Engine, EngineConfig, Host, HostError, Invocation, KeyPage, LogLine, Machine, RevisionRef, Swap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const CALLS: u32 = 20_000;

/// Has nothing and keeps nothing.
struct Nowhere;

impl Host for Nowhere {
    fn kv_get(&self, _: &FunctionName, _: &str, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    fn kv_set(&self, _: &FunctionName, _: &str, _: &str, _: Vec<u8>) -> Result<(), HostError> {
        Ok(())
    }
    fn kv_delete(&self, _: &FunctionName, _: &str, _: &str) -> Result<(), HostError> {
        Ok(())
    }
    fn kv_list(&self, _: &FunctionName, _: &str, _: Option<&str>) -> Result<KeyPage, HostError> {
        Ok(KeyPage::default())
    }
    fn kv_increment(&self, _: &FunctionName, _: &str, _: &str, delta: i64) -> Result<i64, HostError> {
        Ok(delta)
    }
    fn kv_swap(&self, _: &FunctionName, _: &str, _: &str, _: Swap<'_>) -> Result<bool, HostError> {
        Ok(true)
    }
    fn publish(&self, _: &CallInfo, _: &Topic, _: Bytes, _: Option<&str>) -> Result<(), HostError> {
        Ok(())
    }
    fn log(&self, _: &CallInfo, _: LogLine) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args().nth(1).expect("the path of an HTTP component");
    let bytes = std::fs::read(&path).unwrap();
    let (manifest, _) = Manifest::from_toml("spin", "name = \"spin\"\n[limits]\nmemory_mb = 16\n").unwrap();
    let digest = Digest::of(&bytes);
    let revision = RevisionId::of(&digest, &manifest);
    let revision = RevisionRef { function: manifest.name.clone(), revision, digest, manifest: Arc::new(manifest) };
    let cache = tempfile::tempdir().unwrap();
    let machine = Machine { cores: 2, memory_bytes: 4 << 30 };
    let engine = Engine::new(EngineConfig { machine, cache_dir: cache.path().to_owned() }).unwrap();
    let function = engine.prepare(Path::new(&path), &revision, Arc::new(Nowhere)).unwrap();
    let id: Arc<str> = "spin".into();
    let started = Instant::now();
    let cpu = Arc::new(std::sync::atomic::AtomicU64::new(0));
    for _ in 0..CALLS {
        let request = http::Request::get("/hello").header("host", "a").body(Full::new(Bytes::new())).unwrap();
        let sum = Arc::clone(&cpu);
        let ended = move |ending: sedge_runtime::Ending| {
            sum.fetch_add(ending.usage.cpu_us, std::sync::atomic::Ordering::Relaxed);
        };
        let response = function.http(request, Invocation::new(Arc::clone(&id), (), ended)).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let wall = started.elapsed();
    let metered_us = cpu.load(std::sync::atomic::Ordering::Relaxed) / u64::from(CALLS);
    println!("{CALLS} calls: {:.1} µs each, {metered_us} µs of it metered as the function's", wall.as_secs_f64() * 1e6 / f64::from(CALLS));
}
