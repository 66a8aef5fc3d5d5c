//! A child process with its log in a file, gone when its handle is dropped.

use crate::wait;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// Lines of a log that are printed at the end.
const LOG_LINES_SHOWN: usize = 60;

/// Where the binary `name` lies: in `SEDGE_BINARIES`, else beside the tests.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("SEDGE_BINARIES") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let tests = std::env::current_exe().context("find the running test")?;
            tests.parent().and_then(Path::parent).context("the test does not lie in a target directory")?.to_owned()
        }
    };
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    bail!("{} does not exist: run `cargo xtask test`, or build first with `cargo build --workspace --bins`", path.display())
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        Self::start_on(name, command, (log, Stdio::null()))
    }

    /// [`Process::start`] with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on(name: &str, command: &mut Command, (log, input): (&Path, Stdio)) -> Result<Self> {
        let file = || OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()));
        let (output, errors): (File, File) = (file()?, file()?);
        let child = command.stdin(input).stdout(output).stderr(errors).spawn();
        let child = child.with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would: `kill -9`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end: SIGTERM.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).with_context(|| format!("terminate {}", self.name))
    }

    /// Lets it stand still, as a machine that nobody reaches: SIGSTOP.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::STOP).with_context(|| format!("pause {}", self.name))
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::CONT).with_context(|| format!("resume {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let Self { name, child, .. } = self;
        wait::until(&format!("{name} ends"), || Ok(child.try_wait()?))
    }

    /// The exit status, once it has one.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// All that it has printed, from all its starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until it has printed `text`.
    ///
    /// # Errors
    /// When it does not.
    pub fn printed(&self, text: &str) -> Result<()> {
        wait::until(&format!("{} prints `{text}`", self.name), || Ok(self.log()?.contains(text).then_some(())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("── the last of {}:", self.name);
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            eprintln!("│ {line}");
        }
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output();
    output.with_context(|| format!("run {}", command.get_program().display()))
}
