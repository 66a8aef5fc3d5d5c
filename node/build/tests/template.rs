//! The templates of `sedge new` become functions, with the compiler at hand and with a private copy of its library.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sedge_build::{Builder, Progress, TARGET, Toolchain};
use sedge_protocol::artifact::{Kind, inspect};

/// A project `sample` out of the template of that name.
fn project(template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions/templates");
    for file in ["Cargo.toml", "function.toml", "src/lib.rs", "src/main.rs"] {
        let Ok(text) = fs::read_to_string(templates.join(template).join(file)) else {
            continue;
        };
        let to = dir.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text.replace("{{name}}", "sample")).unwrap();
    }
    dir
}

fn check(template: &str, toolchain: Toolchain, expected: Kind) {
    let project = project(template);
    let mut print = |progress: Progress<'_>| eprintln!("{progress:?}");
    let wasm = Builder::new(toolchain).build(project.path(), &mut print).unwrap();
    assert_eq!(inspect(&fs::read(wasm).unwrap()), Ok(expected));
}

/// Where this repository's surroundings may hold the archives.
fn archives() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/toolchain")
}

#[test]
#[ignore = "compiles a guest with its dependencies: a minute"]
fn the_http_template_is_a_function() {
    check("rust-http", Toolchain::for_user().archives(&archives()), Kind::Http);
}

#[test]
#[ignore = "compiles a guest with its dependencies: a minute"]
fn the_http_template_of_03_is_a_function() {
    check("rust-http-03", Toolchain::for_user().archives(&archives()), Kind::Http03);
}

#[test]
#[ignore = "may compile the standard library: a minute"]
fn the_command_template_is_a_function() {
    check("rust-command", Toolchain::for_user().archives(&archives()), Kind::Command);
}

#[test]
#[ignore = "compiles the standard library: a minute"]
fn a_private_copy_builds_a_function_and_is_made_once() {
    let home = tempfile::tempdir().unwrap();
    let toolchain = Toolchain::new(home.path()).archives(&archives()).private();
    check("rust-command", toolchain.clone(), Kind::Command);
    let sample = project("rust-command");
    let mut steps = 0;
    toolchain.target(TARGET, sample.path(), &mut |_| steps += 1).unwrap();
    assert_eq!(steps, 0, "the second time there is nothing to do");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".partial")), "{left:?}");
}

#[test]
#[ignore = "compiles the standard library: a minute"]
fn a_private_copy_builds_for_another_processor() {
    const PROCESSOR: &str = "aarch64-unknown-linux-gnu";
    let (home, library) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(library.path().join("src")).unwrap();
    fs::write(library.path().join("Cargo.toml"), "[package]\nname = \"library\"\nedition = \"2024\"\n[workspace]\n").unwrap();
    fs::write(library.path().join("src/lib.rs"), "pub fn now() -> std::time::Instant { std::time::Instant::now() }\n").unwrap();
    let toolchain = Toolchain::new(home.path()).archives(&archives()).private();
    let target = toolchain.target(PROCESSOR, library.path(), &mut |_| {}).unwrap();
    let mut cargo = Command::new("cargo");
    cargo.current_dir(library.path()).args(["build", "--target", target.name()]).env_remove("CARGO_TARGET_DIR");
    target.apply(&mut cargo, &[]);
    assert!(cargo.status().unwrap().success());
    assert!(library.path().join("target").join(PROCESSOR).join("debug/liblibrary.rlib").is_file());
}
