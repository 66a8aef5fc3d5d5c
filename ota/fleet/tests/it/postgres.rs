//! A PostgreSQL server of the test's own: no network, a directory that goes with it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user that Debian's packages make: the server refuses to be root.
const USER: &str = "postgres";
/// Longest wait until it answers.
const START_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A running server.
pub(crate) struct Postgres {
    server: Child,
    directory: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub(crate) fn start() -> Self {
        // A short path: those of Unix sockets are bounded.
        let directory = tempfile::Builder::new().prefix("pg-").tempdir_in("/tmp").unwrap();
        let (data, log) = (directory.path().join("data"), directory.path().join("log"));
        if runs_as_root() {
            let id = |flag| String::from_utf8(Command::new("id").args([flag, USER]).output().unwrap().stdout).unwrap().trim().parse().ok();
            chown(directory.path(), id("-u"), id("-g")).unwrap();
        }
        let made = program("initdb").arg("-D").arg(&data).args(["-U", USER, "-A", "trust", "--no-sync"]).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut command = program("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(directory.path()).args(["-c", "listen_addresses="]);
        let log = fs::File::create(log).unwrap();
        let server = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let postgres = Self { server, directory };
        let begin = Instant::now();
        while !program("pg_isready").arg("-q").arg("-h").arg(postgres.directory.path()).status().unwrap().success() {
            assert!(begin.elapsed() < START_MAX, "the server does not answer: {}", postgres.log());
            std::thread::sleep(POLL);
        }
        postgres
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@localhost/postgres?host={}", self.directory.path().display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = program("pg_ctl").arg("stop").args(["-m", "immediate", "-D"]).arg(self.directory.path().join("data")).output();
        drop(stopped.map(|_| self.server.wait()));
    }
}

/// A program of the newest version that is installed, as a user that it accepts.
fn program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: `cargo xtask test --all` brings it");
    let newest: PathBuf = versions.map(|entry| entry.unwrap().path()).max().expect("a version of PostgreSQL");
    let path = newest.join("bin").join(name);
    if !runs_as_root() {
        return Command::new(path);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", USER, "--"]).arg(path).current_dir("/");
    command
}

fn runs_as_root() -> bool {
    fs::metadata(Path::new("/proc/self")).unwrap().uid() == 0
}
