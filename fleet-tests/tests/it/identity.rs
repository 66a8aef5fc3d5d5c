//! Boxes that are revoked, copied, written anew, away for long, or whose clock is wrong.

use crate::support::{directory, fleet_with_node, function};
use anyhow::{Context as _, Result};
use fleet_tests::{Clock, Fleet, Membership, Node, cli, until};
use sedge_protocol::api::{NewClaim, NewRollout, Node as Shown, NodeState, Rollout, Status};
use sedge_protocol::local::FleetLink;
use sedge_protocol::{Manifest, NodeId, RevisionId, Standing};
use std::fs;

/// `sedge` for the fleet.
fn sedge(fleet: &Fleet, arguments: &[&str]) -> Result<cli::Done> {
    cli::sedge(Some(&fleet.data()), arguments)
}

fn shown(fleet: &Fleet, node: &Node) -> Result<Shown> {
    fleet.get(&format!("/api/v1/nodes/{}", node.id()?))
}

/// A function that does nothing, and one of its revisions.
fn probe(marker: &str) -> Result<(Manifest, Vec<u8>)> {
    let text = format!(r#"(module (memory (export "memory") 1) (data (i32.const 0) "{marker}") (func (export "_start")))"#);
    Ok((Manifest::from_toml("function.toml", "name = 'probe'")?.0, wat::parse_str(text)?))
}

/// Rolls the function out to every node.
fn rolled_out(fleet: &Fleet) -> Result<RevisionId> {
    let (manifest, wasm) = probe("one")?;
    Ok(fleet.roll_out(&manifest, &wasm)?.id)
}

/// Whether the node still runs its function.
fn runs(node: &Node) -> Result<()> {
    let result = node.invoke(&function("probe"), "plant/e1/temperature", "{}")?;
    anyhow::ensure!(result.ok, "{}", result.output);
    Ok(())
}

fn note(node: &Node, wanted: &str) -> Result<()> {
    until(&format!("the node says `{wanted}`"), || Ok(node.status()?.fleet_note.filter(|note| note.contains(wanted)).map(drop)))
}

#[test]
fn a_revoked_node_is_out_at_once_runs_on_and_joins_again_with_a_new_claim_only() -> Result<()> {
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    rolled_out(&fleet)?;
    let refusal = sedge(&fleet, &["node", "revoke", "node-1"])?;
    assert!(refusal.code == Some(64) && refusal.stderr.contains("--yes"), "{}", refusal.stderr);
    sedge(&fleet, &["node", "revoke", "--nodes", "node=node-1", "--reason", "stolen", "--yes"])?.success()?;
    note(&node, "revoked: stolen")?;
    assert_eq!(shown(&fleet, &node)?.state, NodeState::Offline);
    assert!(sedge(&fleet, &["node", "ls"])?.success()?.contains("revoked"));
    runs(&node)?;
    // A restart presents certificate and key again, and is sent away again.
    assert!(node.stop()?.success());
    node.restart()?;
    note(&node, "revoked: stolen")?;
    runs(&node)?;
    // A claim that is made now is another word.
    assert!(node.stop()?.success());
    node.join(&fleet.membership()?)?;
    node.restart()?;
    node.online()?;
    assert_eq!((shown(&fleet, &node)?.standing, node.status()?.fleet_note), (Standing::Active, None));
    assert_eq!(fleet.nodes()?.len(), 1, "the same key is the same node");
    Ok(())
}

#[test]
fn a_node_waits_for_approval_is_labelled_and_removed() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let claim = fleet.claim_of(&NewClaim { approval: true, ..NewClaim::default() })?;
    let mut node = Node::start(directory.path(), "node-1", Some(&claim))?;
    node.online()?;
    note(&node, "waits for approval")?;
    let (manifest, wasm) = probe("one")?;
    let revision = fleet.publish(&manifest, &wasm)?.id;
    let rollout = NewRollout { function: manifest.name.clone(), revision: None, filter: "canary=yes".to_owned() };
    let _made: Rollout = fleet.post("/api/v1/rollouts", &rollout)?;
    let labelled = sedge(&fleet, &["node", "label", "node-1", "canary=yes", "--json"])?.json::<Vec<Shown>>()?;
    assert_eq!((labelled[0].labels.value("canary"), &labelled[0].standing), (Some("yes"), &Standing::Pending));
    assert_eq!(labelled[0].desired_epoch, 0, "nothing is assigned before somebody approves");
    sedge(&fleet, &["node", "approve", "node-1"])?.success()?;
    fleet.runs_everywhere(&manifest.name, revision)?;
    // What is decided is told at once, not at the next connection.
    until("the node knows that it is approved", || Ok(node.status()?.fleet_note.is_none().then_some(())))?;
    sedge(&fleet, &["node", "quarantine", "node-1", "--reason", "strange traffic"])?.success()?;
    note(&node, "quarantined: strange traffic")?;
    sedge(&fleet, &["node", "approve", "node-1"])?.success()?;
    until("the node knows that it is approved", || Ok(node.status()?.fleet_note.is_none().then_some(())))?;
    // One name with a fault, and nothing is changed; nor by a filter that is a variable nobody has set.
    for wrong in [&["node-1", "nobody"][..], &["--nodes", ""]] {
        assert_ne!(sedge(&fleet, &[&["node", "quarantine"], wrong].concat())?.code, Some(0), "{wrong:?}");
        assert_eq!(shown(&fleet, &node)?.standing, Standing::Active);
    }
    sedge(&fleet, &["node", "label", "node-1", "canary-"])?.success()?;
    until("the function is gone", || Ok(node.running(&manifest.name)?.is_none().then_some(())))?;
    sedge(&fleet, &["node", "rm", "node-1", "--yes"])?.success()?;
    node.process().printed("the fleet does not know this node")?;
    note(&node, "does not know this node")?;
    assert!(fleet.nodes()?.is_empty());
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn one_key_in_two_live_boxes_is_quarantined_and_shown() -> Result<()> {
    let directory = directory()?;
    let (fleet, node) = fleet_with_node(&directory)?;
    let revision = rolled_out(&fleet)?;
    // The disk is copied into another box.
    let copy = directory.path().join("node-2/data");
    fs::create_dir_all(&copy)?;
    fs::copy(node.data().join("identity.json"), copy.join("identity.json"))?;
    let mut twin = Node::start(directory.path(), "node-2", Some(&fleet.membership()?))?;
    let reason = until("the node is quarantined", || Ok(shown(&fleet, &node)?.standing.reason().map(str::to_owned)))?;
    assert_eq!(reason.matches("127.0.0.1:").count(), 2, "{reason}");
    assert!(sedge(&fleet, &["node", "show", "node-1"])?.success()?.contains("quarantined: two boxes have its key"));
    note(&twin, "two boxes have its key")?;
    note(&node, "two boxes have its key")?;
    let (manifest, wasm) = probe("two")?;
    let other = fleet.publish(&manifest, &wasm)?.id;
    fleet.rollout(&manifest.name, other)?;
    assert_eq!(node.running(&manifest.name)?, Some(revision), "nothing new");
    // The copy is found and switched off.
    assert!(twin.stop()?.success());
    sedge(&fleet, &["node", "approve", "node-1"])?.success()?;
    fleet.runs_everywhere(&manifest.name, other)?;
    assert_eq!(shown(&fleet, &node)?.standing, Standing::Active);
    Ok(())
}

#[test]
fn a_box_that_was_written_anew_takes_over_its_entry_when_the_claim_says_so() -> Result<()> {
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    let revision = rolled_out(&fleet)?;
    let former = directory.path().join("former");
    assert!(node.stop()?.success());
    fs::rename(node.data(), &former)?;
    let claim: sedge_protocol::api::CreatedClaim = sedge(&fleet, &["claim", "create", "--replaces", "node-1", "--json"])?.json()?;
    node.join(&Membership { claim: claim.token, ..fleet.membership()? })?;
    node.restart()?;
    node.online()?;
    assert_eq!(fleet.nodes()?.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["node-1"]);
    node.runs(&function("probe"), revision)?;
    // The card of before, in some other box.
    let old = directory.path().join("node-2/data");
    fs::create_dir_all(&old)?;
    fs::copy(former.join("identity.json"), old.join("identity.json"))?;
    let stranger = Node::start(directory.path(), "node-2", Some(&Membership { claim: String::from("none"), ..fleet.membership()? }))?;
    note(&stranger, "taken over this node")?;
    assert_eq!((shown(&fleet, &node)?.standing, node.status()?.fleet_note), (Standing::Active, None));
    Ok(())
}

#[test]
fn a_box_without_a_network_runs_what_its_stick_grants_and_joins_when_there_is_a_way() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let (manifest, wasm) = probe("one")?;
    let revision = fleet.publish(&manifest, &wasm)?.id;
    let rollout = NewRollout { function: manifest.name.clone(), revision: None, filter: "site=barn".to_owned() };
    let _made: Rollout = fleet.post("/api/v1/rollouts", &rollout)?;
    let stick = directory.path().join("barn.sedge-claim");
    let path = stick.to_str().context("a path of letters")?;
    let made: serde_json::Value = sedge(&fleet, &["claim", "bundle", "--out", path, "--label", "site=barn", "--json"])?.json()?;
    assert_eq!(made["functions"], serde_json::json!(["probe"]));
    assert_eq!(made["claim"], fleet.claims()?[0].id.as_str());
    // Neither a file that is there nor a place that is none costs a claim.
    for place in [path, "/no/such/directory/barn.sedge-claim"] {
        assert_ne!(sedge(&fleet, &["claim", "bundle", "--out", place])?.code, Some(0));
    }
    assert_eq!(fleet.claims()?.len(), 1);
    fleet.process().pause()?;
    let mut node = Node::start_with_bundle(directory.path(), "node-1", &stick)?;
    node.runs(&manifest.name, revision)?;
    runs(&node)?;
    // The stick goes, the box is switched off and on: it still runs what it was granted.
    fs::remove_file(&stick)?;
    node.kill9()?;
    node.restart()?;
    node.runs(&manifest.name, revision)?;
    assert_eq!(node.status()?.fleet, FleetLink::Unclaimed);
    fleet.process().resume()?;
    node.online()?;
    let shown = shown(&fleet, &node)?;
    assert_eq!(shown.labels.value("site"), Some("barn"));
    fleet.runs_everywhere(&manifest.name, revision)?;
    // From now on the fleet decides.
    fleet.remove(&manifest.name)?;
    until("the function is gone", || Ok(node.running(&manifest.name)?.is_none().then_some(())))
}

#[test]
fn what_the_fleet_has_taken_away_and_a_used_claim_do_not_come_back_with_the_stick() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let (manifest, wasm) = probe("one")?;
    fleet.publish(&manifest, &wasm)?;
    let rollout = NewRollout { function: manifest.name.clone(), revision: None, filter: "site=barn".to_owned() };
    let _made: Rollout = fleet.post("/api/v1/rollouts", &rollout)?;
    let stick = directory.path().join("barn.sedge-claim");
    sedge(&fleet, &["claim", "bundle", "--out", stick.to_str().context("letters")?, "--label", "site=barn"])?.success()?;
    // Withdrawn before the box is there: the fleet has nothing to say to it, and says so.
    fleet.remove(&manifest.name)?;
    let mut node = Node::start_with_bundle(directory.path(), "node-1", &stick)?;
    node.online()?;
    until("the function is gone", || Ok(node.running(&manifest.name)?.is_none().then_some(())))?;
    let kept = || -> Result<String> { Ok(fs::read_to_string(node.data().join("fleet.json"))?) };
    until("the claim is gone", || Ok(kept()?.contains("\"claim\":null").then_some(())))?;
    fleet.process().pause()?;
    node.kill9()?;
    node.restart()?;
    assert_eq!(node.running(&manifest.name)?, None);
    assert!(fs::read_to_string(node.data().join("fleet.json"))?.contains("\"claim\":null"));
    fleet.process().resume()
}

/// Waits until the fleet's clock shows more than `ms`.
fn fleet_shows(fleet: &Fleet, ms: u64) -> Result<()> {
    until("time has passed", || Ok((fleet.get::<Status>("/api/v1/status")?.time_ms > ms).then_some(())))
}

fn certificate_until_ms(fleet: &Fleet, node: &NodeId) -> Result<u64> {
    let node: Shown = fleet.get(&format!("/api/v1/nodes/{node}"))?;
    Ok(node.certificate_until_ms)
}

const YEARS_9_MS: u64 = 9 * 365 * 24 * 3_600_000;

/// Enrols, connects, renews, is away for longer than its certificate is good, and comes back.
fn lives_through(clock: Clock) -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_with(directory.path(), "[certificates]\nlife_s = 12\n")?;
    let mut node = Node::start_at(clock, directory.path(), "node-1", &fleet.membership()?)?;
    node.online()?;
    let off_ms = node.status()?.vitals.started_ms.abs_diff(fleet.get::<Status>("/api/v1/status")?.time_ms);
    assert_eq!(off_ms > YEARS_9_MS, clock != Clock::Right, "the clock of the box is {off_ms} ms off");
    let (id, first) = (node.id()?, certificate_until_ms(&fleet, &node.id()?)?);
    for renewals in 1..=2 {
        until("the certificate is renewed", || Ok((certificate_until_ms(&fleet, &id)? > first + renewals * 5000).then_some(())))?;
    }
    node.process().printed("the certificate is renewed")?;
    let log = node.process().log()?;
    assert!(!log.contains("no connection to the fleet") && !log.contains("has expired"), "it was never away: {log}");
    assert!(node.stop()?.success());
    // Certificates count whole seconds.
    fleet_shows(&fleet, certificate_until_ms(&fleet, &id)? + 1000)?;
    node.restart()?;
    node.process().printed("the fleet has taken the node back")?;
    node.online()?;
    assert_eq!(fleet.nodes()?.first().map(|node| node.id.clone()).context("a node")?, id);
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn a_certificate_is_renewed_in_time_and_one_that_has_expired_is_replaced() -> Result<()> {
    lives_through(Clock::Right)
}

#[test]
fn a_box_whose_clock_stands_at_1970_enrols_renews_and_comes_back() -> Result<()> {
    lives_through(Clock::At("1970-01-01 00:00:10"))
}

#[test]
fn a_box_whose_clock_is_ten_years_ahead_enrols_renews_and_comes_back() -> Result<()> {
    lives_through(Clock::Ahead("+10y"))
}
