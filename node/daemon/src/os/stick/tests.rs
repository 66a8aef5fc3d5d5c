use super::*;
use crate::bundle::tests::{WASM, grant};
use sedge_provisioning::{Authority, bundle as format};

/// A box with a stick in it.
struct Bench {
    directory: tempfile::TempDir,
    arguments: Arguments,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["usb", "data/sedge"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let restart = ["touch", at("restarted").to_str().unwrap()].map(str::to_owned).to_vec();
        let arguments = Arguments { device: at("usb"), mount_point: at("none"), data: at("data"), claim: at("claim.toml"), restart };
        Self { directory, arguments }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.arguments.device.join(name), bytes).unwrap();
    }

    fn copy(&self) -> Option<Vec<u8>> {
        fs::read(self.arguments.data.join(COPY)).ok()
    }

    /// What is said on the stick after it was looked at.
    fn fault(&self) -> String {
        self.arguments.look().unwrap_err();
        fs::read_to_string(self.arguments.device.join(FAULT_FILE)).unwrap()
    }
}

fn authority() -> Authority {
    Authority::create(1_800_000_000_000).unwrap()
}

fn whole(authority: &Authority) -> Vec<u8> {
    [&format::head(authority, &grant()).unwrap(), WASM].concat()
}

#[test]
fn the_one_bundle_of_a_stick_is_copied_and_the_daemon_restarted() {
    let bench = Bench::new();
    assert_eq!(bench.arguments.look().unwrap(), Outcome::None, "an empty stick");
    let bytes = whole(&authority());
    bench.put("BARN.SEDGE-CLAIM", &[&bytes, b"and what a card reader adds".as_slice()].concat());
    bench.put("._BARN.SEDGE-CLAIM", b"of another system");
    bench.put("photo.jpg", b"x");
    bench.put(FAULT_FILE, b"of another box");
    assert_eq!(bench.arguments.attend().unwrap(), Outcome::Copied);
    assert_eq!(bench.copy().as_deref(), Some(bytes.as_slice()));
    assert!(bench.directory.path().join("restarted").exists() && !bench.arguments.device.join(FAULT_FILE).exists());
    forget(&bench.arguments.data).unwrap();
    forget(&bench.arguments.data).unwrap();
    assert_eq!(bench.copy(), None);
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_said_on_the_stick() {
    let bench = Bench::new();
    let good = whole(&authority());
    bench.put("a.sedge-claim", &good);
    assert_eq!(bench.arguments.look().unwrap(), Outcome::Copied);
    for (bytes, said) in [
        (good[..good.len() - 1].to_vec(), "cut off"),
        (good[..40].to_vec(), "cut off"),
        ([&good[..good.len() - 1], b"!"].concat(), "damaged on its way"),
        (b"a photo of the barn".to_vec(), "not a bundle"),
        (Vec::new(), "cut off"),
    ] {
        bench.put("a.sedge-claim", &bytes);
        let fault = bench.fault();
        assert!(fault.starts_with("a.sedge-claim: ") && fault.contains(said), "{fault}");
        assert_eq!(bench.copy().as_deref(), Some(good.as_slice()));
    }
    bench.put("b.sedge-claim", &good);
    assert!(bench.fault().contains("2 files end in .sedge-claim"));
    fs::remove_file(bench.arguments.device.join("a.sedge-claim")).unwrap();
    assert_eq!(bench.arguments.look().unwrap(), Outcome::Copied);
    assert!(!bench.arguments.device.join(FAULT_FILE).exists(), "nothing is wrong any more");
}

#[test]
fn a_box_that_was_given_to_a_fleet_takes_no_bundle_of_another() {
    let (bench, ours, theirs) = (Bench::new(), authority(), authority());
    let claim = format!("[fleet]\nurl = 'https://f:1'\nca_pin = '{}'\n", ours.pin());
    fs::write(&bench.arguments.claim, claim).unwrap();
    bench.put("a.sedge-claim", &whole(&theirs));
    assert!(bench.fault().contains("of another fleet"));
    bench.put("a.sedge-claim", &whole(&ours));
    assert_eq!(bench.arguments.look().unwrap(), Outcome::Copied);
}

#[test]
fn a_box_in_a_fleet_looks_at_no_stick() {
    let bench = Bench::new();
    bench.put("a.sedge-claim", &whole(&authority()));
    let identity = |granted: &str| {
        let text = format!(r#"{{"ca_pin": "{}", "key": "k", "granted": {granted}}}"#, Digest::of(b"ca"));
        fs::write(bench.arguments.data.join("sedge/identity.json"), text).unwrap();
    };
    identity(r#"{"certificate": "c", "ca": "a", "sync": "f:2"}"#);
    assert_eq!(bench.arguments.attend().unwrap(), Outcome::InFleet);
    assert_eq!(bench.copy(), None);
    identity("null");
    assert_eq!(bench.arguments.attend().unwrap(), Outcome::Copied);
    assert!(bench.copy().is_some(), "a key alone is no fleet");
}
