//! Scratch directories on a real node.

use crate::support::{directory, function};
use anyhow::Result;
use fleet_tests::{Node, artifact, until};
use http::Method;
use sedge_protocol::Digest;
use sedge_protocol::local::LocalRevision;
use sedge_protocol::message::FunctionState;

#[test]
fn memory_and_scratch_are_reserved_together_and_what_never_fits_is_refused() -> Result<()> {
    let directory = directory()?;
    let node = Node::start_with(directory.path(), "node-1", None, "machine = { memory_mb = 256 }\n")?;
    let wasm = artifact::guest("clerk")?;
    let manifest = artifact::manifest_of("name = 'large'\n[limits]\nmemory_mb = 16\n[access]\nscratch_mb = 1000\n")?;
    let answer = node.ask(Method::PUT, &format!("/v1/artifacts/{}", Digest::of(&wasm)), wasm.clone())?;
    assert!(answer.status.is_success(), "{answer:?}");
    let body = serde_json::to_vec(&LocalRevision { artifact: Digest::of(&wasm), manifest })?;
    node.ask(Method::PUT, "/v1/functions/large", body)?;
    let reason = until("it is refused", || {
        let report = node.status()?.functions.into_iter().find(|report| report.function.as_str() == "large");
        Ok(match report.map(|report| report.state) {
            Some(FunctionState::Failed { reason }) => Some(reason),
            _ => None,
        })
    })?;
    // Input and output of a command, and what every instance takes beside, too.
    let need = (16 + 1000 + 8 + 1 + 3) * 1024 * 1024;
    assert!(reason.contains(&format!("an instance needs {need} bytes")) && reason.contains("access.scratch_mb"), "{reason}");
    Ok(())
}

#[test]
fn components_and_core_modules_use_it_on_a_node() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    // Only the second one's library asks why.
    for (name, full) in [("clerk", "I/O error"), ("clerk-c", "No space left on device")] {
        node.give(&artifact::manifest(name)?, &artifact::guest(name)?)?;
        let script = "write /scratch/a text\nread /scratch/a\nmv /scratch/a /scratch/b\nsize /scratch/b\nfill /scratch/c 9000\n";
        let result = node.invoke(&function(name), "test/files", script)?;
        let said = result.output;
        assert!(result.ok && said.starts_with("done\ntext\ndone\nfile 4\n20") && said.trim_end().ends_with(full), "{name}: {said}");
        until("its memory is metered", || Ok((node.totals(&function(name))?.memory_mib_ms > 0).then_some(())))?;
    }
    Ok(())
}
