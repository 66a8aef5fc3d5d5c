//! Who is let in, who is not any more, and who comes back.

use crate::support::{Node, Stream, World};
use quinn::{ConnectionError, TransportErrorCode, VarInt};
use sedge_fleet::Certificates;
use sedge_protocol::api::{Claim, CreatedClaim, NewClaim, Node as Shown, NodeState, UsageRow};
use sedge_protocol::enrol::{EnrolRequest, ReturnRequest};
use sedge_protocol::message::{CLOSE_REVOKED, CLOSE_UNKNOWN, FromFleet, FromNode, UsageBatch};
use sedge_protocol::usage::{Counters, LedgerEpoch, UsageRecord, Window};
use sedge_protocol::{Labels, Standing};
use sedge_provisioning::{EnrolError, Identity, KeyPem, come_back, csr, enrol, new_key};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::spawn_blocking;

async fn present(claim: &CreatedClaim, name: &str, key: &KeyPem) -> Result<Identity, EnrolError> {
    let request =
        EnrolRequest { claim: claim.token.clone(), csr: csr(key).unwrap(), name: Some(name.parse().unwrap()), labels: Labels::default() };
    let (fleet, pin, key) = (claim.fleet.clone(), claim.ca_pin, key.clone());
    let answer = spawn_blocking(move || enrol(&fleet, pin, &request)).await.unwrap();
    answer.map(|(enrolled, _)| Identity::from_pem(&enrolled.certificate, key).unwrap())
}

async fn return_with(world: &World, node: &Node, key: &KeyPem) -> Result<Identity, EnrolError> {
    let request = ReturnRequest { node: node.identity.node.clone(), csr: csr(key).unwrap() };
    let (fleet, pin, key) = (world.addresses().https.clone(), world.addresses().ca_pin, key.clone());
    let answer = spawn_blocking(move || come_back(&fleet, pin, &request)).await.unwrap();
    answer.map(|(enrolled, _)| Identity::from_pem(&enrolled.certificate, key).unwrap())
}

async fn set(world: &World, node: &str, standing: Value) -> Shown {
    world.operator().send("PUT", &format!("/api/v1/nodes/{node}/standing"), &standing).await.unwrap()
}

async fn shown(world: &World, node: &str) -> Shown {
    world.operator().get(&format!("/api/v1/nodes/{node}")).await.unwrap()
}

/// The code and the word with which the fleet closes what is connected.
fn farewell(end: ConnectionError) -> (VarInt, String) {
    match end {
        ConnectionError::ApplicationClosed(close) => (close.error_code, String::from_utf8_lossy(&close.reason).into_owned()),
        other => panic!("{other:?}"),
    }
}

const REVOKED: VarInt = VarInt::from_u32(CLOSE_REVOKED);

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_sent_away_at_once_and_gets_no_certificate_by_any_way() {
    let world = World::new().await;
    let (claim, key) = (world.claim(NewClaim { uses: 5, ..NewClaim::default() }).await, new_key().unwrap());
    let identity = present(&claim, "gate", &key).await.unwrap();
    let node = world.of(identity);
    let (connection, _control, _) = node.greet(&world).await;
    let answer = set(&world, "gate", json!({ "is": "revoked", "reason": "stolen" })).await;
    assert_eq!((answer.standing, answer.state), (Standing::Revoked { reason: "stolen".into() }, NodeState::Offline));
    assert_eq!(farewell(connection.closed().await), (REVOKED, "stolen".to_owned()));
    assert_eq!(farewell(node.connect(&world).await.closed().await), (REVOKED, "stolen".to_owned()), "nor at the handshake");
    // The claim has uses left, and this is its key.
    assert!(matches!(present(&claim, "gate", &key).await, Err(EnrolError::Revoked { .. })));
    assert!(matches!(return_with(&world, &node, &key).await, Err(EnrolError::Revoked { reason }) if reason == "stolen"));
    // Forgotten is not forgiven: the same key is let in by no claim of before.
    let _: Value = world.operator().send("DELETE", "/api/v1/nodes/gate", &()).await.unwrap();
    assert!(matches!(present(&claim, "gate", &key).await, Err(EnrolError::Revoked { .. })));
    let newer = world.claim(NewClaim::default()).await;
    assert_eq!(present(&newer, "gate", &key).await.unwrap().node.as_str(), "gate");
    assert_eq!(shown(&world, "gate").await.standing, Standing::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_comes_back_by_a_newer_claim_or_when_the_operator_was_wrong() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    for _ in 0..2 {
        set(&world, "gate", json!({ "is": "revoked", "reason": "stolen" })).await;
    }
    let newer = world.claim(NewClaim::default()).await;
    assert_eq!(present(&newer, "other", &node.identity.key).await.unwrap().node.as_str(), "gate", "one key is one node");
    node.greet(&world).await;
    set(&world, "gate", json!({ "is": "revoked", "reason": "again" })).await;
    set(&world, "gate", json!({ "is": "active" })).await;
    node.greet(&world).await;
    assert_eq!(world.operator().get::<Vec<Shown>>("/api/v1/nodes").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_for_approval_gets_nothing_until_then() {
    let world = World::new().await;
    let claim = world.claim(NewClaim { approval: true, ..NewClaim::default() }).await;
    assert!(claim.claim.approval);
    let node = world.of(present(&claim, "gate", &new_key().unwrap()).await.unwrap());
    let (revision, rollout) = world.rollout("average", "one", "").await;
    assert_eq!(rollout.nodes, 0);
    let (_connection, mut control, desired) = node.greet(&world).await;
    assert!(desired.assignments.is_empty());
    assert_eq!((shown(&world, "gate").await.standing, shown(&world, "gate").await.state), (Standing::Pending, NodeState::Online));
    set(&world, "gate", json!({ "is": "active" })).await;
    assert_eq!(control.desired().await.assignments[0].revision, revision.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_node_goes_on_with_what_it_has_and_gets_nothing_new() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (old, _) = world.rollout("average", "old", "").await;
    let (_connection, mut control, desired) = node.greet(&world).await;
    assert_eq!(desired.assignments[0].revision, old.id);
    set(&world, "gate", json!({ "is": "quarantined", "reason": "strange traffic" })).await;
    world.rollout("average", "new", "").await;
    world.rollout("second", "two", "").await;
    let (_connection, _control, desired) = node.greet(&world).await;
    assert_eq!(desired.assignments.iter().map(|assigned| assigned.revision).collect::<Vec<_>>(), [old.id]);
    // It connected again: its connection of before was replaced.
    assert!(matches!(control.next().await, Some(FromFleet::Standing { standing: Standing::Quarantined { .. } })));
    assert!(control.next().await.is_none());
    let (_connection, mut control, _) = node.greet(&world).await;
    let _: Value = world.operator().send("DELETE", "/api/v1/functions/average", &()).await.unwrap();
    assert!(control.desired().await.assignments.is_empty(), "what is to go goes");
    set(&world, "gate", json!({ "is": "active" })).await;
    assert_eq!(control.desired().await.assignments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_unknown_and_its_usage_stays() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (connection, _control, _) = node.greet(&world).await;
    let mut stream = Stream::open(&connection).await;
    let window = Window { function: "average".parse().unwrap(), revision: "00".repeat(32).parse().unwrap(), start_ms: 0 };
    let records = vec![UsageRecord { seq: 1, window, counters: Counters { calls_ok: 7, ..Counters::default() } }];
    stream.send(&FromNode::Usage(UsageBatch { epoch: LedgerEpoch(7), records })).await;
    assert!(matches!(stream.next().await, Some(FromFleet::UsageApplied { through: 1, .. })));
    let _: Value = world.operator().send("DELETE", "/api/v1/nodes/gate", &()).await.unwrap();
    assert_eq!(farewell(connection.closed().await).0, VarInt::from_u32(CLOSE_UNKNOWN));
    assert_eq!(farewell(node.connect(&world).await.closed().await).0, VarInt::from_u32(CLOSE_UNKNOWN));
    assert!(world.operator().get::<Vec<Shown>>("/api/v1/nodes").await.unwrap().is_empty());
    let rows: Vec<UsageRow> = world.operator().get("/api/v1/usage?node=gate").await.unwrap();
    assert_eq!(rows[0].usage.calls_ok, 7);
    assert_eq!(world.operator().send::<Value>("DELETE", "/api/v1/nodes/gate", &()).await.unwrap_err().0, 404);
    // Somebody else may have the name; the certificate of before is of another key.
    let heir = world.node("gate", &[]).await;
    let (connection, _control, _) = heir.greet(&world).await;
    let (code, reason) = farewell(node.connect(&world).await.closed().await);
    assert!(code == REVOKED && reason.contains("taken over"), "{reason}");
    assert!(connection.close_reason().is_none(), "who is refused takes nobody's place");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_the_fleet_move_a_node_under_other_rollouts() {
    let world = World::new().await;
    let node = world.node("gate", &[("site", "own")]).await;
    let (canary, _) = world.rollout("average", "canary", "canary=yes").await;
    let (_connection, mut control, desired) = node.greet(&world).await;
    assert!(desired.assignments.is_empty());
    let change = json!({ "set": { "canary": "yes", "site": "berlin" } });
    let answer: Shown = world.operator().send("PATCH", "/api/v1/nodes/gate/labels", &change).await.unwrap();
    assert_eq!(answer.labels.to_string(), "canary=yes,site=berlin");
    assert_eq!(control.desired().await.assignments[0].revision, canary.id);
    for (filter, number) in [("site=berlin", 1), ("site=own", 0), ("", 1)] {
        let nodes: Vec<Shown> = world.operator().get(&format!("/api/v1/nodes?filter={filter}")).await.unwrap();
        assert_eq!(nodes.len(), number, "{filter}");
    }
    let change = json!({ "remove": ["canary", "site", "nothing"] });
    let answer: Shown = world.operator().send("PATCH", "/api/v1/nodes/gate/labels", &change).await.unwrap();
    assert_eq!(answer.labels.to_string(), "site=own", "its own label shows again");
    assert!(control.desired().await.assignments.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_decisions_say_what_is_wrong() {
    let world = World::new().await;
    world.node("gate", &[]).await;
    let operator = world.operator();
    let standing = "/api/v1/nodes/gate/standing";
    for (body, status) in [
        (json!({ "is": "pending" }), 400),
        (json!({ "is": "revoked", "reason": "a\nb" }), 400),
        (json!({ "is": "revoked", "reason": "x".repeat(201) }), 400),
        (json!({ "is": "revoked" }), 422),
        (json!({ "is": "gone" }), 422),
    ] {
        assert_eq!(operator.send::<Value>("PUT", standing, &body).await.unwrap_err().0, status, "{body}");
    }
    assert_eq!(operator.send::<Value>("PUT", "/api/v1/nodes/no/standing", &json!({ "is": "active" })).await.unwrap_err().0, 404);
    assert_eq!(operator.send::<Value>("PATCH", "/api/v1/nodes/gate/labels", &json!({ "set": { "a b": "c" } })).await.unwrap_err().0, 422);
    assert_eq!(operator.send::<Value>("PATCH", "/api/v1/nodes/gate/labels", &json!({ "sett": {} })).await.unwrap_err().0, 422);
    assert_eq!(operator.get::<Value>("/api/v1/nodes?filter=site=").await.unwrap_err().0, 400);
    assert_eq!(operator.send::<Value>("DELETE", "/api/v1/claims/none", &()).await.unwrap_err().0, 404);
    assert_eq!(operator.send::<Value>("POST", "/api/v1/claims", &json!({ "replaces": "none" })).await.unwrap_err().0, 404);
    assert_eq!(operator.send::<Value>("POST", "/api/v1/claims", &json!({ "replaces": "gate", "uses": 2 })).await.unwrap_err().0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_claim_lets_nobody_in_and_who_has_joined_stays() {
    let world = World::new().await;
    let (claim, key) = (world.claim(NewClaim { uses: 5, ..NewClaim::default() }).await, new_key().unwrap());
    let node = world.of(present(&claim, "gate", &key).await.unwrap());
    for _ in 0..2 {
        let _: Value = world.operator().send("DELETE", &format!("/api/v1/claims/{}", claim.claim.id), &()).await.unwrap();
    }
    match present(&claim, "other", &new_key().unwrap()).await {
        Err(EnrolError::Refused { reason, retry_after_s: None }) => assert!(reason.contains("revoked"), "{reason}"),
        other => panic!("{other:?}"),
    }
    node.greet(&world).await;
    let claims: Vec<Claim> = world.operator().get("/api/v1/claims").await.unwrap();
    assert!(claims[0].revoked && claims[0].used == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_boxes_with_one_key_are_quarantined_and_a_box_that_restarts_is_not() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let greet = async |instance| drop(Node { instance, ..node.clone() }.greet(&world).await);
    for instance in [1, 1, 2, 3, 3, 4] {
        greet(instance).await;
    }
    assert_eq!(shown(&world, "gate").await.standing, Standing::Active);
    for instance in [5, 4, 5] {
        greet(instance).await;
    }
    let Standing::Quarantined { reason } = shown(&world, "gate").await.standing else { panic!("two boxes were taken for one") };
    assert_eq!(reason.matches("127.0.0.1:").count(), 2, "{reason}");
    // One is switched off, an operator approves: the other goes on.
    set(&world, "gate", json!({ "is": "active" })).await;
    for _ in 0..4 {
        greet(5).await;
    }
    assert_eq!(shown(&world, "gate").await.standing, Standing::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_was_written_anew_takes_over_its_entry_or_gets_another_as_the_operator_chose() {
    let world = World::new().await;
    let old = world.node("gate", &[]).await;
    let _: Shown = world.operator().send("PATCH", "/api/v1/nodes/gate/labels", &json!({ "set": { "site": "berlin" } })).await.unwrap();
    let (revision, _) = world.rollout("average", "one", "site=berlin").await;
    let (connection, _control, _) = old.greet(&world).await;
    let other = world.of(present(&world.claim(NewClaim::default()).await, "gate", &new_key().unwrap()).await.unwrap());
    assert_eq!(other.identity.node.as_str(), "gate-2", "without a word it is another node");
    let claim = world.claim(NewClaim { replaces: Some("gate".parse().unwrap()), ..NewClaim::default() }).await;
    let key = new_key().unwrap();
    let heir = world.of(present(&claim, "what-it-likes", &key).await.unwrap());
    assert_eq!(heir.identity.node.as_str(), "gate");
    let (code, reason) = farewell(connection.closed().await);
    assert!(code == REVOKED && reason.contains("taken over"), "{reason}");
    let (_connection, _control, desired) = heir.greet(&world).await;
    assert_eq!(desired.assignments[0].revision, revision.id, "labels and what it is to run are those of before");
    assert_eq!(farewell(old.connect(&world).await.closed().await).0, REVOKED);
    assert!(matches!(return_with(&world, &old, &old.identity.key).await, Err(EnrolError::Revoked { .. })));
    // The answer was lost: the same again.
    assert_eq!(present(&claim, "gate", &key).await.unwrap().node.as_str(), "gate");
    assert_eq!(world.operator().get::<Vec<Shown>>("/api/v1/nodes").await.unwrap().len(), 2);
    // A box that is a node already leaves its entry: one key has one, so that a revocation shuts every door.
    let claim = world.claim(NewClaim { replaces: Some("gate".parse().unwrap()), ..NewClaim::default() }).await;
    assert_eq!(present(&claim, "gate-2", &other.identity.key).await.unwrap().node.as_str(), "gate");
    let nodes = world.operator().get::<Vec<Shown>>("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["gate"]);
    assert!(return_with(&world, &other, &other.identity.key).await.is_err());
}

/// Connects until the fleet says that the certificate has expired.
async fn expires(world: &World, node: &Node) {
    loop {
        let connection = node.connect(world).await;
        let answer = match Stream::try_open(&connection).await {
            Some(mut control) => {
                // A connection that is being closed takes no more.
                drop(control.asks.write_all(&sedge_protocol::frame::encode(&node.hello(0)).unwrap()).await);
                control.next().await
            }
            None => None,
        };
        if answer.is_none() {
            match connection.closed().await {
                ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::crypto(45) => return,
                other => panic!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn certificates(return_days: u32) -> Certificates {
    Certificates { life: Duration::from_secs(3), return_days }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_key_comes_back_with_an_expired_certificate_and_no_other_does() {
    let world = World::with(certificates(1)).await;
    let node = world.node("gate", &[]).await;
    expires(&world, &node).await;
    let refused = |answer: Result<Identity, EnrolError>| matches!(answer, Err(EnrolError::Refused { .. } | EnrolError::Revoked { .. }));
    assert!(refused(return_with(&world, &node, &new_key().unwrap()).await), "another key");
    let stranger = Node { identity: Identity { node: "other".parse().unwrap(), ..node.identity.clone() }, ..node.clone() };
    assert!(refused(return_with(&world, &stranger, &node.identity.key).await), "another name");
    let identity = return_with(&world, &node, &node.identity.key).await.unwrap();
    world.of(identity).greet(&world).await;
    // Who has the key is held back as well when it asks again and again.
    loop {
        match return_with(&world, &node, &node.identity.key).await {
            Err(EnrolError::Refused { retry_after_s: Some(seconds), .. }) => break assert!(seconds > 0),
            Ok(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_too_long_needs_a_claim() {
    let world = World::with(certificates(0)).await;
    let node = world.node("gate", &[]).await;
    expires(&world, &node).await;
    match return_with(&world, &node, &node.identity.key).await {
        Err(EnrolError::Refused { reason, retry_after_s: None }) => assert!(reason.contains("more than 0 days ago"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let claim = world.claim(NewClaim::default()).await;
    assert_eq!(present(&claim, "other", &node.identity.key).await.unwrap().node.as_str(), "gate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_for_the_same_key_only() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let connection = node.connect(&world).await;
    let mut stream = Stream::open(&connection).await;
    stream.send(&FromNode::Renew { csr: csr(&new_key().unwrap()).unwrap() }).await;
    assert!(matches!(stream.next().await, Some(FromFleet::Refused { reason }) if reason.contains("another key")));
}
