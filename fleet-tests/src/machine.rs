//! A whole machine that boots the image: QEMU, its disk, its serial line.

use crate::cli;
use crate::hardware::Hardware;
use crate::node::Membership;
use crate::process::Process;
use crate::wire::Wire;
use anyhow::{Context as _, Result};
use sedge_image_tools::{Tools, output};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// The name by which a machine knows the one that emulates it.
pub const HOST: &str = "10.0.2.2";
/// Size of a disk, larger than the image: the rest becomes the data partition.
const DISK_SIZE: &str = "2GiB";
const DISK_BYTES: u64 = 2 << 30;
/// Where the boot partition begins.
const BOOT_PARTITION: &str = "@@1M";
/// Where the data partition begins, bytes: behind the boot partition and two slots.
const DATA_PARTITION: u64 = (1 + 192 + 2 * 256) << 20;
/// What the firmware remembers at first.
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A disk with the image on it.
#[derive(Debug)]
pub struct Disk {
    tools: Tools,
    path: PathBuf,
}

impl Disk {
    /// Flashes the image that `cargo xtask test` has built to a file in `directory`, with a claim.
    ///
    /// # Errors
    /// When there is none, or no room.
    pub fn new(directory: &Path, membership: &Membership) -> Result<Self> {
        Self::of("SEDGE_TEST_IMAGE", directory, (membership, &[]))
    }

    /// Flashes the image that the environment variable `variant` names, with more arguments of `sedge flash`.
    ///
    /// # Errors
    /// When there is none, or no room.
    pub fn of(variant: &str, directory: &Path, (membership, more): (&Membership, &[&str])) -> Result<Self> {
        let named = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set: run `cargo xtask test` as root"))
        };
        let (image, root) = (named(variant)?, named("SEDGE_IMAGE_TOOLS")?);
        let (tools, path) = (Tools::new(&root, directory, 0), directory.join("disk.img"));
        let (from, to) = (image.to_str().context("the image's path is no text")?, path.to_str().context("the directory is no text")?);
        let Membership { url, ca_pin, claim } = membership;
        let (fleet, pin) = (["--fleet", url], ca_pin.to_string());
        let arguments = [&["flash", from, "--to", to, "--size", DISK_SIZE, "--claim", claim, "--ca-pin", &pin], &fleet[..], more].concat();
        cli::sedge(None, &arguments)?.success()?;
        Ok(Self { tools, path })
    }

    /// A text file of the boot partition.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, path: &str) -> Result<String> {
        self.on_boot_partition("mtype", &[format!("::{path}").as_ref()])
    }

    /// Names of the kernel images.
    ///
    /// # Errors
    /// When the boot partition cannot be read.
    pub fn kernel_images(&self) -> Result<Vec<String>> {
        let names = self.on_boot_partition("mdir", &["-b".as_ref(), "::EFI/Linux".as_ref()])?;
        Ok(names.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect())
    }

    /// A copy of the kernel image beside the disk.
    fn kernel(&self) -> Result<PathBuf> {
        let names = self.kernel_images()?;
        let (name, beside) = (names.first().context("no kernel image")?, self.path.with_file_name("kernel.efi"));
        self.on_boot_partition("mcopy", &["-o".as_ref(), format!("::EFI/Linux/{name}").as_ref(), beside.as_os_str()])?;
        Ok(beside)
    }

    /// Drops a file onto the boot partition.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path.with_file_name(name);
        fs::write(&file, text)?;
        self.on_boot_partition("mcopy", &["-o".as_ref(), file.as_os_str(), "::".as_ref()]).map(drop)
    }

    /// Takes a file from the boot partition.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.on_boot_partition("mdel", &[format!("::{name}").as_ref()]).map(drop)
    }

    /// Copies a directory of the boot partition to another place on it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        let beside = self.path.with_file_name("copied");
        fs::create_dir_all(&beside)?;
        self.on_boot_partition("mcopy", &["-s".as_ref(), "-o".as_ref(), format!("::{from}").as_ref(), beside.as_os_str()])?;
        let name = Path::new(from).file_name().context("a directory without a name")?;
        self.on_boot_partition("mcopy", &["-s".as_ref(), "-o".as_ref(), beside.join(name).as_os_str(), format!("::{to}").as_ref()])
            .map(drop)
    }

    /// Changes one byte in the middle of a file of the boot partition.
    ///
    /// # Errors
    /// When it is not there.
    pub fn alter(&self, path: &str) -> Result<()> {
        let beside = self.path.with_file_name("altered");
        let place = format!("::{path}");
        self.on_boot_partition("mcopy", &["-o".as_ref(), place.as_ref(), beside.as_os_str()])?;
        let mut bytes = fs::read(&beside)?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("an empty file")? ^= 1;
        fs::write(&beside, bytes)?;
        self.on_boot_partition("mcopy", &["-o".as_ref(), beside.as_os_str(), place.as_ref()]).map(drop)
    }

    /// A text file of the data partition; empty when there is none.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub fn read_data(&self, path: &str) -> Result<String> {
        self.on_data_partition(&["-R", &format!("cat {path}")])
    }

    /// Fills the data partition to its last block.
    ///
    /// # Errors
    /// When there is no room for as much beside it.
    pub fn fill_data(&self) -> Result<()> {
        let file = self.path.with_file_name("fill");
        fs::File::create(&file)?.set_len(DISK_BYTES)?;
        // It ends with an error: there is no room.
        self.on_data_partition(&["-w", "-R", &format!("write {} fill", file.display())]).map(drop)
    }

    fn on_data_partition(&self, arguments: &[&str]) -> Result<String> {
        let partition = format!("{}?offset={DATA_PARTITION}", self.path.display());
        output(self.tools.command("debugfs").args(arguments).arg(partition))
    }

    fn on_boot_partition(&self, program: &str, arguments: &[&std::ffi::OsStr]) -> Result<String> {
        let partition = format!("{}{BOOT_PARTITION}", self.path.display());
        output(self.tools.command(program).arg("-i").arg(partition).args(arguments))
    }
}

/// Lines of the console that are printed at the end.
const CONSOLE_LINES_SHOWN: usize = 40;

/// A machine that runs; dropping it is pulling the plug.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    serial: PathBuf,
    /// Where its HTTP listener is reached.
    pub http: SocketAddr,
    /// Where its broker is reached.
    pub mqtt: SocketAddr,
    /// Where the port is that the firewall keeps shut, [`Machine::SHUT`].
    pub shut: SocketAddr,
    /// Where one signs in, if that is possible.
    pub ssh: SocketAddr,
}

impl Machine {
    /// A port on which something listens, for nobody outside.
    pub const SHUT: u16 = 9999;
    /// The port of its HTTP listener.
    pub const HTTP: u16 = 8080;

    /// Switches it on.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot(disk: &Disk) -> Result<Self> {
        Self::boot_with(disk, None)
    }

    /// [`Machine::boot`] with a second network card at the end of a cable.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot_with(disk: &Disk, wire: Option<&Wire>) -> Result<Self> {
        Self::boot_on(disk, wire, &Hardware::default())
    }

    /// [`Machine::boot_with`] on other hardware than the usual.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot_on(disk: &Disk, wire: Option<&Wire>, hardware: &Hardware) -> Result<Self> {
        let serial = disk.path.with_extension("serial");
        let variables = disk.path.with_extension("variables");
        if !variables.exists() {
            output(disk.tools.command("cp").arg(VARIABLES).arg(&variables))?;
        }
        // Free until QEMU takes it.
        let listeners = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [http, mqtt, shut, ssh] = listeners.map(|listener| listener.and_then(|listener| listener.local_addr()));
        let (http, mqtt, shut, ssh) = (http?, mqtt?, shut?, ssh?);
        // One processor: with two that are emulated on a busy machine, the guest's kernel has been seen to lose the timer of the second.
        let mut command = disk.tools.command("qemu-system-x86_64");
        command.args([
            "-machine",
            hardware.machine(),
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "512",
            "-nodefaults",
            "-display",
            "none",
        ]);
        command.args(["-serial", &format!("file:{}", serial.display())]);
        let forwarded =
            format!("hostfwd=tcp:{http}-:{},hostfwd=tcp:{mqtt}-:1883,hostfwd=tcp:{shut}-:{},hostfwd=tcp:{ssh}-:22", Self::HTTP, Self::SHUT);
        command.args(["-netdev", &format!("user,id=net,{forwarded}")]);
        command.args(wire.map(Wire::arguments).into_iter().flatten());
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", hardware.firmware())]);
        command.args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
        command.args(["-drive", &format!("if=none,id=disk,format=raw,file={}", disk.path.display())]);
        command.args(hardware.arguments());
        if hardware.drive.needs_kernel() {
            command.arg("-kernel").arg(disk.kernel()?);
        }
        let process = Process::start("qemu", &mut command, &disk.path.with_extension("log"))?;
        Ok(Self { process, serial, http, mqtt, shut, ssh })
    }

    /// What it wrote to its serial line.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read(&self.serial).map(|bytes| String::from_utf8_lossy(&bytes).replace('\u{1b}', "")).unwrap_or_default()
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// With what its console showed last.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.process.status()?;
        anyhow::ensure!(ended.is_none(), "the machine ended: {ended:?}\n{}", self.console());
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        eprintln!("── the last of the console:");
        for line in &lines[lines.len().saturating_sub(CONSOLE_LINES_SHOWN)..] {
            eprintln!("│ {line}");
        }
    }
}
