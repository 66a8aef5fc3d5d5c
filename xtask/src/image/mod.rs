//! `cargo xtask image`: the disk image of a node, from the recipe below `image/`.
//!
//! ```text
//! packages ─▶ tools: a root file system with every tool, entered for each step
//!    │            │
//!    └────────▶ base ─▶ stage: less what no node needs, plus tree/, sedged, init ─▶ root.img (erofs + hash tree)
//!                 │                                                                     │ root hash
//!                 └─▶ kernel, modules ─▶ initrd ─▶ signed kernel image ◀────────────────┘
//!                                                      ├─▶ boot partition ─▶ disk.img ─▶ .img.zst
//!                                                      └─▶ with root.img, in chunks, signed ─▶ .sedge-os
//! ```
//!
//! Tools and base are kept outside the work tree and named by what goes into them. Nothing here depends on the host beyond `mmdebstrap`,
//! `unshare` and `chroot`: device-mapper, loop devices and mounts of disks are not used.

mod base;
mod bundle;
mod checksum;
mod disk;
mod enrolment;
mod gpio_sim;
mod initrd;
mod kernel;
mod keys;
mod lock;
mod recipe;
mod sbom;
mod security;
pub(crate) mod series;
mod stage;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result};
use clap::ValueEnum;
use sedge_protocol::image::ImageVersion;

use crate::binaries::{self, Profile};
use crate::compiler::Compiler;
use crate::progress::{self, Step};
use crate::workspace;

/// Processors that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit Intel and AMD, UEFI
    #[value(name = "x86-64")]
    X86_64,
    /// 64-bit ARM, UEFI or EBBR
    Arm64,
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// For boxes in the field
    Gateway,
    /// Adds what the boot tests need
    Test,
}

/// Which image.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Processor
    #[arg(long, value_enum, default_value = "x86-64")]
    pub(crate) arch: Arch,
    /// What it is for
    #[arg(long, value_enum, default_value = "gateway")]
    pub(crate) variant: Variant,
    /// Version of the image, such as 1.2.0 [default: that of the workspace]
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Where the image goes [default: target/image]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A daemon that is there already, instead of building one
    #[arg(long, value_name = "FILE")]
    pub(crate) sedged: Option<PathBuf>,
    /// Debian mirror [default: that of the host's own sources]
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// What is kept between builds [default: ~/.cache/sedge-image]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Files of your own: those below DIR/root are laid over the root file system, those below DIR/initrd over that of the first program
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: Option<PathBuf>,
    /// The oldest version that the bundle can follow [default: any]
    #[arg(long, value_name = "VERSION")]
    pub(crate) minimum: Option<ImageVersion>,
    /// Take the versions of Debian's packages over into image/packages/ARCH.lock
    #[arg(long)]
    pub(crate) update_lock: bool,
    /// Make the bundle alone, without the disk image
    #[arg(long)]
    pub(crate) bundle_only: bool,
}

impl Options {
    /// The image for the boot tests, with a daemon that is built already.
    pub(crate) fn test(arch: Arch, sedged: PathBuf) -> Self {
        Self {
            arch,
            variant: Variant::Test,
            version: None,
            out: None,
            sedged: Some(sedged),
            mirror: None,
            cache: None,
            overlay: None,
            minimum: None,
            update_lock: false,
            bundle_only: false,
        }
    }

    /// The image for boxes in the field, with a daemon that is built already.
    pub(crate) fn gateway(arch: Arch, sedged: PathBuf) -> Self {
        Self { variant: Variant::Gateway, ..Self::test(arch, sedged) }
    }
}

impl Arch {
    /// That of this machine.
    pub(crate) fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 }
    }

    /// As options and file names have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Debian has it.
    fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As firmware has it.
    fn efi(self) -> &'static str {
        match self {
            Self::X86_64 => "x64",
            Self::Arm64 => "aa64",
        }
    }

    /// As the compiler has it.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// A tool for its programs, such as `strip`, by its name in the tool root.
    fn tool(self, name: &str) -> String {
        match self {
            Self::X86_64 => format!("x86_64-linux-gnu-{name}"),
            Self::Arm64 => format!("aarch64-linux-gnu-{name}"),
        }
    }

    /// As the kernel and the emulator of its programs have it.
    fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Test => "test",
        }
    }
}

/// One build: what is asked for, and where things are.
#[derive(Debug)]
struct Build {
    arch: Arch,
    variant: Variant,
    version: String,
    /// Kept between builds.
    cache: PathBuf,
    /// Begun anew by each build, inside the cache: the tools see it under the same path.
    work: PathBuf,
    out: PathBuf,
    mirror: String,
    /// Files of the builder's own.
    overlay: Option<PathBuf>,
    /// The oldest version that the bundle can follow.
    minimum: Option<ImageVersion>,
    /// Time of everything inside, seconds since 1970: that of the commit.
    epoch_s: u64,
}

impl Build {
    fn name(&self) -> String {
        format!("sedge-{}-{}-{}", self.variant.name(), self.arch.name(), self.version)
    }

    /// What boxes take it, as they know themselves.
    fn board(&self) -> String {
        format!("{}-{}", self.variant.name(), self.arch.name())
    }

    /// A number that depends on what is built and on nothing else, as partitions and file systems have it.
    fn uuid(&self, what: &str) -> String {
        let hex = sedge_protocol::Digest::of(format!("{what} {}", self.name()).as_bytes()).hex();
        format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The image, or the bundle when nothing else was asked for.
    pub(crate) image: PathBuf,
    /// The tool root, with the machines to boot it on.
    pub(crate) tools: PathBuf,
}

/// `cargo xtask image`.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build(options).map(|_| ExitCode::SUCCESS)
}

/// Builds the image.
pub(crate) fn build(options: &Options) -> Result<Built> {
    let build = prepare(options)?;
    let recipe = recipe::Recipe::read(build.arch, build.variant)?;
    let compiler = Compiler::ensure(build.arch)?;
    let sedged = match &options.sedged {
        Some(path) => path.clone(),
        // Shared with what else is built of it.
        None if build.arch == Arch::host() => binaries::build(Profile::Dist)?.sedged,
        None => compiler.build("sedged", "dist", &[])?,
    };
    progress::say("building the first program, which needs no library");
    let init = compiler.build("sedge-init", "dist", &["-C target-feature=+crt-static"])?;
    let tools = tools::ensure(&build, &recipe)?;
    let base = base::ensure(&build, &recipe, &tools)?;
    let shown = Step::begin("packages");
    shown.done(&lock::compare(build.arch, &base, options.update_lock)?);
    let keys = keys::ensure(&build, &tools)?;
    let gpio_sim = gpio_sim::ensure(&build, &tools, &base)?;
    let parts = stage::Parts { base: &base, sedged: &sedged, keys: &keys, module: gpio_sim.as_deref() };
    let stage = step("root", || stage::make(&build, &recipe, &tools, &parts))?;
    let shown = Step::begin("security");
    shown.done(&security::check(&tools, &stage.tree)?);
    let initrd = step("initrd", || initrd::make(&build, &recipe, &tools, &base, &init))?;
    let parts = kernel::Parts { base: &base, stage: &stage, initrd: &initrd, keys: &keys };
    let kernel = step("kernel image", || kernel::make(&build, &recipe, &tools, &parts))?;
    let bundle = step("bundle", || bundle::make(&build, &stage, &kernel, &keys))?;
    progress::say(&format!("{}: {} MB", bundle.path.display(), bundle.bytes / 1_000_000));
    if options.bundle_only {
        return Ok(Built { image: bundle.path, tools: tools.root().to_owned() });
    }
    let parts = disk::Parts { base: &base, stage: &stage, kernel: &kernel, keys: &keys };
    let image = step("disk", || disk::make(&build, &tools, &parts))?;
    step("parts", || sbom::write(&build, &base, &stage.tree))?;
    checksum::write(&build.out, &build.name(), &image.path)?;
    progress::say(&format!("{}: {} MB, SHA-256 {}", image.path.display(), image.bytes / 1_000_000, image.digest));
    Ok(Built { image: image.path, tools: tools.root().to_owned() })
}

/// A step with its name before and its time after.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let shown = Step::begin(name);
    let result = work().with_context(|| format!("the step `{name}`"))?;
    shown.done("");
    Ok(result)
}

fn prepare(options: &Options) -> Result<Build> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "an image is built as root: file owners and a tool root need it");
    let home = || env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let caches = || env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    let cache = options.cache.clone().unwrap_or_else(|| caches().join("sedge-image"));
    let version = options.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let out = options.out.clone().unwrap_or_else(|| workspace::target().join("image"));
    let work = cache.join("work").join(format!("{}-{}-{version}", options.variant.name(), options.arch.name()));
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    for dir in [&work, &out] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let mirror = match &options.mirror {
        Some(mirror) => mirror.clone(),
        None => base::mirror_of_host()?,
    };
    let epoch_s = workspace::commit_time_s()?;
    let (arch, variant, overlay, minimum) = (options.arch, options.variant, options.overlay.clone(), options.minimum.clone());
    Ok(Build { arch, variant, version, cache, work, out, mirror, overlay, minimum, epoch_s })
}
