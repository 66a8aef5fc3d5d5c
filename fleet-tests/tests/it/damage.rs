//! Disks as power cuts and bad sectors leave them: the node opens, or sets aside and begins anew, and starts at the first try.

use crate::support::{directory, fleet_with_node, function};
use anyhow::{Context as _, Result};
use fleet_tests::{Node, artifact};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::fs;
use std::path::{Path, PathBuf};

/// The database directory that counts.
fn database(node: &Node) -> Result<PathBuf> {
    let store = node.data().join("store");
    for entry in fs::read_dir(&store)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("db-").is_some_and(|number| number.parse::<u64>().is_ok()) {
            return Ok(store.join(name));
        }
    }
    anyhow::bail!("no database in {}", store.display())
}

/// Every file in `directory` becomes noise of the same length.
fn scramble(directory: &Path) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(1);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            scramble(&path)?;
            continue;
        }
        let length = usize::try_from(fs::metadata(&path)?.len())?.max(64);
        let mut noise = vec![0; length];
        rng.fill_bytes(&mut noise);
        fs::write(&path, noise)?;
    }
    Ok(())
}

/// A file where the directory was.
fn replace_by_file(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory)?;
    fs::write(directory, b"not a directory").with_context(|| format!("write {}", directory.display()))
}

fn count(node: &Node) -> Result<u64> {
    let result = node.invoke(&function("average"), "plant/a/temperature", r#"{"value":1}"#)?;
    let answer: serde_json::Value = serde_json::from_str(&result.output).with_context(|| result.output.clone())?;
    answer["count"].as_u64().context(result.output)
}

type Damage = dyn Fn(&Node) -> Result<()>;

#[test]
fn a_torn_snapshot_changes_nothing() -> Result<()> {
    let directory = directory()?;
    let (mut fleet, mut node) = fleet_with_node(&directory)?;
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    assert_eq!(count(&node)?, 1);
    // Stopped in order, so that its state is in the database and not in the journal.
    assert!(node.stop()?.success());
    fleet.kill9()?;
    for torn in ["snap.00000000000000000FFFFFFF.generating", "snap.0000000000001000.generating"] {
        fs::write(database(&node)?.join(torn), b"torn in the midd")?;
    }
    node.restart()?;
    assert_eq!(count(&node)?, 2);
    Ok(())
}

#[test]
fn a_scrambled_artifact_is_fetched_again() -> Result<()> {
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    let revision = fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    assert!(node.stop()?.success());
    scramble(&node.data().join("artifacts"))?;
    node.restart()?;
    node.runs(&function("hello"), revision.id)?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    Ok(())
}

#[test]
fn an_unreadable_database_is_set_aside_and_the_functions_come_back_from_the_fleet() -> Result<()> {
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    let (average, hello) = (function("average"), function("hello"));
    let revision = fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    let damages: [(&str, &Damage); 4] = [
        ("a scrambled database", &|node| scramble(&database(node)?)),
        ("a file in place of the database", &|node| replace_by_file(&database(node)?)),
        ("a scrambled store, journal and all", &|node| scramble(&node.data().join("store"))),
        ("a file in place of the store", &|node| replace_by_file(&node.data().join("store"))),
    ];
    for (what, damage) in damages {
        println!("{what}");
        assert!(node.stop()?.success(), "{what}");
        damage(&node)?;
        node.restart()?;
        node.online()?;
        node.runs(&average, revision.id)?;
        fleet_tests::until("hello runs", || Ok(node.running(&hello)?.map(drop)))?;
        assert!(count(&node)? >= 1, "{what}");
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200, "{what}");
        // And once more, without any new damage.
        node.kill9()?;
        node.restart()?;
        node.runs(&average, revision.id)?;
        assert!(count(&node)? >= 1, "{what}");
    }
    assert!(node.process().log()?.contains("set aside"));
    Ok(())
}
