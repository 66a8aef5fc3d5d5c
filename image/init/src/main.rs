//! The first program of a booting node: from the kernel's own memory to the verified root of the slot that the kernel belongs to.
//!
//! ```text
//! kernel ─▶ mounts ─▶ watchdog armed ─▶ modules ─▶ slot whose hash tree has the root hash ─▶ dm-verity ─▶ erofs ─▶ systemd
//!                                                      │ none after 30 s, damaged, or any error
//!                                                      ▼
//!                                                 says why, reboots: the boot counter chooses what comes next;
//!                                                 a damaged version gives way to another one, if there is one
//! ```
//!
//! The kernel, this program and the root hash are one signed file, so what runs here has been checked by the firmware. The root hash names the
//! root file system; which of the two slots holds it is found by looking, so one file serves both.

mod begun;
mod command_line;
mod mapper;
mod modules;
mod repair;
mod slot;
mod verity;
mod watchdog;

use command_line::CommandLine;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::{RebootCommand, reboot};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Where the root file system is mounted before it becomes the root.
const ROOT: &str = "/sysroot";
/// How long an error stays on the screen.
const READ_IT: Duration = Duration::from_secs(3);

/// Why the root file system could not be reached.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error("the kernel's command line: {0}")]
    CommandLine(#[from] command_line::Fault),
    #[error("{0}")]
    Slot(#[from] slot::NotFound),
}

/// An error of the system with what was being done.
fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> BootError {
    move |cause| BootError::Io { what: what.into(), cause: cause.into() }
}

fn main() {
    let Err(error) = boot();
    say(&format!("<2>sedge-init: {error}; rebooting"));
    thread::sleep(READ_IT);
    rustix::fs::sync();
    // Fails only for want of the right, which the first process has; when it ends instead, the kernel panics and reboots.
    let _kernel_panics = reboot(RebootCommand::Restart);
}

/// Ends only by an error: at the end, systemd takes the place of this process.
fn boot() -> Result<Infallible, BootError> {
    for (source, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        mount_new(source, target)?;
    }
    let text = fs::read_to_string("/proc/cmdline").map_err(failed("read /proc/cmdline"))?;
    let command_line = CommandLine::parse(&text)?;
    modules::load("watchdog");
    if let Err(error) = watchdog::arm() {
        say(&format!("<4>sedge-init: no watchdog: {error}"));
    }
    modules::load("root");
    let found = match modules::load_until("disks", || slot::look(&command_line).ok()) {
        Some(found) => found,
        None => slot::find(&command_line).inspect_err(|missing| give_up(missing.boot_partition(), &command_line, &missing.to_string()))?,
    };
    look_at_whole(&found, &command_line)?;
    let device = mapper::map("root", &found.table(verity::OnFault::Panic)).map_err(failed("set up dm-verity"))?;
    mount(&device, ROOT, "erofs", MountFlags::RDONLY, None).map_err(failed(format!("mount {device} as erofs")))?;
    write("/run/udev/rules.d/61-sedge.rules", &found.udev_rule())?;
    write("/run/sedge-init/slot", &found.place())?;
    if !found.has_data() {
        write("/run/sedge-init/no-data", "")?;
    }
    say(&format!("<6>sedge-init: root on {}", found.partition()));
    switch_root()
}

/// Reads a slot to its end whose version has begun a few times and never came up.
fn look_at_whole(found: &slot::Found, command_line: &CommandLine) -> Result<(), BootError> {
    let device = found.device();
    match begun::count(&device, &command_line.root_hash) {
        Ok(false) => return Ok(()),
        Ok(true) => say("<4>sedge-init: this version began several times and did not come up: its slot is read as a whole"),
        Err(error) => {
            say(&format!("<4>sedge-init: starts are not counted: {error}"));
            return Ok(());
        }
    }
    let whole = mapper::map("whole", &found.table(verity::OnFault::Error)).map_err(failed("set up dm-verity"))?;
    let read = fs::File::open(&whole).and_then(|mut whole| io::copy(&mut whole, &mut io::sink()));
    mapper::remove("whole").map_err(failed("end dm-verity"))?;
    if let Err(cause) = read {
        let reason = format!("the slot {} is damaged: {cause}", found.partition());
        give_up(found.boot_partition().as_deref(), command_line, &reason);
        return Err(BootError::Io { what: reason, cause });
    }
    Ok(())
}

/// Gives the boot loader another version to choose, if there is one.
fn give_up(boot_partition: Option<&str>, command_line: &CommandLine, reason: &str) {
    let (Some(device), Some(version)) = (boot_partition, &command_line.version) else { return };
    match repair::give_up(device, version, reason) {
        Ok(true) => say(&format!("<2>sedge-init: version {version} is given up: {reason}")),
        Ok(false) => say("<2>sedge-init: there is no other version to take"),
        Err(error) => say(&format!("<2>sedge-init: the boot partition cannot be changed: {error}")),
    }
}

fn mount_new(source: &str, target: &str) -> Result<(), BootError> {
    fs::create_dir_all(target).map_err(failed(format!("create {target}")))?;
    let options = (source == "tmpfs").then_some(c"mode=755,size=20%");
    let result = mount(source, target, source, MountFlags::NOSUID, options);
    // The kernel may have brought it already.
    if result == Err(rustix::io::Errno::BUSY) { Ok(()) } else { result.map_err(failed(format!("mount {target}"))) }
}

fn write(path: &str, text: &str) -> Result<(), BootError> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).and_then(|()| fs::write(path, text)).map_err(failed(format!("write {path}")))
}

/// Frees the memory of this file system, puts the real root into its place and starts systemd.
fn switch_root() -> Result<Infallible, BootError> {
    for directory in ["/dev", "/proc", "/sys", "/run"] {
        mount_move(directory, format!("{ROOT}{directory}")).map_err(failed(format!("move {directory}")))?;
    }
    // What stays costs memory and nothing else.
    let _kept = fs::remove_dir_all(modules::DIRECTORY).and_then(|()| fs::remove_file("/init"));
    std::env::set_current_dir(ROOT).map_err(failed(format!("enter {ROOT}")))?;
    mount_move(".", "/").map_err(failed("move the root"))?;
    rustix::process::chroot(".").map_err(failed("change the root"))?;
    std::env::set_current_dir("/").map_err(failed("enter the root"))?;
    Err(failed("start /sbin/init")(Command::new("/sbin/init").exec()))
}

/// Writes a line to the kernel's log, from where it gets to the console and into the journal. `line` begins with its level.
fn say(line: &str) {
    // Without a log nobody can be told.
    let _said = fs::write("/dev/kmsg", format!("{line}\n"));
}
