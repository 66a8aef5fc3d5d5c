//! Invokes one HTTP component many times on one thread, without a network: what an invocation costs by itself.
//!
//! `invocations WASM COUNT` prints one line of JSON. `cargo xtask bench functions` runs it for its time, and under callgrind for its
//! instructions: the difference of two counts is free of everything that happens once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_protocol::manifest::SecretName;
use sedge_protocol::{Digest, FunctionName, Manifest, RevisionId, Topic};
use sedge_runtime::{
    Assets, BlobChange, CallAnswer, CallInfo, Egress, Engine, EngineConfig, Function, Host, HostError, Invocation, KeyPage, LogLine,
    Machine, RevisionRef, Secret, StoreRef, Swap, WasiBody,
};
use sedge_store::Blobs;

/// Few slots: a simulated processor has little address space.
const MACHINE: Machine = Machine { cores: 1, memory_bytes: 128 * 1024 * 1024 };

/// A host that keeps nothing.
struct NoHost {
    assets: Assets,
    blobs: Blobs,
    egress: Egress,
}

impl NoHost {
    fn new(dir: &Path) -> Result<Self> {
        let assets = Assets::open(&dir.join("assets"), None)?;
        let blobs = Blobs::open(&dir.join("blobs"), None)?;
        Ok(Self { assets, blobs, egress: Egress::new(None)? })
    }
}

impl Host for NoHost {
    fn kv_get(&self, _: StoreRef<'_>, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }

    fn kv_set(&self, _: StoreRef<'_>, _: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        Ok(())
    }

    fn kv_delete(&self, _: StoreRef<'_>, _: &[String]) -> Result<(), HostError> {
        Ok(())
    }

    fn kv_list(&self, _: StoreRef<'_>, _: Option<&str>) -> Result<KeyPage, HostError> {
        Ok(KeyPage::default())
    }

    fn kv_increment(&self, _: StoreRef<'_>, _: &str, delta: i64) -> Result<i64, HostError> {
        Ok(delta)
    }

    fn kv_swap(&self, _: StoreRef<'_>, _: &str, _: Swap<'_>) -> Result<bool, HostError> {
        Ok(false)
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    fn blob_changed(&self, _: &CallInfo, _: &BlobChange) -> Result<(), HostError> {
        Ok(())
    }

    fn secret(&self, _: &SecretName) -> Result<Option<Secret<String>>, HostError> {
        Ok(None)
    }

    fn egress(&self) -> &Egress {
        &self.egress
    }

    fn call(&self, _: &CallInfo, _: &FunctionName, _: http::Request<WasiBody>) -> CallAnswer {
        unreachable!("the example calls no other function")
    }

    fn publish(&self, _: &CallInfo, _: &Topic, _: Bytes, _: Option<&str>) -> Result<(), HostError> {
        Ok(())
    }

    fn log(&self, _: &CallInfo, _: LogLine) {}
}

fn prepare(wasm: &Path) -> Result<Function> {
    let bytes = std::fs::read(wasm).with_context(|| format!("read {}", wasm.display()))?;
    let (manifest, _) = Manifest::from_toml("example", "name = 'example'\n[settings]\ngreeting = 'hello from the edge'\n")?;
    let digest = Digest::of(&bytes);
    let revision =
        RevisionRef { function: manifest.name.clone(), revision: RevisionId::of(&digest, &manifest), digest, manifest: Arc::new(manifest) };
    // Beside the artifact: a second run finds the compiled code.
    let cache_dir = wasm.with_extension("compiled");
    let host = Arc::new(NoHost::new(&cache_dir)?);
    let engine = Engine::new(EngineConfig { machine: MACHINE, cache_dir })?;
    // Under callgrind everything takes long, and what changes threads is not counted.
    engine.set_long_us(u64::MAX);
    Ok(engine.prepare(wasm, &revision, host)?)
}

async fn invoke(function: &Function) -> Result<usize> {
    let request = http::Request::get("http://localhost/hello").header("host", "localhost").body(Full::new(Bytes::new()))?;
    let mut invocation = Invocation::new("example-0", (), |_| {});
    if let Some(warm) = function.warm() {
        invocation = invocation.in_warm(warm);
    }
    let response = function.http(request, invocation).await?;
    ensure!(response.status().is_success(), "the function answered {}", response.status());
    let bytes = response.into_body().collect().await?.to_bytes().len();
    // Lets the runtime clear away the instance and make the next, as between two requests.
    while function.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    Ok(bytes)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let wasm = PathBuf::from(arguments.next().context("which component? usage: invocations WASM COUNT")?);
    let count: u32 = arguments.next().and_then(|text| text.to_str()?.parse().ok()).context("how many? usage: invocations WASM COUNT")?;
    let function = prepare(&wasm)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(invoke(&function))?;
    let begin = Instant::now();
    runtime.block_on(async {
        for _ in 0..count {
            invoke(&function).await?;
        }
        anyhow::Ok(())
    })?;
    let each_ns = begin.elapsed().as_nanos() / u128::from(count.max(1));
    #[expect(clippy::print_stdout, reason = "the figure is what this program is for")]
    {
        println!("{{\"count\":{count},\"bytes\":{bytes},\"each_ns\":{each_ns}}}");
    }
    Ok(())
}
