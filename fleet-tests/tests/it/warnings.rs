//! What keeps the warnings of a box on its data partition, with a journal of our own.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::artifact;
use fleet_tests::process::run;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Room of one file.
const BYTES_MAX: u64 = 1000;

/// Runs the keeper of warnings on a journal that says `lines`, then ends.
fn keep(lines: &str, directory: &Path) -> Result<()> {
    let (programs, script) = (directory.join("bin"), artifact::repository().join("image/tree/usr/lib/sedge/keep-warnings"));
    fs::create_dir_all(&programs)?;
    fs::write(directory.join("lines"), lines)?;
    let journal = programs.join("journalctl");
    fs::write(&journal, format!("#!/bin/sh\nexec cat {}\n", directory.join("lines").display()))?;
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let ended = run(Command::new(script).arg(directory.join("log")).arg(BYTES_MAX.to_string()).env("PATH", path))?;
    anyhow::ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

#[test]
fn warnings_take_two_files_at_most_and_the_newest_stay() -> Result<()> {
    let directory = directory()?;
    let log = directory.path().join("log");
    keep("one \\n of `old` $HOME\n", directory.path())?;
    assert_eq!(fs::read_to_string(log.join("warnings"))?, "one \\n of `old` $HOME\n");
    let lines: String = (0..500).map(|number| format!("warning {number}\n")).collect();
    keep(&lines, directory.path())?;
    let (newest, before) = (fs::read_to_string(log.join("warnings"))?, fs::read_to_string(log.join("warnings.1"))?);
    assert!(newest.ends_with("warning 499\n") && lines.ends_with(&format!("{before}{newest}")), "{before}{newest}");
    for text in [newest, before] {
        assert!(text.len() as u64 <= BYTES_MAX + 20, "{} bytes", text.len());
    }
    assert_eq!(fs::read_dir(log)?.count(), 2);
    Ok(())
}
