//! The driver of simulated GPIO lines, for the boot tests: Debian's kernel has it among its sources and not among its modules.
//!
//! ```text
//! linux-source ─▶ two files ─┐
//! linux-headers of the very ─┴─▶ make ─▶ gpio-sim.ko, kept by the kernel's version
//! kernel of the base
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::base::{self, SUITE, Wanted};
use super::stage::Modules;
use super::tools::{Tools, output};
use super::{Arch, Build, Variant};
use crate::progress::Step;

/// Where the module belongs, below the directory of its kernel.
pub(super) const PLACE: &str = "kernel/drivers/gpio/gpio-sim.ko";

/// The driver, and the simulated interrupts it uses, which the kernel does not have built in either. Names in the archive and here.
const SOURCES: [(&str, &str); 2] = [("drivers/gpio/gpio-sim.c", "sim.c"), ("kernel/irq/irq_sim.c", "irq_sim.c")];
const KBUILD: &str = "obj-m := gpio-sim.o\ngpio-sim-y := sim.o irq_sim.o\n";
/// What only the kernel itself may call, and what modules call for the same: an interrupt's handler is the one that `irq_sim.c` has set.
const CALL: [&str; 2] = ["handle_simple_irq(irq_to_desc(irqnum))", "generic_handle_irq(irqnum)"];

/// The module for the kernel of `base`, made if it is not there yet; none where no test loads it.
pub(super) fn ensure(build: &Build, tools: &Tools, base: &Path) -> Result<Option<PathBuf>> {
    if build.variant != Variant::Test || build.arch != Arch::X86_64 {
        return Ok(None);
    }
    let step = Step::begin("gpio-sim");
    let version = Modules::read(base)?.version;
    let name = base::keyed(&format!("gpio-sim-{}", build.arch.name()), SUITE, &[version.clone(), KBUILD.to_owned(), CALL.concat()]);
    let module = build.cache.join(name).with_extension("ko");
    if module.exists() {
        step.skipped(&format!("{} (kept)", module.display()));
        return Ok(Some(module));
    }
    step.now(&format!("sources and headers of Linux {version}"));
    let root = workshop(build, tools, (base, &version))?;
    let inside = Tools::new(&root, &build.cache, build.epoch_s);
    let directory = build.work.join("gpio-sim");
    unpack(&inside, &directory, &version)?;
    step.now("compiling");
    let headers = format!("/usr/src/linux-headers-{version}");
    output(inside.command("make").args(["-C", &headers, &format!("M={}", directory.display()), "modules"])).context("compile gpio-sim")?;
    let made = directory.join("gpio-sim.ko");
    // What describes types to tracers is as large as the rest, and nobody traces here.
    let strip = ["--strip-debug", "--remove-section=.BTF", "--remove-section=.BTF.base"].map(Into::into);
    tools.run(&build.arch.tool("strip"), &[&strip[..], &[made.clone().into_os_string()]].concat())?;
    fs::rename(&made, &module).with_context(|| format!("name {}", module.display()))?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    step.done(&module.display().to_string());
    Ok(Some(module))
}

/// A root file system with compiler, headers and sources of the kernel; it is not kept.
fn workshop(build: &Build, tools: &Tools, (base, version): (&Path, &str)) -> Result<PathBuf> {
    let to = build.work.join("workshop");
    let packages = [format!("linux-headers-{version}"), source(version)?, "make".to_owned(), "xz-utils".to_owned()];
    let wanted = Wanted { build, arch: Some(build.arch), packages: &packages, to: &to };
    base::bootstrap(&mut tools.command("mmdebstrap"), &wanted).with_context(|| {
        let base = base.display();
        format!("Debian's mirror may have another kernel by now than {version}: remove {base}, and the base is made anew with it")
    })?;
    Ok(to)
}

/// The package with the sources: of 6.12.117+deb13-amd64 it is linux-source-6.12.
fn source(version: &str) -> Result<String> {
    let mut numbers = version.split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { anyhow::bail!("`{version}` is no version of Linux") };
    Ok(format!("linux-source-{major}.{minor}"))
}

/// The two files, and what tells the kernel's build how to make a module of them.
fn unpack(inside: &Tools, directory: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let source = source(version)?;
    let archive = format!("/usr/src/{source}.tar.xz");
    let members = SOURCES.map(|(member, _)| format!("{source}/{member}"));
    let mut tar = inside.command("tar");
    output(tar.args(["-xJf", &archive, "-C"]).arg(directory).arg("--strip-components=1").args(members)).context("unpack the sources")?;
    for (member, name) in SOURCES {
        fs::rename(directory.join(member), directory.join(name)).with_context(|| format!("name {name}"))?;
    }
    let path = directory.join("irq_sim.c");
    let text = fs::read_to_string(&path).context("read irq_sim.c")?;
    fs::write(&path, callable(&text)?).context("write irq_sim.c")?;
    fs::write(directory.join("Kbuild"), KBUILD).context("write Kbuild")
}

/// Makes the file one that can be part of a module.
fn callable(text: &str) -> Result<String> {
    let [own, for_modules] = CALL;
    ensure!(text.matches(own).count() == 1, "irq_sim.c of this kernel is another than is known here: it has no single `{own}`");
    Ok(text.replace(own, for_modules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_those_of_the_kernel() {
        assert_eq!(source("6.12.117+deb13-amd64").unwrap(), "linux-source-6.12");
        assert!(source("6").is_err());
    }

    #[test]
    fn only_a_file_that_is_known_is_changed() {
        assert_eq!(callable("a; handle_simple_irq(irq_to_desc(irqnum)); b").unwrap(), "a; generic_handle_irq(irqnum); b");
        assert!(callable("handle_level_irq(irq_to_desc(irqnum))").is_err());
    }
}
