//! From nothing to a function that answers, in each language: `sedge new`, `sedge build`, `sedge test`, with the real tools.
//!
//! Each test brings the tool of its language into the user's cache, or finds it there, and compiles: seconds to minutes.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::cli::sedge;

/// Makes a project of the template, builds it by the commands that `sedge build` has to say, and runs its cases: requests and events.
fn check(template: &str, commands: &[&str]) -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("sample");
    let dir = dir.to_string_lossy();
    sedge(None, &["new", "sample", "--template", template, "--path", &dir])?.success()?;
    let built = sedge(None, &["build", &dir])?;
    assert_eq!(built.code, Some(0), "{built:?}");
    for command in commands {
        assert!(built.stderr.contains(command), "`{command}` is said before it runs: {built:?}");
    }
    let tested = sedge(None, &["test", &dir])?;
    assert!(tested.code == Some(0) && tested.stderr.contains(" passed, 0 failed"), "{tested:?}");
    Ok(())
}

#[test]
#[ignore = "compiles a guest with its dependencies: a minute"]
fn rust_for_http_and_events() -> Result<()> {
    check("rust-http", &["cargo build --release --target wasm32-wasip2"])
}

#[test]
#[ignore = "compiles a guest: seconds"]
fn rust_as_a_command() -> Result<()> {
    check("rust-command", &["cargo build --release --target wasm32-wasip2"])
}

#[test]
#[ignore = "brings Go"]
fn go() -> Result<()> {
    check("go", &["go build -trimpath"])
}

#[test]
#[ignore = "brings Zig"]
fn c() -> Result<()> {
    check("c", &["zig cc -target wasm32-wasi"])
}

#[test]
#[ignore = "brings Zig"]
fn zig() -> Result<()> {
    check("zig", &["zig build-exe src/main.zig -target wasm32-wasi"])
}

#[test]
#[ignore = "brings the compiler of AssemblyScript"]
fn assemblyscript() -> Result<()> {
    check("assemblyscript", &["npm install", "npm exec -- asc assembly/index.ts"])
}

#[test]
#[ignore = "brings jco and StarlingMonkey: a hundred megabytes, a minute of compilation"]
fn javascript() -> Result<()> {
    check("javascript", &["npm install", "npm run --silent build"])
}

#[test]
#[ignore = "brings jco and StarlingMonkey: a hundred megabytes, a minute of compilation"]
fn typescript() -> Result<()> {
    check("typescript", &["npm install", "npm run --silent build"])
}

#[test]
#[ignore = "brings componentize-py: a minute of compilation"]
fn python() -> Result<()> {
    check("python", &["componentize-py -d wit -w function componentize app"])
}

#[test]
#[ignore = "brings CRuby for WASI: thirty megabytes, minutes of compilation"]
fn ruby() -> Result<()> {
    check("ruby", &["npm install", "npm run --silent build", "adding the files of app"])
}
