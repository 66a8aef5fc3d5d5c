//! Functions to publish: the built guests, and small ones written here.

use anyhow::{Context as _, Result};
use sedge_protocol::Manifest;
use std::fs;
use std::path::{Path, PathBuf};

/// A component that imports what no function gets: TLS of the host's.
pub const IMPORTS_TLS: &str = r#"(component (import "wasi:tls/types@0.2.0" (instance)))"#;
/// A command that imports a function of nobody.
pub const IMPORTS_ENV: &str = r#"(module (import "env" "steal" (func)) (func (export "_start")))"#;
/// A command that answers with what it was given.
pub const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
        (loop $more
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const 65536))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.load (i32.const 8))
                (then
                    (i32.store (i32.const 4) (i32.load (i32.const 8)))
                    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
                    (br $more))))))"#;
/// A module that nobody can call.
pub const EXPORTS_NOTHING: &str = "(module)";

/// The repository.
#[must_use]
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where the guest `name` was built.
///
/// # Errors
/// When it was not.
pub fn guest_path(name: &str) -> Result<PathBuf> {
    let path = repository().join("target/guests").join(format!("{name}.wasm"));
    anyhow::ensure!(path.is_file(), "{} does not exist: run `cargo xtask test`, or build first with `cargo xtask guests`", path.display());
    Ok(path)
}

/// The Wasm of the guest `name`.
///
/// # Errors
/// When it has not been built.
pub fn guest(name: &str) -> Result<Vec<u8>> {
    let path = guest_path(name)?;
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// The file with the manifest of the example function `name`.
#[must_use]
pub fn manifest_path(name: &str) -> PathBuf {
    repository().join("node/functions").join(name).join("function.toml")
}

/// The manifest of the example function `name`.
///
/// # Errors
/// When it cannot be read.
pub fn manifest(name: &str) -> Result<Manifest> {
    let path = manifest_path(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    manifest_of(&text)
}

/// A manifest written in a test.
///
/// # Errors
/// Its faults.
pub fn manifest_of(text: &str) -> Result<Manifest> {
    Ok(Manifest::from_toml("function.toml", text)?.0)
}

/// A command of so many functions, each with a body of about `body_bytes` that the compiler cannot make short work of.
#[must_use]
pub fn laborious(functions: usize, body_bytes: usize) -> Vec<u8> {
    // local 0 = local 0 * local 1 + local 1, and the same the other way round: each step needs the one before.
    const STEP: &[u8] = &[0x20, 0, 0x20, 1, 0x6c, 0x20, 1, 0x6a, 0x22, 0, 0x20, 1, 0x6c, 0x20, 0, 0x6a, 0x21, 1];
    // Both begin with what nobody knows beforehand, and the result is kept: nothing can be left out.
    let mut body = vec![1, 2, 0x7f, 0x23, 0, 0x21, 0, 0x23, 0, 0x21, 1];
    body.extend(STEP.iter().copied().cycle().take(body_bytes / STEP.len() * STEP.len()));
    body.extend([0x20, 0, 0x24, 0, 0x0b]);
    let list = |id: u8, count: usize, items: &[u8]| {
        let mut counted = Vec::new();
        leb128(&mut counted, count);
        counted.extend_from_slice(items);
        let mut section = vec![id];
        leb128(&mut section, counted.len());
        section.extend_from_slice(&counted);
        section
    };
    let mut code = Vec::new();
    leb128(&mut code, body.len());
    code.extend_from_slice(&body);
    let start = list(7, 1, &[&[6], b"_start".as_slice(), &[0, 0]].concat());
    let global = list(6, 1, &[0x7f, 1, 0x41, 1, 0x0b]);
    let (types, declared) = (list(1, 1, &[0x60, 0, 0]), list(3, functions, &vec![0; functions]));
    let sections = [types, declared, global, start, list(10, functions, &code.repeat(functions))];
    [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat()
}

/// `wasm` with `bytes` of a custom section behind it: the same function, another artifact, as large as one likes.
#[must_use]
pub fn padded(wasm: &[u8], bytes: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"padding";
    let mut padded = wasm.to_vec();
    padded.push(0);
    leb128(&mut padded, 1 + NAME.len() + bytes.len());
    padded.push(u8::try_from(NAME.len()).unwrap_or_default());
    padded.extend_from_slice(NAME);
    padded.extend_from_slice(bytes);
    padded
}

fn leb128(into: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}

/// Wasm from its text.
///
/// # Errors
/// When it is not WebAssembly.
pub fn wasm(text: &str) -> Result<Vec<u8>> {
    Ok(wat::parse_str(text)?)
}
