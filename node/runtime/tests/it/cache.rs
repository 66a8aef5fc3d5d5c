//! Compiled code on disk: used when it is ours and whole, replaced when it is not.

use crate::support::{Bench, handle, revision};
use sedge_runtime::{Engine, EngineConfig, Machine, PrepareError};
use std::fs;
use std::path::PathBuf;

const ONE: &str = r#"(module (func (export "_start")))"#;

fn only_file(bench: &Bench) -> PathBuf {
    let mut files = fs::read_dir(bench.dir.path().join("compiled")).unwrap();
    let file = files.next().expect("one file").unwrap().path();
    assert!(files.next().is_none(), "no temporary file stays");
    file
}

#[tokio::test]
async fn a_damaged_cache_file_is_compiled_again() {
    let bench = Bench::new();
    bench.wat(ONE, "");
    let path = only_file(&bench);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let foreign = [b"\x7fELF".as_slice(), &[0; 200]].concat();
    for bad in [flipped, good[..good.len() - 1].to_vec(), good[..7].to_vec(), Vec::new(), foreign] {
        fs::write(&path, &bad).unwrap();
        let function = bench.wat(ONE, "");
        assert!(handle(&function, b"").await.0.is_ok());
        assert_eq!(fs::read(&path).unwrap(), good, "the file is whole again");
    }
}

#[tokio::test]
async fn whole_code_is_loaded_and_runs() {
    let bench = Bench::new();
    bench.wat(ONE, "");
    let before = fs::metadata(only_file(&bench)).unwrap().modified().unwrap();
    let again = bench.wat(ONE, "");
    assert!(handle(&again, b"").await.0.is_ok());
    assert_eq!(fs::metadata(only_file(&bench)).unwrap().modified().unwrap(), before, "not written again");
    bench.engine.forget(&again.revision().digest).unwrap();
    assert_eq!(fs::read_dir(bench.dir.path().join("compiled")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_only_time() {
    let bench = Bench::new();
    fs::remove_dir(bench.dir.path().join("compiled")).unwrap();
    assert!(handle(&bench.wat(ONE, ""), b"").await.0.is_ok());
}

#[test]
fn an_artifact_with_another_digest_is_refused() {
    let bench = Bench::new();
    let path = bench.dir.path().join("other.wasm");
    fs::write(&path, wat::parse_str(ONE).unwrap()).unwrap();
    let refused = bench.engine.prepare(&path, &revision(b"something else", ""), bench.host.clone());
    assert!(matches!(refused, Err(PrepareError::Digest { .. })), "{refused:?}");
}

#[test]
fn what_is_not_a_function_is_refused_with_the_rule() {
    let bench = Bench::new();
    let stealing = wat::parse_str(r#"(module (import "env" "steal" (func)) (func (export "_start")))"#).unwrap();
    let refused = bench.try_bytes(&stealing, "").unwrap_err();
    assert!(refused.to_string().contains("env.steal"), "{refused}");
    assert!(matches!(bench.try_bytes(b"#!/bin/sh", ""), Err(PrepareError::Artifact(_))));
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let bench = Bench::of_memory(64);
    let refused = bench.try_bytes(&wat::parse_str(ONE).unwrap(), "[limits]\nmemory_mb = 128\n");
    assert!(matches!(refused, Err(PrepareError::Memory { .. })), "{refused:?}");
}

#[test]
fn a_file_in_the_way_of_the_cache_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = dir.path().join("compiled");
    fs::write(&cache_dir, "").unwrap();
    let machine = Machine { cores: 1, memory_bytes: 64 << 20 };
    assert!(Engine::new(EngineConfig { machine, cache_dir }).is_err());
}
