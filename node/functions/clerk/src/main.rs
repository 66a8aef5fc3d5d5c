//! Does with files what each line of its input says, and writes a line about what came of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

const KIB: usize = 1024;

fn main() {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match act(words[0], words.get(1).unwrap_or(&""), words.get(2).unwrap_or(&"")) {
            Ok(text) => println!("{text}"),
            Err(error) => println!("{}", reason(&error)),
        }
    }
}

/// The words of the standard library of C, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn act(verb: &str, path: &str, other: &str) -> io::Result<String> {
    let number: u64 = other.parse().unwrap_or(0);
    let done = |()| "done".to_owned();
    match verb {
        "write" => fs::write(path, other).map(done),
        "append" => OpenOptions::new().append(true).open(path)?.write_all(other.as_bytes()).map(done),
        "new" => File::create_new(path).map(|_| "new".to_owned()),
        "read" => fs::read_to_string(path),
        "list" => list(path),
        "mkdir" => fs::create_dir(path).map(done),
        "mkdirs" => fs::create_dir_all(path).map(done),
        "rmdir" => fs::remove_dir(path).map(done),
        "clear" => fs::remove_dir_all(path).map(done),
        "rm" => fs::remove_file(path).map(done),
        "mv" => fs::rename(path, other).map(done),
        "link" => fs::hard_link(path, other).map(done),
        "size" => fs::metadata(path).map(|data| format!("{} {}", if data.is_dir() { "directory" } else { "file" }, data.len())),
        "resize" => OpenOptions::new().write(true).open(path)?.set_len(number).map(done),
        "patch" => patch(path, other),
        "copy" => fs::copy(path, other).map(|bytes| bytes.to_string()),
        "fill" => fill(path, number),
        "many" => many(path, number),
        "gone" => gone(path, other),
        "age" => age(path),
        "env" => Ok(std::env::var(path).unwrap_or_else(|_| "none".to_owned())),
        "read-all" => read_all(path),
        "spin" => spin(path),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn list(path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let mark = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(entry.file_name().to_string_lossy().into_owned() + mark);
    }
    names.sort();
    Ok(names.join(" "))
}

/// Writes in the middle, then at the end, and reads the whole with the same handle.
fn patch(path: &str, text: &str) -> io::Result<String> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(2))?;
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::End(3))?;
    file.write_all(b".")?;
    file.sync_all()?;
    file.rewind()?;
    let mut whole = String::new();
    file.read_to_string(&mut whole)?;
    Ok(whole.replace('\0', "_"))
}

/// Writes so many KiB; says how many went in, and what stood in the way of more.
fn fill(path: &str, kib: u64) -> io::Result<String> {
    let mut file = File::create(path)?;
    for number in 0..kib {
        if let Err(error) = file.write_all(&[b'x'; KIB]) {
            return Ok(format!("{number} {}", reason(&error)));
        }
    }
    Ok(kib.to_string())
}

/// Makes so many empty files.
fn many(path: &str, wanted: u64) -> io::Result<String> {
    for number in 0..wanted {
        if let Err(error) = File::create(format!("{path}/{number}")) {
            return Ok(format!("{number} {}", reason(&error)));
        }
    }
    Ok(wanted.to_string())
}

/// Goes on with a file whose name is gone.
fn gone(path: &str, text: &str) -> io::Result<String> {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    fs::remove_file(path)?;
    file.rewind()?;
    let mut whole = String::new();
    file.read_to_string(&mut whole)?;
    Ok(format!("{whole} {}", fs::exists(path)?))
}

fn age(path: &str) -> io::Result<String> {
    let file = OpenOptions::new().write(true).open(path)?;
    let recent = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age < Duration::from_secs(60));
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))?;
    let changed = fs::metadata(path)?.modified()?;
    Ok(format!("{recent} {}", changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()))
}

/// Reads a file of any length through one small buffer.
fn read_all(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    io::copy(&mut file, &mut io::sink()).map(|bytes| bytes.to_string())
}

/// Asks the host for something without end.
fn spin(path: &str) -> io::Result<String> {
    loop {
        fs::write(path, "again")?;
    }
}
