//! Compiling in a process of its own, so that no artifact can take the daemon with it.
//!
//! ```text
//!  prepare ─▶ Workshop ── sedged compile --in … --digest … ─▶ compile() under limits ── compiled code ─▶ checksum, cache, load
//!                 └─ its time is over: killed                       └─ last line on stderr: the error
//! ```
//! Invariants: what comes back is used only when the process ended well; a workshop takes no longer than its bound, whatever the artifact.
//! The process sets its own limits before it reads a byte ([`Order`] tells it which): setting them from outside needs `unsafe`.

use crate::compiled::Artifact;
use crate::engine::{Rules, compiling_engine};
use crate::form::Form;
use crate::limits::{COMPILED_BYTES_MAX, COMPILER_SAYS_BYTES_MAX};
use crate::pool::Plan;
use sedge_protocol::Digest;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// What stands before the number when memory for something could not be had.
const NO_MEMORY: &str = "memory allocation of";

/// Where artifacts are compiled: a program that understands [`Order::arguments`], and what it may take.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The program; `sedged` takes itself.
    pub program: PathBuf,
    /// Address space that one compilation may take.
    pub memory_bytes: u64,
    /// How long one compilation may last.
    pub time: Duration,
}

/// What a compiling process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The artifact.
    pub artifact: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub form: Form,
    /// Address space of a linear memory in the engine that will run it.
    pub reservation_bytes: u64,
    /// Unmapped space behind that.
    pub guard_bytes: u64,
    /// What kind of engine will run it.
    pub rules: Rules,
    /// Address space that the process may take.
    pub memory_bytes: u64,
    /// Processor time that the process may take.
    pub cpu_s: u64,
}

/// Why an artifact was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The process did not start.
    #[error("start the compiler {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Longer than it may.
    #[error(
        "compiling took longer than {limit_s} s and was stopped: make the function smaller, above all its longest functions, or raise \
         machine.compile_s on a slow node"
    )]
    Time {
        /// The bound.
        limit_s: u64,
    },
    /// More memory than it may.
    #[error(
        "compiling needed more than {limit_mb} MiB of memory: make the function smaller, above all its longest functions, or raise \
         machine.compile_mb"
    )]
    Memory {
        /// The bound.
        limit_mb: u64,
    },
    /// More code than is kept.
    #[error("the compiled code is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// It refused the artifact, or broke.
    #[error("the compiler ended with {status}: {said}")]
    Failed {
        /// How the process ended.
        status: ExitStatus,
        /// The last line it wrote.
        said: String,
    },
}

impl Workshop {
    /// Compiles artifacts for an engine of these rules and this plan.
    pub(crate) fn for_engine(&self, rules: Rules, plan: Plan) -> impl Fn(&Artifact<'_>) -> Result<Vec<u8>, CompileError> {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        move |artifact| {
            self.compile(&Order {
                artifact: artifact.path.to_owned(),
                digest: artifact.digest,
                form: artifact.form,
                reservation_bytes: plan.reservation_bytes,
                guard_bytes: plan.guard_bytes,
                rules,
                memory_bytes: self.memory_bytes,
                cpu_s: self.time.as_secs().saturating_add(1).saturating_mul(cores),
            })
        }
    }

    /// Compiles in a process of its own and answers the compiled code. Blocks, at most for [`Workshop::time`].
    pub(crate) fn compile(&self, order: &Order) -> Result<Vec<u8>, CompileError> {
        let mut command = Command::new(&self.program);
        // mimalloc would take a gigabyte of address space before the limit holds.
        command
            .args(order.arguments())
            .env_clear()
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|cause| CompileError::Start { program: self.program.clone(), cause })?;
        let (status, code, said) = self.attend(child).map_err(|cause| CompileError::Start { program: self.program.clone(), cause })?;
        let Some(status) = status else { return Err(CompileError::Time { limit_s: self.time.as_secs() }) };
        let limit_bytes = COMPILED_BYTES_MAX;
        match status.success() {
            _ if code.len() as u64 > limit_bytes => Err(CompileError::TooLarge { limit_bytes }),
            true => Ok(code),
            false if said.starts_with(NO_MEMORY) => Err(CompileError::Memory { limit_mb: self.memory_bytes >> 20 }),
            false => Err(CompileError::Failed { status, said }),
        }
    }

    /// Reads what the process says until it ends or its time is over: then it is killed, and there is no status.
    fn attend(&self, mut child: Child) -> io::Result<(Option<ExitStatus>, Vec<u8>, String)> {
        let (stdout, stderr) = (child.stdout.take().expect("it was asked for"), child.stderr.take().expect("it was asked for"));
        thread::scope(|scope| {
            let (running, ended) = channel::<()>();
            let code = scope.spawn(move || {
                let mut code = Vec::new();
                let read = stdout.take(COMPILED_BYTES_MAX + 1).read_to_end(&mut code);
                // The process has closed its output: it is at its end.
                drop(running);
                read.map(|_| code)
            });
            let said = scope.spawn(move || last_line(stderr));
            let in_time = ended.recv_timeout(self.time) != Err(RecvTimeoutError::Timeout);
            if !in_time {
                child.kill()?;
            }
            let status = child.wait()?;
            let code = code.join().map_err(|_| io::Error::other("a reader panicked"))??;
            let said = said.join().map_err(|_| io::Error::other("a reader panicked"))?;
            Ok((in_time.then_some(status), code, said))
        })
    }
}

/// The last line that is not empty, of a process that may say anything.
fn last_line(mut stderr: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    // What cannot be read any more was the end.
    while let Ok(bytes @ 1..) = stderr.read(&mut piece) {
        kept.extend_from_slice(&piece[..bytes]);
        let over = kept.len().saturating_sub(COMPILER_SAYS_BYTES_MAX);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // A program without memory says more after that, and nothing that helps.
    let memory = lines.clone().find(|line| line.starts_with(NO_MEMORY));
    memory.or(lines.next_back()).unwrap_or("nothing was said").to_owned()
}

impl Order {
    /// The command line of a compiling process.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["compile".into(), "--in".into(), self.artifact.clone().into()];
        arguments.extend(["--digest".into(), self.digest.to_string().into()]);
        for (name, number) in [
            ("--reservation-bytes", self.reservation_bytes),
            ("--guard-bytes", self.guard_bytes),
            ("--memory-bytes", self.memory_bytes),
            ("--cpu-s", self.cpu_s),
        ] {
            arguments.extend([name.into(), number.to_string().into()]);
        }
        arguments.extend(["--form".into(), self.form.to_string().into()]);
        arguments.extend(self.rules.debugger.then(|| "--debugger".into()));
        arguments.extend(self.rules.concurrent.then(|| "--concurrent".into()));
        arguments
    }
}

/// Compiles in this process, whose limits are set: the other end of a [`Workshop`].
///
/// # Errors
/// When the artifact cannot be read, has another digest, or the compiler refuses it.
pub fn compile(order: &Order) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = read(&order.artifact, &order.digest)?;
    let engine = compiling_engine(order)?;
    let wasm = order.form.wasm(&bytes)?;
    Ok(match order.form {
        Form::Module => engine.precompile_module(&wasm)?,
        Form::Component | Form::Adapted => engine.precompile_component(&wasm)?,
    })
}

fn read(artifact: &Path, digest: &Digest) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(artifact)?;
    let found = Digest::of(&bytes);
    if found == *digest { Ok(bytes) } else { Err(io::Error::other(format!("the artifact has digest {found}, expected {digest}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            artifact: PathBuf::from("/nowhere/artifact.wasm"),
            digest: Digest::of(b""),
            form: Form::Module,
            reservation_bytes: 1 << 32,
            guard_bytes: 1 << 20,
            rules: Rules::default(),
            memory_bytes: 1 << 30,
            cpu_s: 10,
        }
    }

    /// A workshop whose program is a shell that runs `script`, whatever the order says.
    fn workshop(dir: &Path, script: &str, time: Duration) -> Workshop {
        use std::os::unix::fs::PermissionsExt as _;
        let program = dir.join("compiler");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Workshop { program, memory_bytes: 64 << 20, time }
    }

    #[test]
    fn what_the_process_says_last_is_the_error_and_its_output_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let shop = |script| workshop(dir.path(), script, Duration::from_secs(60));
        let fault = shop("echo code; echo first >&2; echo 'function 7 is odd' >&2; exit 1").compile(&order()).unwrap_err();
        assert!(fault.to_string().ends_with("exit status: 1: function 7 is odd"), "{fault}");
        let fault = shop("kill -KILL $$").compile(&order()).unwrap_err();
        assert!(fault.to_string().contains("signal: 9") && fault.to_string().ends_with("nothing was said"), "{fault}");
        let fault = shop("echo 'memory allocation of 64 bytes failed' >&2; echo 'stack backtrace:' >&2; kill -ABRT $$")
            .compile(&order())
            .unwrap_err();
        assert!(matches!(fault, CompileError::Memory { limit_mb: 64 }), "{fault}");
        assert_eq!(shop("printf code").compile(&order()).unwrap(), b"code");
    }

    #[test]
    fn a_process_that_does_not_end_is_killed_also_when_it_talks_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        for script in ["exec sleep 600", "while :; do echo more >&2; done"] {
            let fault = workshop(dir.path(), script, Duration::from_millis(200)).compile(&order()).unwrap_err();
            assert!(matches!(fault, CompileError::Time { .. }), "{script}: {fault}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let shop = Workshop { program: "/nowhere/sedged".into(), memory_bytes: 0, time: Duration::from_secs(1) };
        assert!(shop.compile(&order()).unwrap_err().to_string().contains("/nowhere/sedged"));
    }
}
