//! The claim on the boot partition: read at each boot, blanked once it has been used.

use super::files;
use anyhow::Context as _;
use sedge_protocol::strict::Faults;
use sedge_provisioning::claim_file::{CLAIM_FILE, ClaimFile};
use sedge_store::durable;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Longest file that is looked at, bytes.
const BYTES_MAX: u64 = 64 * 1024;
/// What a fault is written to, beside the claim.
const FAULT_FILE: &str = "claim-fault.txt";

/// The file as it is; none when the operator has put none there.
fn bytes(boot: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(bytes) = files::read(&boot.join(CLAIM_FILE), BYTES_MAX)? else { return Ok(None) };
    anyhow::ensure!(bytes.len() as u64 <= BYTES_MAX, "{CLAIM_FILE} has more than {BYTES_MAX} bytes");
    Ok(Some(bytes))
}

/// The file's text.
pub(super) fn read(boot: &Path) -> anyhow::Result<Option<String>> {
    let Some(bytes) = bytes(boot)? else { return Ok(None) };
    // Editors of other systems put a mark before the first character.
    let text = String::from_utf8(bytes).with_context(|| format!("{CLAIM_FILE} is not UTF-8 text"))?;
    Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
}

/// Writes for the daemon and for the network what the file says. The inner error is what is wrong in it.
pub(super) fn publish(text: &str, claim: &Path, network: &Path) -> anyhow::Result<Result<ClaimFile, Faults>> {
    let file = match ClaimFile::parse(text) {
        Ok(file) => file,
        Err(faults) => return Ok(Err(faults)),
    };
    if let Some(settings) = &file.network {
        fs::create_dir_all(network.parent().unwrap_or(Path::new("/"))).context("the directory of network units")?;
        durable::replace(network, settings.unit().as_bytes())?;
    }
    show(claim, text)?;
    Ok(Ok(file))
}

/// Writes a file that the daemon may read and nobody else.
pub(super) fn show(path: &Path, text: &str) -> anyhow::Result<()> {
    durable::replace_private(path, text.as_bytes())?;
    // The directory belongs to the group that may read it.
    let group =
        fs::metadata(path.parent().unwrap_or(Path::new("/"))).with_context(|| format!("the directory of {}", path.display()))?.gid();
    std::os::unix::fs::chown(path, None, Some(group)).with_context(|| format!("the group of {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(path, mode).with_context(|| format!("the mode of {}", path.display()))
}

/// Blanks the claim in its place. Without one nothing is written.
pub(super) fn erase(boot: &Path) -> anyhow::Result<()> {
    let Some(bytes) = bytes(boot)? else { return Ok(()) };
    let Some(blanked) = std::str::from_utf8(&bytes).ok().and_then(without_claim) else { return Ok(()) };
    let mut file = File::options().write(true).open(boot.join(CLAIM_FILE)).context(CLAIM_FILE)?;
    file.write_all(blanked.as_bytes()).and_then(|()| file.sync_all()).context(CLAIM_FILE)?;
    log::info!("the claim was used and is blanked on the boot partition");
    Ok(())
}

fn without_claim(text: &str) -> Option<String> {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => ClaimFile::without_claim(rest).map(|rest| format!("\u{feff}{rest}")),
        None => ClaimFile::without_claim(text),
    }
}

/// Whether something was wrong with a claim of before.
pub(super) fn is_explained(boot: &Path) -> bool {
    boot.join(FAULT_FILE).exists()
}

/// Takes that away.
pub(super) fn explain_no_more(boot: &Path) -> anyhow::Result<()> {
    fs::remove_file(boot.join(FAULT_FILE)).context(FAULT_FILE)
}

/// Says beside the claim what is wrong with it.
pub(super) fn explain(boot: &Path, faults: &str) -> anyhow::Result<()> {
    let path = boot.join(FAULT_FILE);
    let text = format!("{faults}\n");
    if fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let mut file = File::create(&path).context(FAULT_FILE)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context(FAULT_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::Digest;

    fn claim(more: &str) -> String {
        format!("[fleet]\nurl = 'https://f:1'\nca_pin = '{}'\nclaim = 'secret'\n{more}", Digest::of(b"ca"))
    }

    #[test]
    fn a_claim_is_published_and_blanked_once_it_was_used() {
        let (boot, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(read(boot.path()).unwrap(), None);
        erase(boot.path()).unwrap();
        let text = claim("[network]\naddress = ['10.0.0.2/24']\n");
        fs::write(boot.path().join(CLAIM_FILE), format!("\u{feff}{text}")).unwrap();
        let found = read(boot.path()).unwrap().unwrap();
        assert_eq!(found, text);
        let (to, unit) = (run.path().join("claim.toml"), run.path().join("units/10-claim.network"));
        publish(&found, &to, &unit).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), text);
        assert!(fs::read_to_string(&unit).unwrap().contains("Address=10.0.0.2/24"));
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o640);
        erase(boot.path()).unwrap();
        erase(boot.path()).unwrap();
        let blank = read(boot.path()).unwrap().unwrap();
        assert!(!blank.contains("secret") && blank.len() == text.len());
        assert_eq!(ClaimFile::parse(&blank).unwrap().fleet.claim, None);
    }

    #[test]
    fn a_key_that_is_none_is_a_fault_with_its_line_and_nobody_signs_in() {
        let boot = tempfile::tempdir().unwrap();
        let publish = |debug: &str| publish(&claim(debug), &boot.path().join("c"), &boot.path().join("n")).unwrap();
        let faults = publish("[debug]\nlogin = 'ssh-ed25519 AAAA me@desk'\n").unwrap_err().to_string();
        assert!(faults.starts_with("claim.toml:6: `debug.login`: the key after `ssh-ed25519` is cut off"), "{faults}");
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk";
        let file = publish(&format!("[debug]\nlogin = '{key}'\n")).unwrap();
        assert_eq!(file.debug_login.unwrap().to_string(), key);
        assert_eq!(publish("").unwrap().debug_login, None);
    }

    #[test]
    fn what_is_wrong_is_said_beside_the_claim() {
        let boot = tempfile::tempdir().unwrap();
        let faults = publish("[fleet]\nurl = 1\n", &boot.path().join("c"), &boot.path().join("n")).unwrap().unwrap_err();
        explain(boot.path(), &faults.to_string()).unwrap();
        explain(boot.path(), &faults.to_string()).unwrap();
        assert!(fs::read_to_string(boot.path().join(FAULT_FILE)).unwrap().contains("claim.toml:2"));
        assert!(is_explained(boot.path()));
        explain_no_more(boot.path()).unwrap();
        assert!(!is_explained(boot.path()));
        fs::write(boot.path().join(CLAIM_FILE), vec![b' '; 70_000]).unwrap();
        assert!(read(boot.path()).is_err());
        fs::write(boot.path().join(CLAIM_FILE), [0xff, 0xfe]).unwrap();
        assert!(read(boot.path()).unwrap_err().to_string().contains("UTF-8"));
    }
}
