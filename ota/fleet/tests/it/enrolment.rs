use crate::support::World;
use sedge_protocol::api::{Claim, NewClaim, Node};
use sedge_protocol::enrol::EnrolRequest;
use sedge_protocol::{Digest, Labels};
use sedge_provisioning::{EnrolError, KeyPem, csr, enrol, new_key};
use tokio::task::spawn_blocking;

async fn present(fleet: &str, pin: Digest, claim: &str, key: &KeyPem) -> Result<String, EnrolError> {
    let request =
        EnrolRequest { claim: claim.to_owned(), csr: csr(key).unwrap(), name: Some("gate".parse().unwrap()), labels: Labels::default() };
    let fleet = fleet.to_owned();
    spawn_blocking(move || enrol(&fleet, pin, &request).map(|(enrolled, _)| enrolled.node.to_string())).await.unwrap()
}

fn refusal(answer: Result<String, EnrolError>) -> String {
    match answer {
        Err(EnrolError::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_lets_in_as_often_as_it_says_and_no_more() {
    let world = World::new().await;
    let claim = world.claim(NewClaim { uses: 2, ..NewClaim::default() }).await;
    let keys = [new_key().unwrap(), new_key().unwrap(), new_key().unwrap()];
    assert_eq!(present(&claim.fleet, claim.ca_pin, &claim.token, &keys[0]).await.unwrap(), "gate");
    assert_eq!(present(&claim.fleet, claim.ca_pin, &claim.token, &keys[1]).await.unwrap(), "gate-2", "the name was taken");
    assert!(refusal(present(&claim.fleet, claim.ca_pin, &claim.token, &keys[2]).await).contains("used up"));
    // The answer of the first was lost: the same key is the same node, and uses nothing.
    assert_eq!(present(&claim.fleet, claim.ca_pin, &claim.token, &keys[0]).await.unwrap(), "gate");
    let claims: Vec<Claim> = world.operator().get("/api/v1/claims").await.unwrap();
    assert_eq!((claims[0].used, claims[0].uses), (2, 2));
    let nodes: Vec<Node> = world.operator().get("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_boxes_that_race_for_one_use_one_gets_in() {
    let world = World::new().await;
    let claim = world.claim(NewClaim::default()).await;
    let racers = (0..6).map(|_| {
        let (fleet, pin, token) = (claim.fleet.clone(), claim.ca_pin, claim.token.clone());
        tokio::spawn(async move { present(&fleet, pin, &token, &new_key().unwrap()).await.is_ok() })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        winners += u32::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_claims_are_refused_with_the_reason_and_slowed_down() {
    let world = World::new().await;
    let claim = world.claim(NewClaim::default()).await;
    let key = new_key().unwrap();
    assert!(refusal(present(&claim.fleet, claim.ca_pin, "no such claim", &key).await).contains("not known"));
    loop {
        match present(&claim.fleet, claim.ca_pin, "guess", &key).await {
            Err(EnrolError::Refused { retry_after_s: Some(seconds), .. }) => break assert!(seconds > 0),
            Err(EnrolError::Refused { retry_after_s: None, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_pinned_authority_gets_nothing() {
    let (world, other) = (World::new().await, World::new().await);
    let claim = world.claim(NewClaim::default()).await;
    let answer = present(&other.addresses().https, claim.ca_pin, &claim.token, &new_key().unwrap()).await;
    assert!(matches!(answer, Err(EnrolError::NotTheFleet { .. })), "{answer:?}");
    let claims: Vec<Claim> = world.operator().get("/api/v1/claims").await.unwrap();
    assert_eq!(claims[0].used, 0);
}
