//! Artifacts that may not become revisions: refused by the command line, by the fleet and by the node, each by itself.

use crate::support::{directory, fleet_with_node, function};
use anyhow::Result;
use fleet_tests::cli::sedge;
use fleet_tests::{Node, artifact};
use http::Method;
use sedge_protocol::Digest;
use sedge_protocol::limits::ARTIFACT_BYTES_MAX;
use std::fs;

/// What is refused, and what the refusal names.
fn refused() -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    Ok(vec![
        ("a script", b"#!/bin/sh\necho hello\n".to_vec(), "not valid WebAssembly"),
        ("a module nobody can call", artifact::wasm(artifact::EXPORTS_NOTHING)?, "wasi:http/incoming-handler"),
        ("TLS of the host", artifact::wasm(artifact::IMPORTS_TLS)?, "wasi:tls/types@0.2.0"),
        ("an unknown import", artifact::wasm(artifact::IMPORTS_ENV)?, "env.steal"),
    ])
}

fn too_large() -> Vec<u8> {
    vec![0; usize::try_from(ARTIFACT_BYTES_MAX).unwrap() + 1]
}

#[test]
fn publish_refuses_naming_the_import_or_the_rule_and_what_runs_goes_on() -> Result<()> {
    let directory = directory()?;
    let (fleet, node) = fleet_with_node(&directory)?;
    let hello = function("hello");
    let revision = fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;

    let bound = ARTIFACT_BYTES_MAX.to_string();
    let mut cases: Vec<(&str, Vec<u8>, &str)> = refused()?;
    cases.push(("too large", too_large(), &bound));
    for (what, wasm, named) in cases {
        let path = directory.path().join("refused.wasm");
        fs::write(&path, &wasm)?;
        let manifest = artifact::manifest_path("hello");
        let done = sedge(Some(&fleet.data()), &["publish", &path.to_string_lossy(), "--manifest", &manifest.to_string_lossy()])?;
        assert!(done.code != Some(0) && done.stderr.contains(named), "{what}: {done:?}");

        // Past the command line's own check: the fleet looks again.
        let (status, text) = fleet.put_artifact(&Digest::of(&wasm), &wasm)?;
        assert!(matches!(status, 413 | 422) && text.contains(named), "{what}: {status} {text}");
        assert!(!fleet.artifact_path(&Digest::of(&wasm)).exists(), "{what} was kept");
    }
    assert_eq!(node.running(&hello)?, Some(revision.id));
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    Ok(())
}

#[test]
fn what_the_manifest_did_not_ask_for_is_refused_everywhere_with_the_line_to_add() -> Result<()> {
    const LINE: &str = "add `keyvalue = [\"default\"]` under [access] in function.toml";
    let directory = directory()?;
    let fleet = fleet_tests::Fleet::start(directory.path())?;
    let node = Node::start(directory.path(), "node-2", None)?;
    let (wasm, manifest) = (artifact::guest("average")?, artifact::manifest_of("name = 'average'\n")?);
    let path = directory.path().join("function.toml");
    fs::write(&path, "name = 'average'\n")?;
    let guest = artifact::guest_path("average")?;
    let done = sedge(Some(&fleet.data()), &["publish", &guest.to_string_lossy(), "--manifest", &path.to_string_lossy()])?;
    assert!(done.code != Some(0) && done.stderr.contains(LINE), "{done:?}");
    let refused = fleet.publish(&manifest, &wasm).unwrap_err().to_string();
    assert!(refused.contains(LINE), "{refused}");
    let refused = node.give(&manifest, &wasm).unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains(LINE), "{refused}");
    Ok(())
}

#[test]
fn a_node_refuses_by_itself_what_was_not_published() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let revision = node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    for (what, wasm, named) in refused()? {
        let answer = node.ask(Method::PUT, &format!("/v1/artifacts/{}", Digest::of(&wasm)), wasm)?;
        assert!(answer.status.as_u16() == 422 && answer.text().contains(named), "{what}: {answer:?}");
    }
    let answer = node.ask(Method::PUT, &format!("/v1/artifacts/{}", Digest::of(b"large")), too_large())?;
    assert_eq!(answer.status.as_u16(), 413, "{answer:?}");
    let wasm = artifact::guest("average")?;
    let answer = node.ask(Method::PUT, &format!("/v1/artifacts/{}", Digest::of(b"other")), wasm)?;
    assert!(answer.status.as_u16() == 422 && answer.text().contains("digest"), "{answer:?}");
    assert_eq!(node.running(&function("hello"))?, Some(revision));
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    Ok(())
}
