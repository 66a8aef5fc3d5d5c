//! Claims that let nobody in.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::{Fleet, Membership, Node, until};
use sedge_protocol::Labels;
use sedge_protocol::enrol::{EnrolRequest, Enrolled};
use sedge_protocol::local::FleetLink;
use sedge_provisioning::{EnrolError, csr, enrol, new_key};
use std::fs;

/// More than any fleet lets a guesser try.
const TRIES_MAX: usize = 50;

fn present(fleet: &Fleet, claim: &str) -> Result<Result<Enrolled, EnrolError>> {
    let request = EnrolRequest { claim: claim.to_owned(), csr: csr(&new_key()?)?, name: None, labels: Labels::default() };
    Ok(enrol(fleet.https(), fleet.ca_pin(), &request).map(|(enrolled, _)| enrolled))
}

/// The reason of a refusal that no other try will change.
fn refusal(result: Result<Enrolled, EnrolError>) -> String {
    match result {
        Err(EnrolError::Refused { reason, retry_after_s: None }) => reason,
        other => panic!("not refused for good: {other:?}"),
    }
}

#[test]
fn a_claim_that_is_wrong_used_up_or_expired_is_refused_with_the_reason_and_logged() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let used = fleet.claim(1, 3600)?;
    assert!(present(&fleet, &used.token)?.is_ok());
    let short = fleet.claim(1, 1)?;
    let now = || fleet.get::<sedge_protocol::api::Status>("/api/v1/status").map(|status| status.time_ms);
    until("the claim expires", || Ok((now()? > short.claim.expires_ms).then_some(())))?;

    for (claim, reason) in [(used.token.as_str(), "used up"), (short.token.as_str(), "expired"), ("no such claim", "not known")] {
        let told = refusal(present(&fleet, claim)?);
        assert!(told.contains(reason), "{reason}: {told}");
        fleet.process().printed(&told)?;
    }
    let claims = fleet.claims()?;
    assert_eq!(claims.iter().map(|claim| claim.used).sum::<u32>(), 1);
    assert_eq!(fleet.nodes()?.len(), 1);
    assert!(!fleet.process().log()?.contains(&used.token), "the log holds a claim token");
    Ok(())
}

#[test]
fn who_guesses_claims_is_slowed_down() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let slowed = (0..TRIES_MAX).find_map(|number| match present(&fleet, &format!("guess {number}")) {
        Ok(Err(EnrolError::Refused { retry_after_s: Some(seconds), .. })) => Some(seconds),
        Ok(_) | Err(_) => None,
    });
    assert!(slowed.is_some_and(|seconds| seconds > 0), "{TRIES_MAX} guesses were not slowed down");
    Ok(())
}

#[test]
fn a_node_with_a_bad_claim_says_why_and_runs_on_without_a_fleet() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let bad = Membership { claim: "wrong".to_owned(), ..fleet.membership()? };
    let mut node = Node::start(directory.path(), "node-1", Some(&bad))?;
    node.process().printed("the claim is not known here")?;
    assert_eq!(node.status()?.fleet, FleetLink::Unclaimed);
    // Another authority than the pinned one is no fleet at all.
    let strange = Membership { ca_pin: sedge_protocol::Digest::of(b"another"), ..fleet.membership()? };
    let mut other = Node::start(directory.path(), "node-2", Some(&strange))?;
    other.process().printed("wrong server or wrong `ca_pin`")?;
    assert!(fleet.nodes()?.is_empty());
    assert!(node.stop()?.success() && other.stop()?.success());
    Ok(())
}

#[test]
fn a_node_that_the_fleet_forgot_joins_again_with_a_new_claim() -> Result<()> {
    let directory = directory()?;
    let mut fleet = Fleet::start(directory.path())?;
    let mut node = Node::start(directory.path(), "node-1", Some(&fleet.membership()?))?;
    node.online()?;
    let key = fs::read_to_string(node.data().join("identity.json"))?;
    fleet.kill9()?;
    for file in ["fleet.db", "fleet.db-wal", "fleet.db-shm"] {
        drop(fs::remove_file(fleet.data().join(file)));
    }
    fleet.restart()?;
    fleet.process().printed("nodes that enrolled before are unknown here")?;
    node.process().printed("the fleet does not know this node")?;
    assert!(fleet.nodes()?.is_empty(), "the claim of before is not known either");
    assert!(node.stop()?.success());
    let node = Node::start(directory.path(), "node-1", Some(&fleet.membership()?))?;
    node.online()?;
    assert_eq!(fleet.nodes()?.len(), 1);
    let private = |identity: &str| -> Result<serde_json::Value> { Ok(serde_json::from_str::<serde_json::Value>(identity)?["key"].clone()) };
    assert_eq!(private(&fs::read_to_string(node.data().join("identity.json"))?)?, private(&key)?, "it is the same box");
    Ok(())
}
