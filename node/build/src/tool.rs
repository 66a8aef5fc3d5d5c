//! Runs a tool and hands on what it prints while it runs.

use crate::language::shown;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Lines of output that an error carries.
const TAIL_LINES_MAX: usize = 30;
/// And how many from its beginning.
const HEAD_LINES_MAX: usize = 15;
/// Lines that may wait to be read; a tool that prints faster waits.
const QUEUE_LINES_MAX: usize = 256;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It ran and failed.
    #[error("{program} failed ({status}):\n{said}")]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The first and the last lines of its output.
        said: String,
    },
    /// It was stopped because it took too long.
    #[error("{program} took more than {} s", limit.as_secs())]
    Slow {
        /// The program's name.
        program: String,
        /// The time it had.
        limit: Duration,
    },
}

/// Runs `command` to its end; `line` gets each line of standard output and standard error, in the order of arrival.
///
/// # Errors
/// The tool could not be started, or it ended with anything but success.
pub fn run(command: &mut Command, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    run_within(command, Duration::MAX, line)
}

/// Like [`run`], but lines for which `data` says true were meant for a program: they reach neither `line` nor an error.
///
/// # Errors
/// As [`run`].
pub fn run_reading(command: &mut Command, data: &mut dyn FnMut(&str) -> bool, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    execute(command, Duration::MAX, data, line)
}

/// Like [`run`], but the tool is killed when `limit` has passed.
///
/// # Errors
/// As [`run`], and [`ToolError::Slow`].
pub fn run_within(command: &mut Command, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    execute(command, limit, &mut |_| false, line)
}

fn execute(
    command: &mut Command,
    limit: Duration,
    data: &mut dyn FnMut(&str) -> bool,
    line: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |cause| ToolError::Start { program: program.clone(), cause };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(start)?;
    let mut said = Said::default();
    let in_time = drain(&mut child, limit, &mut |text| {
        if data(text) {
            return;
        }
        said.add(text);
        line(text);
    });
    if !in_time {
        // The kill fails only if the tool has just ended, and then there is nothing left to stop.
        child.kill().ok();
        child.wait().map_err(start)?;
        return Err(ToolError::Slow { program, limit });
    }
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(());
    }
    Err(ToolError::Failed { said: said.text(command), program, status })
}

/// What of a tool's output an error shows: some tools say first what is wrong, most say it last.
#[derive(Default)]
struct Said {
    head: Vec<String>,
    left_out: usize,
    tail: VecDeque<String>,
}

impl Said {
    fn add(&mut self, text: &str) {
        if self.head.len() < HEAD_LINES_MAX {
            self.head.push(text.to_owned());
            return;
        }
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
            self.left_out += 1;
        }
        self.tail.push_back(text.to_owned());
    }

    fn text(self, command: &Command) -> String {
        if self.head.is_empty() {
            return format!("it said nothing; run `{}` to see why", shown(command));
        }
        let gap = (self.left_out > 0).then(|| format!("… {} lines …", self.left_out));
        self.head.into_iter().chain(gap).chain(self.tail).collect::<Vec<_>>().join("\n")
    }
}

/// Runs `command` and returns its standard output, trimmed.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String, ToolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(cause) => return Err(ToolError::Start { program, cause }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ToolError::Failed { program, status: output.status, said })
}

/// Reads both streams until they end (true) or the time is over (false).
fn drain(child: &mut Child, limit: Duration, line: &mut dyn FnMut(&str)) -> bool {
    let (lines, received) = mpsc::sync_channel(QUEUE_LINES_MAX);
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|err| Box::new(err) as _)];
    for stream in streams.into_iter().flatten() {
        let lines = lines.clone();
        thread::spawn(move || {
            for text in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                // A receiver that is gone gave up on this tool.
                if lines.send(String::from_utf8_lossy(&text).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
    }
    drop(lines);
    let begin = Instant::now();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        match received.recv_timeout(left) {
            Ok(text) => line(&text),
            Err(mpsc::RecvTimeoutError::Disconnected) => return true,
            Err(mpsc::RecvTimeoutError::Timeout) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_streams_arrive() {
        let mut lines = Vec::new();
        run(&mut sh("echo one; echo two >&2"), &mut |line| lines.push(line.to_owned())).unwrap();
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_failure_carries_the_beginning_and_the_end() {
        let said_of = |script: &str| match run(&mut sh(script), &mut |_| {}).unwrap_err() {
            ToolError::Failed { said, status, .. } => (said, status.code()),
            error => panic!("{error}"),
        };
        let (said, code) = said_of("seq 1 100; exit 7");
        assert_eq!(code, Some(7));
        assert_eq!(said.lines().count(), HEAD_LINES_MAX + 1 + TAIL_LINES_MAX);
        assert!(said.starts_with("1\n") && said.contains("… 55 lines …") && said.ends_with("100"), "{said}");
        assert!(!said_of("seq 1 40; exit 1").0.contains('…'));
        assert_eq!(said_of("exit 1").0, "it said nothing; run `sh -c 'exit 1'` to see why");
    }

    #[test]
    fn data_is_kept_out_of_the_error() {
        let mut seen = Vec::new();
        let mut data = |line: &str| {
            seen.push(line.to_owned());
            line.starts_with('{')
        };
        let error = run_reading(&mut sh("echo '{}'; echo talk; exit 1"), &mut data, &mut |_| {}).unwrap_err();
        assert!(matches!(error, ToolError::Failed { said, .. } if said == "talk"));
        assert_eq!(seen, ["{}", "talk"]);
    }

    #[test]
    fn a_tool_that_hangs_is_stopped() {
        let error = run_within(&mut sh("exec sleep 1000"), Duration::from_millis(20), &mut |_| {}).unwrap_err();
        assert!(matches!(error, ToolError::Slow { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-anywhere"), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "start no-such-program-anywhere");
    }
}
