//! Updates of a box that really boots: firmware, boot loader, first program, two slots; and what a user sees of it at the fleet.

mod cuts;

use crate::support::{directory, function, roll_out};
use anyhow::{Context as _, Result};
use fleet_tests::cli::{Done, sedge};
use fleet_tests::gateway::Version;
use fleet_tests::machine::HOST;
use fleet_tests::process::run;
use fleet_tests::{Board, Disk, Fleet, Machine, wait};
use sedge_bundle::{Head, Manifest, SigningKey, Unproven};
use sedge_protocol::Digest;
use sedge_protocol::api::{Image, ImageRollout, Node, NodeState};
use sedge_protocol::image::{OsPhase, OsReport};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// An update with all its tries takes so many boots at most.
const BOOTS_MAX: u32 = 5;

/// A fleet and a box that is in it, confirmed, with a function that counts.
struct Site {
    machine: Machine,
    disk: Disk,
    fleet: Fleet,
    /// When the power came last: what the fleet heard before is history.
    power_ms: u64,
    /// Goes last: the logs of the others lie in it.
    _directory: TempDir,
}

impl Site {
    fn new(board: Board) -> Result<Self> {
        Self::with(board, None)
    }

    /// [`Site::new`]; with a seed its disk loses what was not flushed when the power is cut.
    fn with(board: Board, lossy: Option<u64>) -> Result<Self> {
        let directory = directory()?;
        let fleet = Fleet::start_as(HOST, directory.path())?;
        let mut disk = Disk::new(board, directory.path(), &fleet.membership()?)?;
        if let Some(seed) = lossy {
            disk.make_lossy(seed)?;
        }
        let machine = Machine::boot(&disk)?;
        let mut site = Self { machine, disk, fleet, power_ms: 0, _directory: directory };
        site.os("the box is in the fleet", 1, |os| os.phase == OsPhase::Confirmed)?;
        roll_out(&site.fleet, &site.machine, "average")?;
        Ok(site)
    }

    fn sedge(&self, arguments: &[&str]) -> Result<Done> {
        // By another name than that by which the box knows the fleet.
        let (pin, token) = (self.fleet.ca_pin().to_string(), self.fleet.data().join("admin-token"));
        let connection = ["--fleet", self.fleet.https(), "--ca-pin", &pin, "--token-file", &token.to_string_lossy()];
        sedge(None, &[arguments, &connection].concat())
    }

    /// Waits until what the fleet says of the system of the box, which is connected, fits: for as long as so many boots may take.
    fn os(&mut self, what: &str, boots: u32, fits: impl Fn(&OsReport) -> bool) -> Result<OsReport> {
        wait::until_within(self.machine.board().patience() * boots, what, || {
            self.machine.check()?;
            let nodes: Vec<Node> = self.fleet.nodes()?;
            let heard = |node: &Node| node.state == NodeState::Online && node.vitals.started_ms >= self.power_ms;
            let online = nodes.into_iter().next().filter(heard);
            Ok(online.and_then(|node| node.os).filter(|os| fits(os)))
        })
    }

    fn publish(&self, bundle: &Path) -> Result<Image> {
        self.sedge(&["image", "publish", &bundle.to_string_lossy(), "--json"])?.json()
    }

    fn order(&self, version: &str) -> Result<ImageRollout> {
        self.sedge(&["image", "rollout", version, "--json"])?.json()
    }

    /// Publishes a version and moves the box to it; answers how large the bundle is.
    fn roll_out(&self, version: &str) -> Result<u64> {
        let image = self.publish(&self.machine.board().bundle(version)?)?;
        let rollout = self.order(version)?;
        assert_eq!(rollout.nodes.len(), 1, "{rollout:?}");
        Ok(image.size)
    }

    /// Moves the box to a published version, which it refuses; answers why.
    fn refused(&mut self, version: &str) -> Result<String> {
        self.order(version)?;
        let refused = |os: &OsReport| matches!(&os.phase, OsPhase::Refused { version: of, .. } if of.to_string() == version);
        let os = self.os(&format!("{version} is refused"), 1, refused)?;
        let OsPhase::Refused { reason, .. } = os.phase else { unreachable!("looked for it") };
        println!("{version} was refused: {reason}");
        Ok(reason)
    }

    /// Waits until the box runs `version` again after another one was tried; answers why that was given up.
    fn back_on(&mut self, version: &str, tried: &str) -> Result<String> {
        let back = |os: &OsReport| matches!(&os.phase, OsPhase::RolledBack { version, .. } if version.to_string() == tried);
        let os = self.os(&format!("back from {tried}"), BOOTS_MAX, back)?;
        assert_eq!(os.version.to_string(), version, "{os:?}");
        let OsPhase::RolledBack { reason, .. } = os.phase else { unreachable!("looked for it") };
        println!("{tried} was given up: {reason}");
        assert!(
            self.disk.kernel_images()?.iter().any(|name| name.starts_with(&format!("sedge_{tried}+0"))),
            "{:?}",
            self.disk.kernel_images()?
        );
        Ok(reason)
    }

    /// One more reading; answers how many the function has counted.
    fn count(&mut self) -> Result<u64> {
        let (host, port) = (self.machine.mqtt.ip().to_string(), self.machine.mqtt.port().to_string());
        let question = ["-t", "plant/s1/temperature", "-e", "plant/average", "-q", "1", "-m", r#"{"value":20}"#, "-W", "20"];
        let answer = wait::until_within(self.machine.board().patience(), "the function answers", || {
            self.machine.check()?;
            let mut command = Command::new("mosquitto_rr");
            command.args(["-h", &host, "-p", &port, "-u", "sensor", "-P", "reading"]).args(question);
            Ok(Some(run(&mut command)?).filter(|output| output.status.success() && !output.stdout.is_empty()))
        })?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
        answer["count"].as_u64().with_context(|| answer.to_string())
    }
}

#[test]
#[ignore = "boots a dozen times: `cargo xtask test --all`"]
fn a_box_is_updated_and_comes_back_from_whatever_does_not_work() -> Result<()> {
    let mut site = Site::new(Board::Pc)?;
    let second = update_by_a_package(&mut site)?;
    refuse_what_must_not_run(&mut site)?;
    come_back_from_a_bad_daemon(&mut site)?;
    site.roll_out("3.0")?;
    let reason = site.back_on("1.0", "3.0")?;
    assert!(reason.contains("the fleet was not reached"), "{reason}");
    site.roll_out("4.0")?;
    let reason = site.back_on("1.0", "4.0")?;
    assert!(reason.contains("it hung, panicked or lost power"), "{reason}");
    site.roll_out("5.0")?;
    let reason = site.back_on("1.0", "5.0")?;
    assert!(reason.contains("never came up far enough"), "{reason}");
    let third = site.count()?;
    assert!(third > second, "state outlives what went wrong: {second}, {third}");
    let functions = site.fleet.nodes()?[0].functions.clone();
    assert!(functions.iter().any(|report| report.function == function("average") && report.running.is_some()), "{functions:?}");
    println!("{}", site.sedge(&["node", "show", site.fleet.nodes()?[0].id.as_str()])?.success()?);
    Ok(())
}

#[test]
#[ignore = "boots a dozen times: `cargo xtask test --all`"]
fn a_slot_that_rots_gives_way_to_the_version_before_and_is_written_again() -> Result<()> {
    let mut site = Site::new(Board::Pc)?;
    let first = site.count()?;
    site.roll_out("1.0")?;
    site.os("version 1.0 is kept", BOOTS_MAX, |os| os.version.to_string() == "1.0" && os.phase == OsPhase::Confirmed)?;
    site.machine.pull_the_plug()?;
    site.disk.scramble_slot("b")?;
    site.power_ms = crate::support::now_ms()?;
    site.machine = Machine::boot(&site.disk)?;
    let reason = site.back_on("0.1.0", "1.0")?;
    assert!(reason.contains("the slot") && reason.contains("is damaged"), "{reason}");
    // The operator asks for it again, and what the disk has lost is fetched.
    assert_eq!(site.order("1.0")?.nodes.len(), 1);
    site.os("version 1.0 is kept again", BOOTS_MAX, |os| os.version.to_string() == "1.0" && os.phase == OsPhase::Confirmed)?;
    let second = site.count()?;
    assert!(second > first, "state outlives a slot: {first}, {second}");
    Ok(())
}

#[test]
#[ignore = "boots half a dozen times a processor that takes long to emulate: `cargo xtask test --all`"]
fn a_box_is_updated_and_comes_back_from_a_bad_version_on_arm64() -> Result<()> {
    let mut site = Site::new(Board::Arm64)?;
    let second = update_by_a_package(&mut site)?;
    come_back_from_a_bad_daemon(&mut site)?;
    let third = site.count()?;
    assert!(third > second, "state outlives what went wrong: {second}, {third}");
    Ok(())
}

/// To version 1.0, in which a library differs; answers what the function has counted then.
fn update_by_a_package(site: &mut Site) -> Result<u64> {
    // A reading that is not answered in time is sent again, so a count is at least what was asked.
    let first = site.count()?;
    let (begin, before) = (Instant::now(), site.fleet.link.bytes_down());
    let bundle = site.roll_out("1.0")?;
    let os = site.os("version 1.0 is kept", BOOTS_MAX, |os| os.version.to_string() == "1.0" && os.phase == OsPhase::Confirmed)?;
    let moved = site.fleet.link.bytes_down() - before;
    println!("updated in {:.0} s; bundle {bundle} bytes, moved {moved} bytes ({} %)", begin.elapsed().as_secs_f64(), moved * 100 / bundle);
    assert!(moved * 100 <= bundle * 15, "an update of one package moved {moved} of {bundle} bytes");
    assert_eq!((os.slot.as_str(), os.changes[0].reason.as_str()), ("b", "updated by rollout 1"), "{os:?}");
    let second = site.count()?;
    assert!(second > first, "state outlives an update: {first}, {second}");
    Ok(second)
}

/// Version 1.0 goes on: the one before it, one that somebody else has signed, one for another board, and one of which a single bit is another.
fn refuse_what_must_not_run(site: &mut Site) -> Result<()> {
    let directory = directory()?;
    let first = site.publish(&site.machine.board().own_bundle()?)?.version.to_string();
    let reason = site.refused(&first)?;
    assert!(reason.contains("older than 1.0"), "{reason}");
    let new_key = || -> Result<SigningKey> { Ok(SigningKey::from_pkcs8(&SigningKey::generate()?)?) };
    let board = format!("test-{}", site.machine.board().processor());
    site.publish(&Version::new("1.1")?.bundle(directory.path(), (&board, new_key()?))?)?;
    let reason = site.refused("1.1")?;
    assert!(reason.contains("no key that this box trusts"), "{reason}");
    site.publish(&Version::new("1.2")?.bundle(directory.path(), ("other", new_key()?))?)?;
    assert_eq!(site.order("1.2")?.nodes, [], "it is not even offered");
    // Of the manifest, and of a chunk that the box lacks, at the fleet that has them published.
    let manifest = |version: &str| -> Result<Manifest> {
        let Unproven(manifest) = Head::parse(&fs::read(site.machine.board().bundle(version)?)?)?.unproven()?;
        Ok(manifest)
    };
    let (runs, wanted) = (manifest("1.0")?, manifest("2.0")?);
    let known: BTreeSet<&Digest> = runs.chunks.iter().map(|chunk| &chunk.digest).collect();
    let lacking = wanted.chunks.iter().find(|chunk| !known.contains(&chunk.digest)).context("2.0 has nothing of its own")?;
    let image = site.publish(&site.machine.board().bundle("2.0")?)?;
    let stored = File::options().read(true).write(true).open(site.fleet.artifact_path(&image.artifact))?;
    for (at, fault) in [(200, "signature does not hold"), (lacking.offset + 1, "damaged")] {
        let mut byte = [0];
        stored.read_exact_at(&mut byte, at)?;
        stored.write_all_at(&[byte[0] ^ 1], at)?;
        let reason = site.refused("2.0")?;
        assert!(reason.contains(fault), "{reason}");
        stored.write_all_at(&byte, at)?;
    }
    let os = site.os("the box goes on", 1, |_| true)?;
    assert_eq!((os.version.to_string().as_str(), os.slot.as_str()), ("1.0", "b"), "{os:?}");
    Ok(())
}

/// From version 2.0, whose daemon ends at once.
fn come_back_from_a_bad_daemon(site: &mut Site) -> Result<()> {
    site.roll_out("2.0")?;
    let reason = site.back_on("1.0", "2.0")?;
    assert!(reason.contains("the daemon does not stay up"), "{reason}");
    Ok(())
}
