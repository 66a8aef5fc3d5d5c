use crate::support::{Operator, World, wasm};
use sedge_protocol::api::{Revision, Rollout, Status};
use sedge_protocol::{Digest, Manifest};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

async fn status_of(operator: &Operator, method: &'static str, path: &str, body: Value) -> (u16, String) {
    let (status, problem) = operator.send::<Value>(method, path, &body).await.unwrap_err();
    (status, problem.error)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_without_the_token() {
    let world = World::new().await;
    let mut operator = world.operator();
    operator.token = "0".repeat(64);
    for path in ["/api/v1/status", "/api/v1/nodes", "/api/v1/claims", "/api/v1/nothing"] {
        let (status, problem) = operator.get::<Value>(path).await.unwrap_err();
        assert_eq!(status, 401, "{path}");
        assert!(problem.hint.is_some());
    }
    let mut last = 401;
    while last == 401 {
        last = operator.get::<Value>("/api/v1/status").await.unwrap_err().0;
    }
    assert_eq!(last, 429, "guessing is slowed down");
    assert!(world.operator().get::<Value>("/api/v1/status").await.is_ok(), "who has the token is not kept out by who guesses");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_twice_is_publishing_once() {
    let world = World::new().await;
    let operator = world.operator();
    let (one, two) = (wasm("one"), wasm("two"));
    let first = operator.publish("average", &one).await.unwrap();
    let second = operator.publish("average", &two).await.unwrap();
    assert_eq!(operator.publish("average", &one).await.unwrap(), first);
    let revisions: Vec<Revision> = operator.get("/api/v1/functions/average/revisions").await.unwrap();
    assert_eq!(revisions, [second, first.clone()]);
    let rollout: Rollout = operator.send("POST", "/api/v1/rollouts", &json!({ "function": "average" })).await.unwrap();
    assert_eq!(rollout.revision, first.id, "what was published last is the newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_function_is_refused_by_name() {
    let world = World::new().await;
    let operator = world.operator();
    let thief = wat::parse_str(r#"(module (import "env" "steal" (func)) (func (export "_start")))"#).unwrap();
    let (status, problem) = operator.publish("thief", &thief).await.unwrap_err();
    assert_eq!(status, 422);
    assert!(problem.error.contains("`env.steal`"), "{}", problem.error);
    assert_eq!(operator.publish("text", b"#!/bin/sh").await.unwrap_err().0, 422);
    let path = format!("/api/v1/artifacts/{}", Digest::of(b"other"));
    let wrong = operator.raw::<Value>("PUT", &path, wasm("a"), "application/wasm").await.unwrap_err();
    assert_eq!(wrong.0, 400);
    let manifest = Manifest::from_toml("f", "name = 'a'").unwrap().0;
    let missing = operator
        .send::<Value>("POST", "/api/v1/revisions", &json!({ "artifact": Digest::of(b"x"), "manifest": manifest }))
        .await
        .unwrap_err();
    assert_eq!(missing.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_say_what_is_wrong() {
    let world = World::new().await;
    let operator = world.operator();
    operator.publish("average", &wasm("one")).await.unwrap();
    let (status, error) = status_of(&operator, "POST", "/api/v1/rollouts", json!({ "function": "average", "filter": "site=" })).await;
    assert!(status == 400 && error.contains("character 6"), "{status} {error}");
    assert_eq!(status_of(&operator, "POST", "/api/v1/rollouts", json!({ "function": "none" })).await.0, 404);
    let revision = "0".repeat(64);
    assert_eq!(status_of(&operator, "POST", "/api/v1/rollouts", json!({ "function": "average", "revision": revision })).await.0, 404);
    assert_eq!(status_of(&operator, "POST", "/api/v1/rollouts", json!({ "function": "Average" })).await.0, 422);
    assert_eq!(status_of(&operator, "POST", "/api/v1/claims", json!({ "uses": 0 })).await.0, 400);
    assert_eq!(status_of(&operator, "POST", "/api/v1/claims", json!({ "ttl_s": u64::MAX })).await.0, 400);
    assert_eq!(status_of(&operator, "DELETE", "/api/v1/functions/none", json!(null)).await.0, 404);
    assert_eq!(operator.get::<Value>("/api/v1/nodes/none").await.unwrap_err().0, 404);
    assert_eq!(operator.get::<Value>("/api/v1/nodes/NONE").await.unwrap_err().0, 400);
    assert_eq!(operator.get::<Value>("/api/v1/usage?since_ms=x").await.unwrap_err().0, 400);
    assert_eq!(operator.get::<Value>("/api/v1/nothing").await.unwrap_err().0, 404);
    assert_eq!(status_of(&operator, "PUT", "/api/v1/status", json!(null)).await.0, 405);
    let large = vec![b' '; 300 * 1024];
    assert_eq!(operator.raw::<Value>("POST", "/api/v1/claims", large, "application/json").await.unwrap_err().0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_status_a_second_and_end_with_the_fleet() {
    let world = World::new().await;
    let operator = world.operator();
    let lines = tokio::task::spawn_blocking(move || {
        let answer = operator
            .http
            .get(format!("{}/api/v1/events", operator.base))
            .header("authorization", format!("Bearer {}", operator.token))
            .call()
            .unwrap();
        BufReader::new(answer.into_body().into_reader())
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.starts_with("data:"))
            .take(2)
            .collect::<Vec<_>>()
    });
    for line in lines.await.unwrap() {
        let status: Status = serde_json::from_str(line.trim_start_matches("data:")).unwrap();
        assert_eq!(status.nodes, 0);
    }
    assert!(world.running.shutdown().await);
}
