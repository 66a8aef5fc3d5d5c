//! A whole machine that boots the image: QEMU, its disk, its serial line.

use crate::board::{self, Board};
use crate::cli;
use crate::hardware::Hardware;
use crate::lossy::{LossyDisk, Lost};
use crate::node::Membership;
use crate::process::Process;
use anyhow::{Context as _, Result};
use sedge_image_tools::{Tools, output};
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The name by which a machine knows the one that emulates it.
pub const HOST: &str = "10.0.2.2";
/// Size of a disk, larger than the image: the rest becomes the data partition.
const DISK_SIZE: &str = "2GiB";
const DISK_BYTES: u64 = 2 << 30;
/// Where the boot partition begins, and its bytes.
const BOOT_PARTITION: &str = "@@1M";
const BOOT_PARTITION_BYTES: Range<u64> = 1 << 20..(1 + 192) << 20;
/// Bytes of the slot that a flashed box does not run.
const OTHER_SLOT_BYTES: Range<u64> = (1 + 192 + 256) << 20..DATA_PARTITION;
/// Where the data partition begins, bytes: behind the boot partition and two slots.
const DATA_PARTITION: u64 = (1 + 192 + 2 * 256) << 20;

/// Size of a stick.
const STICK_BYTES: u64 = 64 << 20;

/// A disk with the image on it.
#[derive(Debug)]
pub struct Disk {
    board: Board,
    tools: Tools,
    path: PathBuf,
    /// What stands between it and the machine when it may lose what was not flushed.
    lossy: Option<LossyDisk>,
}

impl Disk {
    /// Flashes the image for a board to a file in `directory`, with a claim.
    ///
    /// # Errors
    /// When there is none, or no room.
    pub fn new(board: Board, directory: &Path, membership: &Membership) -> Result<Self> {
        Self::flash((board, board.image()?), directory, membership, &[])
    }

    /// Flashes the image for gateways with more arguments of `sedge flash`.
    ///
    /// # Errors
    /// When there is none, or no room.
    pub fn of_gateway(directory: &Path, membership: &Membership, arguments: &[&str]) -> Result<Self> {
        Self::flash((Board::Pc, board::built("SEDGE_GATEWAY_IMAGE", "cargo xtask test --all")?), directory, membership, arguments)
    }

    /// Writes the image for gateways as somebody does who has no `sedge`: unpacked onto a larger disk, and `claim.toml` dropped onto it.
    ///
    /// # Errors
    /// When there is none, or no room.
    pub fn of_gateway_by_hand(directory: &Path, membership: &Membership) -> Result<Self> {
        let root = board::built("SEDGE_IMAGE_TOOLS", "cargo xtask test")?;
        let (tools, path, packed) = (Tools::new(&root, directory, 0), directory.join("disk.img"), directory.join("image.zst"));
        fs::copy(board::built("SEDGE_GATEWAY_IMAGE", "cargo xtask test --all")?, &packed)?;
        output(tools.command("zstd").args(["-q", "-d"]).arg(&packed).arg("-o").arg(&path))?;
        fs::remove_file(&packed)?;
        fs::File::options().write(true).open(&path)?.set_len(DISK_BYTES)?;
        let disk = Self { board: Board::Pc, tools, path, lossy: None };
        let Membership { url, ca_pin, claim } = membership;
        disk.write("claim.toml", &format!("[fleet]\nurl = \"{url}\"\nca_pin = \"{ca_pin}\"\nclaim = \"{claim}\"\n"))?;
        Ok(disk)
    }

    fn flash((board, image): (Board, PathBuf), directory: &Path, membership: &Membership, more: &[&str]) -> Result<Self> {
        let root = board::built("SEDGE_IMAGE_TOOLS", "cargo xtask test")?;
        let (tools, path) = (Tools::new(&root, directory, 0), directory.join("disk.img"));
        let (from, to) = (image.to_str().context("the image's path is no text")?, path.to_str().context("the directory is no text")?);
        let Membership { url, ca_pin, claim } = membership;
        let (fleet, pin) = (["--fleet", url], ca_pin.to_string());
        let arguments = [&["flash", from, "--to", to, "--size", DISK_SIZE, "--claim", claim, "--ca-pin", &pin], &fleet[..], more].concat();
        cli::sedge(None, &arguments)?.success()?;
        Ok(Self { board, tools, path, lossy: None })
    }

    /// From now on it loses what was not flushed when the power is cut, drawn from `seed`.
    ///
    /// # Errors
    /// When it cannot be served.
    pub fn make_lossy(&mut self, seed: u64) -> Result<()> {
        self.lossy = Some(LossyDisk::start(&self.path, &self.path.with_extension("nbd"), seed)?);
        Ok(())
    }

    /// The power goes after so many more writes to the boot partition.
    ///
    /// # Errors
    /// When it is no lossy disk.
    pub fn cut_at_boot_partition(&self, writes: u32) -> Result<()> {
        self.lossy.as_ref().context("not a lossy disk")?.set_fuse(BOOT_PARTITION_BYTES, writes);
        Ok(())
    }

    /// The power goes after so many more writes to the slot that a flashed box does not run.
    ///
    /// # Errors
    /// When it is no lossy disk.
    pub fn cut_at_other_slot(&self, writes: u32) -> Result<()> {
        self.lossy.as_ref().context("not a lossy disk")?.set_fuse(OTHER_SLOT_BYTES, writes);
        Ok(())
    }

    /// Whether the power has gone at the write that was asked for.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.lossy.as_ref().is_some_and(LossyDisk::is_blown)
    }

    /// The machine is gone; answers what the disk has lost, if it may.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn cut_power(&mut self) -> Result<Option<Lost>> {
        self.lossy.as_mut().map(LossyDisk::cut_power).transpose()
    }

    /// What a checker finds wrong with the boot partition; changes nothing.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check_boot_partition(&self) -> Result<()> {
        let partition = self.path.with_extension("esp");
        let bytes = BOOT_PARTITION_BYTES.end - BOOT_PARTITION_BYTES.start;
        let mut disk = fs::File::open(&self.path)?;
        disk.seek(SeekFrom::Start(BOOT_PARTITION_BYTES.start))?;
        io::copy(&mut disk.take(bytes), &mut fs::File::create(&partition)?)?;
        output(self.tools.command("fsck.fat").arg("-n").arg(&partition)).map(drop)
    }

    /// How QEMU is told of it.
    fn drive(&self) -> String {
        let file = match &self.lossy {
            Some(lossy) => format!("nbd+unix:///?socket={}", lossy.socket().display()),
            None => self.path.display().to_string(),
        };
        format!("if=none,id=disk,format=raw,file={file}")
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

    /// Makes noise of what the files of a directory of the data partition are made of; answers how many there are.
    ///
    /// # Errors
    /// When the partition cannot be read or written.
    pub fn scramble_data(&self, directory: &str) -> Result<usize> {
        let disk = fs::File::options().write(true).open(&self.path)?;
        let mut scrambled = 0;
        // `/inode/mode/uid/gid/name/size/`
        for line in self.on_data_partition(&["-R", &format!("ls -p {directory}")])?.lines() {
            let fields: Vec<&str> = line.split('/').collect();
            let [_, _, mode, _, _, name, ..] = fields[..] else { continue };
            let path = format!("{directory}/{name}");
            match mode {
                mode if mode.starts_with("10") => {
                    for block in self.on_data_partition(&["-R", &format!("blocks {path}")])?.split_whitespace() {
                        disk.write_all_at(&rand::random::<[u8; 4096]>(), DATA_PARTITION + block.parse::<u64>()? * 4096)?;
                    }
                    scrambled += 1;
                }
                mode if mode.starts_with("04") && !name.starts_with('.') => scrambled += self.scramble_data(&path)?,
                _ => {}
            }
        }
        Ok(scrambled)
    }

    /// Makes noise of a part of a slot, `a` or `b`: what is read of it at every start, and much else.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn scramble_slot(&self, slot: &str) -> Result<()> {
        let disk = fs::File::options().write(true).open(&self.path)?;
        let begin = if slot == "a" { BOOT_PARTITION_BYTES.end } else { OTHER_SLOT_BYTES.start };
        for block in (begin + (8 << 20)..begin + (40 << 20)).step_by(4096) {
            disk.write_all_at(&rand::random::<[u8; 4096]>(), block)?;
        }
        Ok(())
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

    /// A stick with one file on it, as QEMU is told.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plug_in(&self, file: &Path) -> Result<Vec<String>> {
        let stick = self.stick();
        fs::File::create(&stick)?.set_len(STICK_BYTES)?;
        output(self.tools.command("mkfs.fat").args(["-F", "32"]).arg(&stick))?;
        output(self.tools.command("mcopy").arg("-i").arg(&stick).arg(file).arg("::"))?;
        let drive = format!("if=none,id=stick,format=raw,file={}", stick.display());
        Ok(["-drive", &drive, "-device", "qemu-xhci,id=stick-usb", "-device", "usb-storage,bus=stick-usb.0,drive=stick"]
            .map(str::to_owned)
            .to_vec())
    }

    /// A text file of the stick.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read_stick(&self, name: &str) -> Result<String> {
        output(self.tools.command("mtype").arg("-i").arg(self.stick()).arg(format!("::{name}")))
    }

    fn stick(&self) -> PathBuf {
        self.path.with_file_name("stick.img")
    }
}

/// Lines of the console that are printed at the end.
const CONSOLE_LINES_SHOWN: usize = 40;

/// A machine that runs; dropping it is pulling the plug.
#[derive(Debug)]
pub struct Machine {
    board: Board,
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
        Self::boot_with(disk, &[])
    }

    /// [`Machine::boot`] with a clock that has lost the time and says 1970.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot_in_1970(disk: &Disk) -> Result<Self> {
        Self::boot_with(disk, &["-rtc", "base=1970-01-01T00:00:00"].map(str::to_owned))
    }

    /// [`Machine::boot`] with more of what QEMU is told.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot_with(disk: &Disk, arguments: &[String]) -> Result<Self> {
        Self::boot_on(disk, &Hardware::default(), arguments)
    }

    /// [`Machine::boot_with`] on other hardware than the usual.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot_on(disk: &Disk, hardware: &Hardware, arguments: &[String]) -> Result<Self> {
        let serial = disk.path.with_extension("serial");
        let variables = disk.path.with_extension("variables");
        if !variables.exists() {
            output(disk.tools.command("cp").arg(disk.board.variables()).arg(&variables))?;
        }
        // Free until QEMU takes it.
        let listeners = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [http, mqtt, shut, ssh] = listeners.map(|listener| listener.and_then(|listener| listener.local_addr()));
        let (http, mqtt, shut, ssh) = (http?, mqtt?, shut?, ssh?);
        // One processor: with two that are emulated on a busy machine, the guest's kernel has been seen to lose the timer of the second.
        let mut command = disk.tools.command(disk.board.program());
        disk.board.add_to(&mut command, &variables, hardware.secure_boot);
        command.args(["-m", "512", "-nodefaults", "-display", "none"]);
        command.args(["-serial", &format!("file:{}", serial.display())]);
        let forwarded =
            format!("hostfwd=tcp:{http}-:{},hostfwd=tcp:{mqtt}-:1883,hostfwd=tcp:{shut}-:{},hostfwd=tcp:{ssh}-:22", Self::HTTP, Self::SHUT);
        command.args(["-netdev", &format!("user,id=net,{forwarded}")]).args(arguments);
        command.args(["-drive", &disk.drive()]).args(hardware.arguments());
        if hardware.drive.needs_kernel() {
            command.arg("-kernel").arg(disk.kernel()?);
        }
        let process = Process::start("qemu", &mut command, &disk.path.with_extension("log"))?;
        Ok(Self { board: disk.board, process, serial, http, mqtt, shut, ssh })
    }

    /// What it is built of.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board
    }

    /// What it wrote to its serial line.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read(&self.serial).map(|bytes| String::from_utf8_lossy(&bytes).replace('\u{1b}', "")).unwrap_or_default()
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn pull_the_plug(&mut self) -> Result<()> {
        self.process.kill9()
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
