//! What an invocation costs, in instructions: the same on a busy machine as on a quiet one, so it can be held to a number.
//!
//! The example `invocations` runs under callgrind with two counts; the difference is free of everything that happens once. The
//! numbers are of the build that the tests use, which is slower than what is shipped; docs/performance.md has those.

use crate::support::guest_path;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions of one invocation of `hello`, its instance and its clearing away included.
const BASELINE: u64 = include!("instructions.baseline");
/// Hash seeds differ by less than one percent; processors (whose features the compiler uses) and system libraries by some more.
const TOLERANCE_PERCENT: u64 = 8;
const FEW: u64 = 10;
const MANY: u64 = 110;

#[test]
fn an_invocation_costs_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    // The compiled code is kept beside the artifact: the first run, which is not counted, makes it.
    let wasm = dir.path().join("hello.wasm");
    fs::copy(guest_path("hello"), &wasm).unwrap();
    count(&wasm, 1);
    let each = (count(&wasm, MANY) - count(&wasm, FEW)) / (MANY - FEW);
    let away = each.abs_diff(BASELINE) * 100 / BASELINE;
    assert!(
        away <= TOLERANCE_PERCENT,
        "{each} instructions for an invocation, {BASELINE} before: if that is meant, write the new number to \
         node/runtime/tests/it/instructions.baseline and the reason to the commit"
    );
}

/// Instructions of the main thread, which runs the invocations; others keep time.
fn count(wasm: &Path, invocations: u64) -> u64 {
    let out = wasm.with_extension("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--separate-threads=yes"]).arg(format!("--callgrind-out-file={}", out.display()));
    let output =
        valgrind.arg(example()).arg(wasm).arg(invocations.to_string()).output().expect("valgrind is installed by cargo xtask test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(format!("{}-01", out.display())).unwrap();
    text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().trim().parse().unwrap()
}

/// Built with the tests, in the directory beside theirs.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/invocations")
}
