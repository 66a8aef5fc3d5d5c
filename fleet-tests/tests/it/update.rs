//! Updates of the operating system: a real fleet, a real node and keeper; slots and boot partition are files.

use crate::support::{directory, function};
use anyhow::Result;
use fleet_tests::cli::sedge;
use fleet_tests::gateway::{BOARD, Version};
use fleet_tests::{Fleet, Gateway, artifact, until};
use rand::RngExt as _;
use sedge_bundle::{Head, SigningKey, Unproven};
use sedge_protocol::api::{Image, ImageRollout, ImageRolloutState, Node};
use sedge_protocol::image::OsPhase;
use std::path::Path;
use tempfile::TempDir;

/// Power cuts of the test of power cuts.
const CUTS: usize = 12;

fn new_key() -> Result<SigningKey> {
    Ok(SigningKey::from_pkcs8(&SigningKey::generate()?)?)
}

/// A fleet, a gateway with version 1 that is confirmed and runs a function, and the key that it trusts.
struct Site {
    fleet: Fleet,
    gateway: Gateway,
    key: Vec<u8>,
    /// Goes last: the logs of the others lie in it.
    directory: TempDir,
}

impl Site {
    fn new(keys: &str, trial_s: u64) -> Result<Self> {
        let directory = directory()?;
        let fleet = Fleet::start(directory.path())?;
        let pkcs8 = SigningKey::generate()?;
        let key = SigningKey::from_pkcs8(&pkcs8)?;
        let gateway = Gateway::new(directory.path(), fleet.membership()?, (Version::new("1.0")?, &key))?.with(keys, trial_s);
        let mut site = Self { fleet, gateway, key: pkcs8, directory };
        assert_eq!(site.gateway.boot()?.to_string(), "1.0");
        site.gateway.start_node()?;
        site.fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
        site.phase_is(&OsPhase::Confirmed)?;
        Ok(site)
    }

    fn key(&self) -> Result<SigningKey> {
        Ok(SigningKey::from_pkcs8(&self.key)?)
    }

    fn sedge(&self, arguments: &[&str]) -> Result<fleet_tests::cli::Done> {
        sedge(Some(&self.fleet.data()), arguments)
    }

    /// Publishes a version; answers it.
    fn publish(&mut self, text: &str) -> Result<Version> {
        let version = Version::new(text)?;
        let bundle = version.bundle(self.directory.path(), (BOARD, self.key()?))?;
        self.gateway.knows(&version);
        let published: Image = self.sedge(&["image", "publish", &bundle.to_string_lossy(), "--json"])?.json()?;
        assert_eq!((published.version, published.board.as_str()), (version.version.clone(), BOARD));
        Ok(version)
    }

    fn roll_out(&self, version: &str, more: &[&str]) -> Result<ImageRollout> {
        self.sedge(&[&["image", "rollout", version, "--json"], more].concat())?.json()
    }

    fn node(&self) -> Result<Node> {
        Ok(self.fleet.nodes()?.remove(0))
    }

    fn phase_is(&self, phase: &OsPhase) -> Result<()> {
        until(&format!("the fleet shows: {phase}"), || Ok(self.node()?.os.is_some_and(|os| os.phase == *phase).then_some(())))
    }

    /// Waits until the fleet shows that the newest rollout failed on the node; answers why.
    fn failed(&self) -> Result<String> {
        until("the rollout has failed", || {
            let rollouts: Vec<ImageRollout> = self.fleet.get("/api/v1/image-rollouts")?;
            Ok((rollouts[0].failed == 1).then(|| rollouts[0].nodes[0].reason.clone()))
        })
    }

    /// How often `average` has been asked, this time included.
    fn count(&self) -> Result<u64> {
        let node = self.gateway.node.as_ref().unwrap();
        let average = function("average");
        until("the function runs", || Ok(node.running(&average)?.map(drop)))?;
        let result = node.invoke(&average, "plant/s1/temperature", r#"{"value":20}"#)?;
        assert!(result.ok, "{}", result.output);
        let answer: serde_json::Value = serde_json::from_str(&result.output)?;
        Ok(answer["count"].as_u64().unwrap())
    }
}

#[test]
fn a_new_version_is_fetched_in_part_tried_and_kept_with_all_state() -> Result<()> {
    let mut site = Site::new("", 60)?;
    assert_eq!(site.count()?, 1);
    site.publish("1.1")?;
    let bundle = std::fs::metadata(site.directory.path().join(format!("{BOARD}-1.1.sedge-os")))?.len();
    let before = site.fleet.link.bytes_down();
    let rollout = site.roll_out("1.1", &[])?;
    assert_eq!((rollout.nodes.len(), rollout.waiting), (1, 1));
    assert_eq!(site.gateway.restarted()?.to_string(), "1.1");
    let moved = site.fleet.link.bytes_down() - before;
    println!("bundle {bundle} bytes, moved {moved} bytes");
    assert!(moved < bundle / 3, "{moved} of {bundle} bytes moved");
    assert_eq!(site.gateway.kernel_images()?, ["sedge_1.0.efi", "sedge_1.1+2-1.efi"]);
    site.gateway.start_node()?;
    until("the version is kept", || Ok((site.gateway.kernel_images()? == ["sedge_1.0.efi", "sedge_1.1.efi"]).then_some(())))?;
    site.phase_is(&OsPhase::Confirmed)?;
    let os = site.node()?.os.unwrap();
    assert_eq!((os.version.to_string().as_str(), os.slot.as_str(), os.board.as_str()), ("1.1", "b", BOARD));
    assert_eq!(os.changes[0].reason, "updated by rollout 1");
    assert_eq!(site.count()?, 2, "state outlives an update");
    let done: ImageRollout = site.fleet.get::<Vec<ImageRollout>>("/api/v1/image-rollouts")?.remove(0);
    assert_eq!((done.done, done.failed, done.waiting), (1, 0, 0));
    assert!(site.sedge(&["image", "rollouts"])?.success()?.contains("done"));
    let shown = site.sedge(&["node", "show", "gateway-1"])?.success()?;
    assert!(shown.contains("1.1 for test-files, slot b") && shown.contains("updated by rollout 1"), "{shown}");
    // The next one goes into the slot that the first one came from.
    site.publish("1.2")?;
    site.roll_out("1.2", &["--restart", "now"])?;
    assert_eq!(site.gateway.restarted()?.to_string(), "1.2");
    site.gateway.start_node()?;
    until("the version is kept", || Ok((site.gateway.kernel_images()? == ["sedge_1.1.efi", "sedge_1.2.efi"]).then_some(())))?;
    assert_eq!(site.count()?, 3);
    Ok(())
}

#[test]
fn a_version_that_does_not_come_up_gives_way_to_the_one_before_with_its_reason() -> Result<()> {
    let mut site = Site::new("", 2)?;
    site.publish("2.0")?;
    site.roll_out("2.0", &[])?;
    // Three tries in which the daemon never says that it works.
    for expected in ["2.0", "2.0", "2.0", "1.0"] {
        assert_eq!(site.gateway.restarted()?.to_string(), expected);
    }
    site.gateway.start_node()?;
    let reason = site.failed()?;
    assert!(reason.contains("did not show within its time that it works: the node has not started"), "{reason}");
    assert_eq!(site.gateway.kernel_images()?, ["sedge_1.0.efi", "sedge_2.0+0-3.efi"]);
    let os = site.node()?.os.unwrap();
    assert!(matches!(&os.phase, OsPhase::RolledBack { version, .. } if version.to_string() == "2.0"), "{os:?}");
    assert!(os.changes[0].reason.starts_with("2.0 was given up: it did not show"), "{os:?}");
    assert_eq!(site.count()?, 1);
    // The same again is another try when somebody asks for one, and may work then.
    site.roll_out("2.0", &[])?;
    assert_eq!(site.gateway.restarted()?.to_string(), "2.0");
    site.gateway.start_node()?;
    until("the version is kept", || Ok((site.gateway.kernel_images()? == ["sedge_1.0.efi", "sedge_2.0.efi"]).then_some(())))?;
    Ok(())
}

#[test]
fn a_version_that_does_not_reach_the_fleet_is_kept_only_where_that_is_allowed() -> Result<()> {
    let mut site = Site::new("", 5)?;
    site.publish("2.0")?;
    site.publish("2.1")?;
    site.roll_out("2.0", &[])?;
    site.gateway.restarted()?;
    site.fleet.link.cut_after(0);
    for expected in ["2.0", "2.0", "1.0"] {
        site.gateway.start_node()?;
        assert_eq!(site.gateway.restarted()?.to_string(), expected);
    }
    site.fleet.link.mend();
    site.gateway.start_node()?;
    let reason = site.failed()?;
    assert!(reason.contains("the fleet was not reached"), "{reason}");
    site.roll_out("2.1", &["--offline"])?;
    assert_eq!(site.gateway.restarted()?.to_string(), "2.1");
    site.fleet.link.cut_after(0);
    site.gateway.start_node()?;
    until("the version is kept", || Ok(site.gateway.kernel_images()?.contains(&"sedge_2.1.efi".to_owned()).then_some(())))?;
    Ok(())
}

#[test]
fn what_is_older_forged_damaged_or_for_another_board_never_runs() -> Result<()> {
    let mut site = Site::new("", 60)?;
    let directory = site.directory.path().to_owned();
    let publish = |site: &Site, path: &Path| site.sedge(&["image", "publish", &path.to_string_lossy()]);
    // Older.
    site.publish("0.9")?;
    site.roll_out("0.9", &[])?;
    assert!(site.failed()?.contains("older than 1.0"));
    // Signed by somebody else.
    let forged = Version::new("3.0")?.bundle(&directory, (BOARD, new_key()?))?;
    publish(&site, &forged)?.success()?;
    site.roll_out("3.0", &[])?;
    assert!(site.failed()?.contains("no key that this box trusts"));
    // For another board: it is not even offered.
    let other = Version::new("3.1")?.bundle(&directory, ("other", site.key()?))?;
    publish(&site, &other)?.success()?;
    assert_eq!(site.roll_out("3.1", &[])?.nodes, []);
    // One bit of the manifest, and one bit of each chunk, at the fleet that has it published.
    for (text, chunks) in [("3.2", false), ("3.3", true)] {
        let bundle = Version::new(text)?.bundle(&directory, (BOARD, site.key()?))?;
        let image: Image = site.sedge(&["image", "publish", &bundle.to_string_lossy(), "--json"])?.json()?;
        let path = site.fleet.artifact_path(&image.artifact);
        let mut bytes = std::fs::read(&path)?;
        let Unproven(manifest) = Head::parse(&bytes)?.unproven()?;
        let places = manifest.chunks.iter().map(|chunk| chunk.offset).filter(|_| chunks).chain((!chunks).then_some(200));
        places.for_each(|at| bytes[usize::try_from(at).unwrap()] ^= 1);
        std::fs::write(&path, bytes)?;
        site.roll_out(text, &[])?;
        let reason = site.failed()?;
        assert!(reason.contains("signature does not hold") || reason.contains("damaged") || reason.contains("not a bundle"), "{reason}");
    }
    // What is no bundle does not get in, and a version stays what it was.
    let junk = directory.join("junk.sedge-os");
    std::fs::write(&junk, "no bundle")?;
    assert_eq!(publish(&site, &junk)?.code, Some(64));
    let cut = directory.join("cut.sedge-os");
    std::fs::write(&cut, &std::fs::read(&forged)?[..300_000])?;
    let refused = publish(&site, &cut)?;
    assert!(refused.code == Some(1) && refused.stderr.contains("300000"), "{}", refused.stderr);
    let again = Version::new("3.0")?.bundle(&directory, (BOARD, site.key()?))?;
    assert!(publish(&site, &again)?.stderr.contains("a version never changes"));
    let refused = sedge_bundle::digest(std::fs::File::open(&again)?)?;
    assert!(!site.fleet.artifact_path(&refused).exists(), "what is refused is not kept");
    assert!(!site.gateway.restarts());
    assert_eq!(site.gateway.kernel_images()?, ["sedge_1.0.efi"]);
    assert_eq!(site.count()?, 1);
    Ok(())
}

#[test]
fn a_gateway_that_loses_power_again_and_again_always_boots_and_gets_there() -> Result<()> {
    // Slow enough that the plug is pulled in the middle of the fetch, too.
    let mut site = Site::new(", fetch_kib_per_s = 150", 60)?;
    let (mut random, mut cuts) = (rand::rng(), 0);
    for number in 1..=CUTS / 3 {
        let text = format!("2.{number}");
        site.publish(&text)?;
        site.roll_out(&text, &["--restart", "now"])?;
        loop {
            let boots = random.random_range(0..40_u32);
            let mut looks = 0;
            let kept = until("a cut, a restart, or the version is kept", || {
                looks += 1;
                let kept = site.gateway.kernel_images()?.contains(&format!("sedge_{text}.efi"));
                Ok((kept || site.gateway.restarts() || (looks > boots && cuts < number * 3)).then_some(kept))
            })?;
            if kept {
                break;
            }
            cuts += usize::from(!site.gateway.restarts());
            site.gateway.power_off()?;
            site.gateway.boot()?;
            site.gateway.start_node()?;
        }
    }
    println!("{cuts} power cuts");
    assert_eq!(site.count()?, 1);
    site.phase_is(&OsPhase::Confirmed)
}

#[test]
fn what_is_staged_goes_when_nobody_wants_it_any_more_and_an_older_failure_is_history() -> Result<()> {
    let mut site = Site::new("", 2)?;
    let id = site.node()?.id;
    for version in ["2.0", "1.5"] {
        site.publish(version)?;
    }
    // At a time that is not now, for the nodes of a place that this one leaves.
    let hour = (crate::support::now_ms()? / 3_600_000 + 12) % 24;
    site.sedge(&["node", "label", id.as_str(), "site=here"])?.success()?;
    site.roll_out("2.0", &["--nodes", "site=here", "--restart", &format!("{hour:02}:00-{hour:02}:01")])?;
    let staged = |site: &Site| Ok(site.node()?.os.is_some_and(|os| matches!(os.phase, OsPhase::Staged { .. })).then_some(()));
    until("the version is staged", || staged(&site))?;
    assert!(site.gateway.kernel_images()?.contains(&"2.0.staged".to_owned()));
    site.sedge(&["node", "label", id.as_str(), "site=there"])?.success()?;
    site.phase_is(&OsPhase::Confirmed)?;
    assert_eq!(site.gateway.kernel_images()?, ["sedge_1.0.efi"]);
    // Or because somebody has stopped the rollout, which stays stopped.
    site.sedge(&["node", "label", id.as_str(), "site=here"])?.success()?;
    until("the version is staged again", || staged(&site))?;
    let stopped: Vec<ImageRollout> = site.sedge(&["image", "stop", "2.0", "--json"])?.json()?;
    assert_eq!((stopped.len(), stopped[0].state, stopped[0].nodes.len()), (1, ImageRolloutState::Stopped, 0));
    site.phase_is(&OsPhase::Confirmed)?;
    assert_eq!(site.gateway.kernel_images()?, ["sedge_1.0.efi"]);
    assert_eq!(site.sedge(&["image", "stop", "2.0"])?.code, Some(64), "nothing is left to stop");
    assert!(site.sedge(&["image", "rollouts"])?.success()?.contains("stopped"));
    site.sedge(&["node", "label", id.as_str(), "site=there"])?.success()?;

    // A version fails, a lower one is kept after it: that is what counts, and the one that failed is not tried again by the rollout it had.
    site.roll_out("2.0", &["--nodes", "site=there"])?;
    for expected in ["2.0", "2.0", "2.0", "1.0"] {
        assert_eq!(site.gateway.restarted()?.to_string(), expected);
    }
    site.gateway.start_node()?;
    site.failed()?;
    site.roll_out("1.5", &["--nodes", "site=there", "--restart", "now"])?;
    assert_eq!(site.gateway.restarted()?.to_string(), "1.5");
    site.gateway.start_node()?;
    site.phase_is(&OsPhase::Confirmed)?;
    let done: ImageRollout = site.fleet.get::<Vec<ImageRollout>>("/api/v1/image-rollouts")?.remove(0);
    assert_eq!((done.version.to_string().as_str(), done.done), ("1.5", 1));
    site.gateway.power_off()?;
    assert_eq!(site.gateway.boot()?.to_string(), "1.5");
    site.gateway.start_node()?;
    site.phase_is(&OsPhase::Confirmed)
}
