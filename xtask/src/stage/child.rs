//! A process that does not outlive us.
//!
//! It runs in a process group of its own, so that Ctrl-C reaches us alone and we ask it to stop. Dropping a [`Child`] ends it the
//! hard way. Should we be killed ourselves, `<name>.pid` in the run directory names the process; the next run ends it, if it
//! still is what it was: the same program, started with the same configuration.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::POLL;

/// How long a process may take to stop when asked; a node drains for ten seconds.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Lines of a process's log that an error shows.
const TAIL_LINES: usize = 12;

/// A running process.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
    log: PathBuf,
    mark: PathBuf,
}

/// Enough to know a process again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    pid: i32,
    program: PathBuf,
    /// The argument that no other process has: its configuration.
    config: PathBuf,
}

impl Child {
    /// Starts `program --config config`, its output in `<run>/<name>.log`.
    pub(crate) fn start(name: &str, program: &Path, config: &Path, run: &Path) -> Result<Self> {
        let log = run.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).with_context(|| format!("write {}", log.display()))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        command.env_remove("NOTIFY_SOCKET").env_remove("SEDGED_DATA_DIR");
        let process = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mark = run.join(format!("{name}.pid"));
        let child = Self { name: name.to_owned(), process, log, mark };
        let text = serde_json::to_string(&Mark { pid: child.raw_pid(), program: program.to_owned(), config: config.to_owned() })?;
        fs::write(&child.mark, text).with_context(|| format!("write {}", child.mark.display()))?;
        Ok(child)
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait().with_context(|| format!("look at {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail()),
        }
    }

    /// Asks it to stop.
    pub(crate) fn ask(&mut self) {
        // One that has ended already is found by `wait`.
        if self.process.try_wait().is_ok_and(|status| status.is_none())
            && let Some(pid) = Pid::from_raw(self.raw_pid())
        {
            kill_process(pid, Signal::TERM).ok();
        }
    }

    /// Waits until it has ended, bounded; `Err` when it had to be killed.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        let end = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.process.try_wait().with_context(|| format!("wait for {}", self.name))? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} did not stop within {} s and was killed", self.name, STOP_MAX.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn raw_pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap_or(i32::MAX)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_file(&self.mark).ok();
    }
}

/// Ends what a killed run left in `run`; says how many processes that were.
pub(crate) fn sweep(run: &Path) -> Result<usize> {
    let Ok(entries) = fs::read_dir(run) else { return Ok(0) };
    let mut ended = 0;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pid") {
            let mark = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Mark>(&text).ok());
            if let Some(mark) = mark.filter(Mark::lives) {
                mark.end()?;
                ended += 1;
            }
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(ended)
}

impl Mark {
    /// Whether the process with this number still is the one that was started, not another that got its number.
    fn lives(&self) -> bool {
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        // A program that was built anew since then is shown as deleted.
        let program = fs::read_link(proc.join("exe")).unwrap_or_default().to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let arguments = fs::read(proc.join("cmdline")).unwrap_or_default();
        let config = self.config.as_os_str().as_encoded_bytes();
        Path::new(&program) == self.program && arguments.split(|byte| *byte == 0).any(|argument| argument == config)
    }

    fn end(&self) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let end = Instant::now() + STOP_MAX;
        kill_process(pid, Signal::TERM).ok();
        while self.lives() && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        if self.lives() {
            kill_process(pid, Signal::KILL).with_context(|| format!("end process {} of a run before", self.pid))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> PathBuf {
        fs::canonicalize("/bin/sh").unwrap()
    }

    fn sleeper(dir: &Path) -> Child {
        // `sh --config FILE` is not valid everywhere, so the sleeper is a script that ignores its arguments.
        let program = dir.join("sleeper");
        fs::write(&program, "#!/bin/sh\nread line < \"$0.fifo\"\n").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("sleeper.fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Child::start("sleeper", &program, &dir.join("a.toml"), dir).unwrap()
    }

    #[test]
    fn a_process_ends_with_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = sleeper(dir.path());
        child.check().unwrap();
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!dir.path().join("sleeper.pid").exists());
    }

    #[test]
    fn a_process_that_ended_by_itself_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start("false", Path::new("/bin/false"), &dir.path().join("a.toml"), dir.path()).unwrap();
        let status = child.process.wait().unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(child.check().unwrap_err().to_string().contains("false ended"));
    }

    #[test]
    fn only_the_same_program_with_the_same_configuration_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = sleeper(dir.path());
        let text = fs::read_to_string(dir.path().join("sleeper.pid")).unwrap();
        let mark: Mark = serde_json::from_str(&text).unwrap();
        // A script runs as its interpreter.
        let mark = Mark { program: shell(), ..mark };
        // The kernel lets the parent go on a moment before it shows the new program's arguments.
        while !mark.lives() {
            child.check().unwrap();
            std::thread::yield_now();
        }
        assert!(!Mark { config: PathBuf::from("/another"), ..mark.clone() }.lives());
        assert!(!Mark { program: PathBuf::from("/another"), ..mark.clone() }.lives());
        assert_eq!(sweep(dir.path()).unwrap(), 0, "the mark names the script, not the interpreter");
        drop(child);
        assert!(!mark.lives());
    }
}
