//! Artifacts on their way: bytes that are not what was promised, and connections that break in the middle.

use crate::support::{directory, fleet_with_node, function};
use anyhow::Result;
use fleet_tests::{artifact, until};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use std::fs;

/// Bytes of padding that make a download long enough to be cut.
const PADDING_BYTES: usize = 6 << 20;
/// Cuts of one download.
const CUTS: usize = 4;

fn random(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    rng.fill_bytes(&mut random);
    random
}

#[test]
fn bytes_with_another_digest_are_never_activated() -> Result<()> {
    let directory = directory()?;
    let (fleet, node) = fleet_with_node(&directory)?;
    let (hello, mut manifest) = (function("hello"), artifact::manifest("hello")?);
    let first = fleet.roll_out(&manifest, &artifact::guest("hello")?)?;

    let wasm = artifact::padded(&artifact::guest("hello")?, b"second");
    manifest.settings.insert("greeting".to_owned(), "second".to_owned());
    let second = fleet.publish(&manifest, &wasm)?;
    let path = fleet.artifact_path(&second.artifact);
    let mut corrupt = wasm.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    fs::write(&path, &corrupt)?;
    fleet.rollout(&hello, second.id)?;
    node.process().printed("digest differs")?;
    assert_eq!(node.running(&hello)?, Some(first.id));
    assert_eq!(node.fetch("/hello")?.text(), "hello from the edge");
    let kept = node.data().join("artifacts").join(second.artifact.hex());
    assert!(!kept.exists(), "the corrupt artifact was kept");

    // It heals by itself as soon as the fleet has the right bytes again.
    fs::write(&path, &wasm)?;
    node.runs(&hello, second.id)?;
    assert_eq!(node.fetch("/hello")?.text(), "second");
    Ok(())
}

#[test]
fn a_download_cut_at_random_bytes_goes_on_where_it_was() -> Result<()> {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    let (hello, manifest) = (function("hello"), artifact::manifest("hello")?);
    let first = fleet.roll_out(&manifest, &artifact::guest("hello")?)?;

    let wasm = artifact::padded(&artifact::guest("hello")?, &random(&mut rng, PADDING_BYTES));
    let second = fleet.publish(&manifest, &wasm)?;
    let partial = node.data().join("artifacts").join(format!("{}.part", second.artifact.hex()));
    let begin = fleet.link.bytes_down();
    fleet.link.cut_after(rng.random_range(1..wasm.len() as u64 / 8));
    fleet.rollout(&hello, second.id)?;
    let mut here = 0;
    for cut in 0..CUTS {
        until("the connection is cut", || Ok(fleet.link.is_cut().then_some(())))?;
        assert_eq!(node.running(&hello)?, Some(first.id), "cut {cut}");
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
        // The last cut is left to the connection's own time-out; the others meet a power cut.
        if cut + 1 < CUTS {
            node.kill9()?;
        }
        let length = fs::metadata(&partial).map_or(0, |file| file.len());
        assert!(length >= here && length < wasm.len() as u64, "{length} bytes after {here}");
        here = length;
        if cut + 1 < CUTS {
            fleet.link.cut_after(rng.random_range(wasm.len() as u64 / 16..wasm.len() as u64 / 5));
            node.restart()?;
        }
    }
    fleet.link.mend();
    node.runs(&hello, second.id)?;
    let travelled = fleet.link.bytes_down() - begin;
    println!("{travelled} bytes for an artifact of {} in {} pieces", wasm.len(), CUTS + 1);
    // What was under way when the connection was cut travels again; the whole artifact never does.
    assert!(travelled < wasm.len() as u64 * 7 / 4, "{travelled} bytes travelled for an artifact of {}", wasm.len());
    Ok(())
}
