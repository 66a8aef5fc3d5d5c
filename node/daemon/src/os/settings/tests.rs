use super::*;
use sedge_provisioning::node_file;
use std::os::unix::fs::MetadataExt as _;
use tempfile::TempDir;

/// A box: its boot partition, its image's settings, and what is published.
struct Place {
    boot: TempDir,
    run: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { boot: tempfile::tempdir().unwrap(), run: tempfile::tempdir().unwrap() };
        fs::write(place.run.path().join("image.toml"), node_file::IMAGE_SETTINGS).unwrap();
        place
    }

    fn put(&self, bytes: impl AsRef<[u8]>) {
        fs::write(self.boot.path().join(NODE_FILE), bytes).unwrap();
    }

    /// A boot: what is laid over, what stands in the file of faults.
    fn boot(&self) -> (Option<String>, Option<String>) {
        let partition = BootPartition::new(self.boot.path(), Path::new("/nowhere"));
        let over = self.run.path().join("settings.toml");
        let took = take(&partition, &self.run.path().join("image.toml"), &over);
        let fault = fs::read_to_string(self.boot.path().join(FILE.fault)).ok();
        assert_eq!(took.err().map(|error| error.to_string()), fault, "who reads the log knows as much as who reads the card");
        (fs::read_to_string(over).ok(), fault)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.boot.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const GOOD: &str = "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.users]\nsensor = 'reading'\n";

#[test]
fn a_good_file_is_taken_and_one_that_is_gone_leaves_nothing() {
    let place = Place::new();
    assert_eq!((place.boot(), place.names()), ((None, None), vec![]));
    place.put(format!("\u{feff}{GOOD}"));
    for _ in 0..2 {
        assert_eq!(place.boot(), (Some(GOOD.to_owned()), None));
        assert_eq!(place.names(), [FILE.last_good, NODE_FILE]);
    }
    assert_eq!(fs::metadata(place.run.path().join("settings.toml")).unwrap().mode() & 0o777, 0o640, "there are passwords in it");
    fs::remove_file(place.boot.path().join(NODE_FILE)).unwrap();
    assert_eq!((place.boot(), place.names()), ((None, None), vec![]));
}

#[test]
fn a_bad_file_changes_nothing_and_every_fault_is_listed_with_its_line() {
    let place = Place::new();
    place.put("data_dir = '/tmp'\n[mqtt]\nlisten = '0.0.0.0:1883'\nlissten = 1\n");
    let (over, fault) = place.boot();
    let fault = fault.unwrap();
    assert_eq!(over, None);
    for part in [
        "sedged.toml:1: `data_dir` cannot be set here",
        "sedged.toml:3: `mqtt.listen`: beyond loopback",
        "sedged.toml:4: unknown key `mqtt.lissten`",
        "the settings of the image",
    ] {
        assert!(fault.contains(part), "{part}: {fault}");
    }
    place.put(GOOD);
    assert_eq!((place.boot(), place.names()), ((Some(GOOD.to_owned()), None), vec![FILE.last_good.to_owned(), NODE_FILE.to_owned()]));
    for bad in [&b"[mqtt\n"[..], &[0xff, 0xfe], &[b' '; 70_000]] {
        place.put(bad);
        for _ in 0..2 {
            let (over, fault) = place.boot();
            assert_eq!(over.as_deref(), Some(GOOD));
            assert!(fault.unwrap().contains(FILE.last_good));
        }
    }
    // One that this version does not take any more is not laid over, and stays for another version.
    fs::write(place.boot.path().join(FILE.last_good), "former = 1\n").unwrap();
    let (over, fault) = place.boot();
    assert!(over.is_none() && fault.unwrap().contains("the settings of the image"));
    assert!(place.names().contains(&FILE.last_good.to_owned()));
}

#[test]
fn a_cut_while_it_is_noted_is_made_good_at_the_next_boot() {
    let place = Place::new();
    place.put(GOOD);
    fs::write(place.boot.path().join(format!("{}.new", FILE.last_good)), "[mq").unwrap();
    assert_eq!(place.boot(), (Some(GOOD.to_owned()), None));
    assert_eq!(place.names(), [FILE.last_good, NODE_FILE]);
}

#[test]
fn who_may_sign_in_and_what_is_open_is_what_was_said_last() {
    let run = tempfile::tempdir().unwrap();
    let (keys, ports) = (run.path().join("login/authorized_keys"), run.path().join("ports.nft"));
    let key: SshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk".parse().unwrap();
    admit(&keys, Some(&key)).unwrap();
    assert_eq!(fs::read_to_string(&keys).unwrap(), format!("{key}\n"));
    assert_eq!(fs::metadata(keys.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    open(&ports, &[80, 9090], true).unwrap();
    assert_eq!(fs::read_to_string(&ports).unwrap(), "add element inet sedge opened { 80, 9090, 22 }\n");
    admit(&keys, None).unwrap();
    open(&ports, &[], false).unwrap();
    assert!(!keys.exists() && !ports.exists());
}
