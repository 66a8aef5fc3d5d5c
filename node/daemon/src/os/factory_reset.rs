//! Factory reset: a file on the boot partition, which every computer that reads the card can write.
//!
//! ```text
//! request found ─▶ data partition mounted ─▶ everything on it erased, the identity last or not at all ─▶ on the disk ─▶ request removed
//!                       │ not there: asked again at the next boot
//! ```
//! A power cut at any point leaves the request, so the next boot begins anew; nothing runs before it is through.

use super::boot_partition::BootPartition;
use super::files;
use crate::vault;
use anyhow::{Context as _, ensure};
use sedge_protocol::strict::{Fault, Faults, Reader};
use sedge_provisioning::node_file;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The request; editors of other systems add an ending.
const REQUESTS: [&str; 2] = ["factory-reset", "factory-reset.txt"];
/// What a fault is written to, beside the request.
const FAULT_FILE: &str = "factory-reset-fault.txt";
/// The daemon's directory on the data partition: in it are keys and certificates, and the fleet that a bundle has named.
const DATA_DIR: &str = "sedge";
const FLEET: &str = "fleet.json";
/// A directory of the file system's own.
const LOST_AND_FOUND: &str = "lost+found";
/// How long the data partition may take: it may have to be made, checked or repaired.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How much goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All but key and certificate: the node stays in its fleet.
    KeepIdentity,
    /// All: the node needs a new claim.
    Everything,
}

impl Extent {
    /// An empty file keeps the identity; `factory-reset = "everything"` does not.
    fn parse(text: &str) -> Result<Self, Faults> {
        let reader = Reader::new(REQUESTS[0], text)?;
        let root = reader.root();
        let extent = match root.text(REQUESTS[0]).as_deref() {
            None | Some("keep-identity") => Some(Self::KeepIdentity),
            Some("everything") => Some(Self::Everything),
            Some(other) => {
                root.reject(REQUESTS[0], format!("`{other}` is neither \"everything\" nor \"keep-identity\""));
                None
            }
        };
        root.finish();
        reader.finish(extent)
    }
}

/// Erases what is asked for. Without a request nothing is written.
pub(super) fn carry_out(boot: &BootPartition, data: &Path) -> anyhow::Result<()> {
    let Some(extent) = requested(boot)? else { return Ok(()) };
    mounted(data, PATIENCE)?;
    erase(data, extent)?;
    let root = File::open(data).with_context(|| format!("open {}", data.display()))?;
    rustix::fs::syncfs(&root).context("sync the data partition")?;
    boot.write(remove_request)?;
    log::warn!(extent:? = extent; "factory reset: the data partition is empty");
    Ok(())
}

fn requested(boot: &BootPartition) -> anyhow::Result<Option<Extent>> {
    let Some(text) = boot.read(request)? else { return Ok(None) };
    match text.and_then(|text| Extent::parse(&text)) {
        Ok(extent) => Ok(Some(extent)),
        // Whoever looks at the card on another machine shall see why.
        Err(faults) => {
            boot.write(|boot| files::replace(&boot.join(FAULT_FILE), format!("{faults}\n").as_bytes()))?;
            Err(faults.into())
        }
    }
}

/// The text of the request; a file that is no text is one with a fault.
fn request(boot: &Path) -> anyhow::Result<Option<Result<String, Faults>>> {
    for name in REQUESTS {
        if let Some(bytes) = files::read(&boot.join(name), node_file::NODE_FILE_BYTES_MAX)? {
            let whole = |message| Faults { file: name.to_owned(), list: vec![Fault { line: 0, message }] };
            return Ok(Some(node_file::text(bytes).map_err(whole)));
        }
    }
    Ok(None)
}

fn remove_request(boot: &Path) -> anyhow::Result<()> {
    REQUESTS.into_iter().chain([FAULT_FILE]).try_for_each(|name| files::remove(&boot.join(name)))
}

/// Waits until something is mounted there.
fn mounted(data: &Path, patience: Duration) -> anyhow::Result<()> {
    let device = |path: &Path| fs::metadata(path).with_context(|| format!("look at {}", path.display())).map(|found| found.dev());
    let begin = Instant::now();
    while device(data)? == device(data.parent().unwrap_or(data))? {
        ensure!(begin.elapsed() < patience, "nothing is mounted at {}: factory reset is tried again at the next boot", data.display());
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Erases the content of the directory.
fn erase(data: &Path, extent: Extent) -> anyhow::Result<()> {
    let mut kept = vec![data.join(LOST_AND_FOUND)];
    if extent == Extent::KeepIdentity {
        kept.extend(identities(&data.join(DATA_DIR))?);
    }
    erase_but(data, &kept)
}

/// What makes the box the node that it is.
fn identities(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let names = names.with_context(|| format!("read {}", directory.display()))?;
    let is_kept = |name: &str| name == FLEET || vault::is_identity(name);
    Ok(names.iter().filter(|entry| entry.file_name().to_str().is_some_and(is_kept)).map(fs::DirEntry::path).collect())
}

/// Removes what is below a directory but `kept` and the directories that lead there.
fn erase_but(directory: &Path, kept: &[PathBuf]) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        if kept.contains(&path) {
            continue;
        }
        let is_directory = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?.is_dir();
        let removed = match is_directory {
            true if kept.iter().any(|kept| kept.starts_with(&path)) => {
                erase_but(&path, kept)?;
                continue;
            }
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for path in ["sedge/identity.json", "sedge/identity.aside-1.json", "sedge/state/db", "log/warnings", "lost+found/x", "other"] {
            let path = data.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", data.path().join("sedge/link")).unwrap();
        data
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_identity_stays_unless_told_otherwise() {
        let data = data();
        for _ in 0..2 {
            erase(data.path(), Extent::KeepIdentity).unwrap();
            assert_eq!(
                (names(data.path()), names(&data.path().join("sedge"))),
                (vec!["lost+found".into(), "sedge".into()], vec!["identity.aside-1.json".into(), "identity.json".into()])
            );
        }
        erase(data.path(), Extent::Everything).unwrap();
        assert_eq!(names(data.path()), ["lost+found"]);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_request_says_how_much_or_is_refused() {
        for (text, expected) in [
            ("", Some(Extent::KeepIdentity)),
            ("# please\n", Some(Extent::KeepIdentity)),
            ("factory-reset = \"keep-identity\"\n", Some(Extent::KeepIdentity)),
            ("factory-reset = \"everything\"\n", Some(Extent::Everything)),
            ("factory-reset = \"all\"\n", None),
            ("everything\n", None),
            ("other = 1\n", None),
        ] {
            assert_eq!(Extent::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_request_is_found_by_either_name_and_goes_once_it_was_done() {
        let boot = tempfile::tempdir().unwrap();
        assert!(request(boot.path()).unwrap().is_none());
        remove_request(boot.path()).unwrap();
        fs::write(boot.path().join("factory-reset.txt"), "\u{feff}# x").unwrap();
        fs::write(boot.path().join(FAULT_FILE), "of before").unwrap();
        assert_eq!(request(boot.path()).unwrap().unwrap().unwrap(), "# x");
        remove_request(boot.path()).unwrap();
        assert_eq!(names(boot.path()), [""; 0]);
    }

    #[test]
    fn a_request_that_is_no_text_is_refused_beside_it() {
        let boot = tempfile::tempdir().unwrap();
        let partition = BootPartition::new(boot.path(), Path::new("/nowhere"));
        for (bytes, expected) in [(vec![0xff, 0xfe, b'a', 0], "UTF-8"), (vec![b'#'; 70_000], "bytes")] {
            fs::write(boot.path().join("factory-reset.txt"), bytes).unwrap();
            assert!(requested(&partition).is_err());
            let fault = fs::read_to_string(boot.path().join(FAULT_FILE)).unwrap();
            assert!(fault.starts_with("factory-reset.txt: ") && fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn what_is_not_mounted_is_not_erased() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        assert!(mounted(&data, Duration::ZERO).unwrap_err().to_string().contains("next boot"));
        mounted(Path::new("/proc"), Duration::ZERO).unwrap();
    }
}
