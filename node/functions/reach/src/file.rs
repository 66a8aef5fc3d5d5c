//! Files of the artifact.

use std::fs::{self, File};
use std::io::Write;

use crate::Outcome;

const KIB: usize = 1024;

pub(crate) fn read(path: &str) -> Outcome {
    fs::read(path).map_err(|error| error.to_string())
}

pub(crate) fn list(path: &str) -> Outcome {
    let entries = fs::read_dir(path).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names.join(" ").into_bytes())
}

/// Writes so many KiB into one file; answers how many went in, and what stood in the way of more.
pub(crate) fn write(path: &str, kib: &str) -> Outcome {
    let mut file = File::create(path).map_err(|error| error.to_string())?;
    let wanted: usize = kib.parse().unwrap_or(0);
    for number in 0..wanted {
        if let Err(error) = file.write_all(&[b'x'; KIB]).and_then(|()| file.flush()) {
            return Ok(format!("{number}: {error}").into_bytes());
        }
    }
    Ok(wanted.to_string().into_bytes())
}
