//! The claim on the boot partition: read at each boot, blanked once it has been used.
//!
//! What else stands in the file, which fleet and which address, is kept beside without the claim ([`super::operator_file`]): a slip of the pen,
//! or a file that was taken away, costs no box its fleet.

use super::boot_partition::BootPartition;
use super::files;
use super::operator_file::OperatorFile;
use anyhow::Context as _;
use sedge_protocol::Digest;
use sedge_provisioning::SshKey;
use sedge_provisioning::claim_file::{CLAIM_FILE, ClaimFile};
use sedge_provisioning::node_file::NODE_FILE_BYTES_MAX;
use sedge_store::durable;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The file.
const FILE: OperatorFile = OperatorFile {
    name: CLAIM_FILE,
    last_good: "claim.last-good.toml",
    fault: "claim-fault.txt",
    otherwise: "no fleet, and an address that it asks for by DHCP",
    outlives: true,
    keep,
};

/// Writes for the daemon and for the network what the file says; answers whose key may sign in. A fault of the file is an error after all was
/// done.
pub(super) fn take(boot: &BootPartition, claim: &Path, network: &Path) -> anyhow::Result<Option<SshKey>> {
    let (text, fault) = FILE.take(boot, |text| ClaimFile::parse(text).map(drop))?;
    let file = text.map(|text| publish(&text, claim, network)).transpose()?;
    match fault {
        Some(fault) => Err(anyhow::Error::msg(fault)),
        None => Ok(file.and_then(|file| file.debug_login)),
    }
}

/// The fleet and the network. Neither a claim, which is used once, nor a key that opens the box, which shall be gone when its line is.
fn keep(text: &str) -> String {
    let Ok(mut file) = ClaimFile::parse(text) else { return String::new() };
    (file.fleet.claim, file.debug_login) = (None, None);
    file.to_toml()
}

fn publish(text: &str, claim: &Path, network: &Path) -> anyhow::Result<ClaimFile> {
    let file = ClaimFile::parse(text)?;
    if let Some(settings) = &file.network {
        fs::create_dir_all(network.parent().unwrap_or(Path::new("/"))).context("the directory of network units")?;
        durable::replace(network, settings.unit().as_bytes())?;
    }
    show(claim, text)?;
    Ok(file)
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

/// Blanks the claim in its place, when it is the one that was used, as far as that is known. Without one nothing is written.
pub(super) fn erase(boot: &Path, used: Option<Digest>) -> anyhow::Result<()> {
    let Some(bytes) = files::read(&boot.join(CLAIM_FILE), NODE_FILE_BYTES_MAX)? else { return Ok(()) };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
    let Some(blanked) = without_claim(text) else { return Ok(()) };
    let found = ClaimFile::parse(text.trim_start_matches('\u{feff}')).ok().and_then(|file| file.fleet.claim);
    let found = found.map(|claim| Digest::of(claim.trim().as_bytes()));
    if used.is_some() && found.is_some() && used != found {
        log::warn!(
            "the box is in its fleet and has no use for the claim in {CLAIM_FILE}: it stays there, unused; `sedge node revoke` or `rm` lets go of the box"
        );
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A box: its boot partition and what is published.
    struct Place {
        boot: TempDir,
        run: TempDir,
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk";

    fn claim(more: &str) -> String {
        format!("[fleet]\nurl = 'https://f:1'\nca_pin = '{}'\nclaim = 'secret'\n{more}", Digest::of(b"ca"))
    }

    impl Place {
        fn new() -> Self {
            Self { boot: tempfile::tempdir().unwrap(), run: tempfile::tempdir().unwrap() }
        }

        fn put(&self, bytes: impl AsRef<[u8]>) {
            fs::write(self.boot.path().join(CLAIM_FILE), bytes).unwrap();
        }

        /// A boot: whose key signs in, or what is wrong.
        fn boot(&self) -> Result<Option<SshKey>, String> {
            for name in ["claim.toml", "units/10-claim.network"] {
                files::remove(&self.run.path().join(name)).unwrap();
            }
            let partition = BootPartition::new(self.boot.path(), Path::new("/nowhere"));
            let took = take(&partition, &self.run.path().join("claim.toml"), &self.run.path().join("units/10-claim.network"));
            let took = took.map_err(|error| error.to_string());
            let fault = fs::read_to_string(self.boot.path().join(FILE.fault)).ok();
            assert_eq!(took.clone().err(), fault, "who reads the log knows as much as who reads the card");
            took
        }

        /// What is published for the daemon and for the network.
        fn published(&self) -> (Option<String>, Option<String>) {
            let read = |name| fs::read_to_string(self.run.path().join(name)).ok();
            (read("claim.toml"), read("units/10-claim.network"))
        }
    }

    #[test]
    fn a_claim_is_published_and_blanked_once_it_was_used() {
        let place = Place::new();
        assert_eq!((place.boot(), place.published()), (Ok(None), (None, None)));
        erase(place.boot.path(), None).unwrap();
        let text = claim("[network]\naddress = ['10.0.0.2/24']\n");
        place.put(format!("\u{feff}{text}"));
        place.boot().unwrap();
        let (found, unit) = place.published();
        assert_eq!(found.as_deref(), Some(text.as_str()));
        assert!(unit.unwrap().contains("Address=10.0.0.2/24"));
        assert_eq!(fs::metadata(place.run.path().join("claim.toml")).unwrap().mode() & 0o777, 0o640);
        erase(place.boot.path(), Some(Digest::of(b"of before"))).unwrap();
        place.boot().unwrap();
        assert_eq!(place.published().0.as_deref(), Some(text.as_str()), "a claim that was not used stays");
        erase(place.boot.path(), Some(Digest::of(b"secret"))).unwrap();
        erase(place.boot.path(), None).unwrap();
        place.boot().unwrap();
        let blank = place.published().0.unwrap();
        assert!(!blank.contains("secret") && blank.len() == text.len());
        assert_eq!(ClaimFile::parse(&blank).unwrap().fleet.claim, None);
        let kept = fs::read_to_string(place.boot.path().join(FILE.last_good)).unwrap();
        assert!(!kept.contains("secret"), "{kept}");
    }

    #[test]
    fn a_fault_costs_no_box_its_fleet_and_its_address() {
        let place = Place::new();
        let network = "[network]\naddress = ['10.0.0.2/24']\n";
        place.put("[fleet]\nurl = 1\n");
        let fault = place.boot().unwrap_err();
        assert!(fault.contains("claim.toml:2") && fault.contains("runs with no fleet"), "{fault}");
        assert_eq!(place.published(), (None, None));
        place.put(claim(network));
        place.boot().unwrap();
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(claim(network).encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let slip = claim(&format!("{network}[debug]\nlogin = 'ssh-ed25519 AAAA me@desk'\n"));
        for (bad, said) in [
            (slip.into_bytes(), "claim.toml:8: `debug.login`: the key after `ssh-ed25519` is cut off"),
            (utf16, "claim.toml: it is not UTF-8 text"),
            (vec![b' '; 70_000], "claim.toml: it has more than 65536 bytes"),
        ] {
            place.put(bad);
            for _ in 0..2 {
                let fault = place.boot().unwrap_err();
                assert!(fault.starts_with(said) && fault.contains("as it was before, claim.last-good.toml"), "{fault}");
                let (found, unit) = place.published();
                let file = ClaimFile::parse(&found.unwrap()).unwrap();
                assert_eq!((file.fleet.url.as_str(), file.fleet.claim), ("https://f:1", None));
                assert!(unit.unwrap().contains("Address=10.0.0.2/24"));
            }
        }
        // Also one that is taken away, and then nothing is wrong.
        fs::remove_file(place.boot.path().join(CLAIM_FILE)).unwrap();
        assert_eq!(place.boot(), Ok(None));
        assert!(place.published().0.unwrap().contains("https://f:1"));
    }

    #[test]
    fn a_key_signs_in_for_as_long_as_its_line_is_there() {
        let place = Place::new();
        place.put(claim(&format!("[debug]\nlogin = '{KEY}'\n")));
        assert_eq!(place.boot().unwrap().unwrap().to_string(), KEY);
        place.put(claim(""));
        assert_eq!(place.boot(), Ok(None));
        place.put(claim(&format!("[debug]\nlogin = '{KEY}'\n")));
        place.boot().unwrap();
        fs::remove_file(place.boot.path().join(CLAIM_FILE)).unwrap();
        assert_eq!(place.boot(), Ok(None));
    }
}
