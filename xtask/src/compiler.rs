//! Compiles our programs for a processor that boxes have, which need not be that of this machine.
//!
//! ```text
//! standard library: in the compiler's own place → rustup → compiled from its sources (sedge-build)
//! C compiler, linker: this machine's own, or Debian's cross compiler
//! ```

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sedge_build::{Progress, RustTarget, variable};

use crate::binaries;
use crate::image::Arch;
use crate::install::{self, Need};
use crate::progress::Step;
use crate::tool::Log;
use crate::{toolchain, workspace};

/// A compiler that is there, with what it needs.
#[derive(Debug)]
pub(crate) struct Compiler {
    target: RustTarget,
    /// Links for another processor than this machine's.
    linker: Option<&'static str>,
}

impl Compiler {
    /// That for `arch`, brought if it is not there.
    pub(crate) fn ensure(arch: Arch) -> Result<Self> {
        let step = Step::begin("compiler");
        let needs = (arch != Arch::host()).then(|| cross(arch));
        needs.iter().try_for_each(|needs| install::ensure(needs))?;
        let mut log = Log::create("compiler")?;
        let target = toolchain::of_repository().target(arch.target(), workspace::root(), &mut |progress| match progress {
            Progress::Step(what) => step.now(what),
            Progress::Line(line) => {
                log.line(line);
                step.detail(line);
            }
        });
        let target = log.explain(target, &format!("get a compiler for {}", arch.target()))?;
        step.done(target.name());
        Ok(Self { target, linker: needs.map(|[Need { program, .. }, _]| program) })
    }

    /// `cargo build` for its processor, with further `flags` of the compiler. What runs while it builds is not of that processor and gets no flags.
    pub(crate) fn cargo(&self, flags: &[&str]) -> Command {
        let mut cargo = workspace::cargo();
        cargo.args(["build", "--target", self.target.name()]);
        cargo.envs(self.linker.map(|linker| (variable(self.target.name(), "LINKER"), linker)));
        self.target.apply(&mut cargo, flags);
        cargo
    }

    /// Builds the program of a package; answers where it is.
    pub(crate) fn build(&self, package: &str, profile: &str, flags: &[&str]) -> Result<PathBuf> {
        let mut cargo = self.cargo(flags);
        cargo.args(["--package", package, "--bin", package, "--profile", profile, "--message-format=json-render-diagnostics"]);
        if profile == "dist" {
            binaries::date(&mut cargo)?;
        }
        binaries::run(cargo)?.pop().with_context(|| format!("cargo built no `{package}`"))
    }
}

/// Debian's cross compiler and the C library that it links with.
fn cross(arch: Arch) -> [Need; 2] {
    let (program, packages) = match arch {
        Arch::X86_64 => ("x86_64-linux-gnu-gcc", ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]),
        Arch::Arm64 => ("aarch64-linux-gnu-gcc", ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
    };
    packages.map(|package| Need { program, package })
}
