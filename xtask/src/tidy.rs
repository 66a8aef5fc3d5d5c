//! `cargo xtask tidy`: what no compiler checks. Files stay short, one word means one thing, nothing is postponed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{progress, workspace};

/// Longest file, its tests included.
const FILE_LINES_MAX: usize = 600;
/// Words that mean something else here, and the one that is meant.
const SYNONYMS: [(&str, &str); 3] = [("deployment", "rollout"), ("job", "rollout or invocation"), ("agent", "node")];
/// Macros that postpone work.
const POSTPONED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];
/// Directories with sources of ours.
const SOURCES: [&str; 6] = ["node", "ota", "provisioning", "fleet-tests", "xtask", "image"];

/// Looks at every source file.
pub(crate) fn run() -> Result<ExitCode> {
    let mut faults = Vec::new();
    let mut count = 0;
    for dir in SOURCES {
        for path in sources(&workspace::root().join(dir))? {
            // This file has to name the words.
            if path.ends_with("xtask/src/tidy.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
            faults.extend(faults_of(&text).into_iter().map(|fault| format!("{}{fault}", shown.display())));
            count += 1;
        }
    }
    faults.iter().for_each(|fault| progress::say(fault));
    progress::say(&format!("{count} files, {} faults", faults.len()));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every Rust file below `dir`, built ones left out.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let path = entry.path();
            match entry.file_type()?.is_dir() {
                true if entry.file_name() != "target" => open.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                true | false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `:line: what is wrong`, for each fault.
fn faults_of(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!(": {lines} lines, at most {FILE_LINES_MAX}: split it"));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        for (word, meant) in SYNONYMS {
            // `agent` is also the word of the HTTP client library.
            let borrowed = word == "agent" && text.contains("ureq");
            if !borrowed && words(line).any(|other| other == word || other.strip_suffix('s') == Some(word)) {
                faults.push(format!(":{number}: `{word}`: say {meant}"));
            }
        }
        if let Some(postponed) = POSTPONED.iter().find(|postponed| line.contains(**postponed)) {
            faults.push(format!(":{number}: `{postponed}`: finish it"));
        }
    }
    faults
}

/// The words of a line in lower case, identifiers taken apart: `FleetAgent::job_id` is fleet, agent, job, id.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for letter in line.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && lower) {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        lower = letter.is_lowercase();
    }
    words.into_iter().filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_taken_apart() {
        let found: Vec<String> = words("let x = FleetAgent::job_id(); // a Deployment").collect();
        assert_eq!(found, ["let", "x", "fleet", "agent", "job", "id", "a", "deployment"]);
    }

    #[test]
    fn faults_name_the_line() {
        assert_eq!(faults_of("fn a() {}\nfn run_jobs() {}\n"), [":2: `job`: say rollout or invocation"]);
        assert_eq!(faults_of("fn a() { todo!() }"), [":1: `todo!`: finish it"]);
        assert_eq!(faults_of("use ureq::Agent;"), Vec::<String>::new());
        assert_eq!(faults_of("reagents and jobless"), Vec::<String>::new());
        assert_eq!(faults_of(&"\n".repeat(FILE_LINES_MAX + 1)), [": 601 lines, at most 600: split it"]);
        assert!(faults_of(&"\n".repeat(FILE_LINES_MAX)).is_empty());
    }
}
