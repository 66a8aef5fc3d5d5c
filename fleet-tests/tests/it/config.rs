//! Configurations and manifests that cannot be used: all faults at once, and an exit code of their own.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::cli::{done, sedge};
use fleet_tests::node::sedged_with;
use fleet_tests::process::{binary, run};
use fleet_tests::{Fleet, artifact};
use std::fs;
use std::net::TcpListener;
use std::process::Command;

const CONFIGURATION: Option<i32> = Some(78);

#[test]
fn every_fault_of_a_nodes_configuration_is_listed_with_its_line() -> Result<()> {
    let directory = directory()?;
    let text = "data_dirr = '/x'\n[http]\nlisten = 'nowhere'\n[mqtt]\nlisten = '127.0.0.1:0'\nport = 1\n";
    for arguments in [&["check-config"][..], &[]] {
        let done = sedged_with(directory.path(), text, arguments)?;
        assert_eq!(done.code, CONFIGURATION, "{done:?}");
        for part in
            ["sedged.toml:1: unknown key `data_dirr`; did you mean `data_dir`?", "sedged.toml:3:", "sedged.toml:6: unknown key `mqtt.port`"]
        {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
    }
    let good = format!("data_dir = '{}'", directory.path().display());
    assert_eq!(sedged_with(directory.path(), &good, &["check-config"])?.code, Some(0));
    Ok(())
}

#[test]
fn every_port_in_use_is_listed() -> Result<()> {
    let directory = directory()?;
    let (http, mqtt) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (http, mqtt) = (http.local_addr().map(|address| (http, address))?, mqtt.local_addr().map(|address| (mqtt, address))?);
    let text = format!(
        "data_dir = '{0}/data'\n[http]\nlisten = '{1}'\n[mqtt]\nlisten = '{2}'\n[local]\nsocket = '{0}/socket'\n",
        directory.path().display(),
        http.1,
        mqtt.1
    );
    let done = sedged_with(directory.path(), &text, &[])?;
    assert_eq!(done.code, CONFIGURATION, "{done:?}");
    for part in [format!("http.listen {}", http.1), format!("mqtt.listen {}", mqtt.1)] {
        assert!(done.stderr.contains(&part), "{part}: {}", done.stderr);
    }
    Ok(())
}

#[test]
fn a_bad_file_laid_over_a_good_one_is_named_and_the_node_goes_on_without_it() -> Result<()> {
    let directory = directory()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let text = format!("data_dir = '{}/data'\n[http]\nlisten = '{}'\n", directory.path().display(), taken.local_addr()?);
    let over = directory.path().join("over.toml");
    fs::write(&over, "[http]\nlissten = '127.0.0.1:8080'\n")?;
    let arguments = ["--over", over.to_str().unwrap()];
    let done = sedged_with(directory.path(), &text, &[&["check-config"], &arguments[..]].concat())?;
    assert!(done.code == CONFIGURATION && done.stderr.contains("over.toml:2: unknown key `http.lissten`"), "{done:?}");
    // It gets as far as the port that the good one names.
    let done = sedged_with(directory.path(), &text, &arguments)?;
    assert_eq!(done.code, CONFIGURATION, "{done:?}");
    for part in ["goes on without the file", "over.toml:2: ", &format!("http.listen {}", taken.local_addr()?)] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    // One that is not there is none.
    fs::remove_file(&over)?;
    let done = sedged_with(directory.path(), &text, &arguments)?;
    assert!(done.code == CONFIGURATION && !done.stderr.contains("goes on without"), "{done:?}");
    Ok(())
}

#[test]
fn every_fault_of_a_fleets_configuration_is_listed() -> Result<()> {
    let directory = directory()?;
    let config = directory.path().join("fleet.toml");
    fs::write(&config, "data_dirr = '/x'\n[https]\nlisten = 'nowhere'\n")?;
    let done = done(&run(Command::new(binary("sedge-fleet")?).arg("--config").arg(&config))?);
    assert_eq!(done.code, CONFIGURATION, "{done:?}");
    assert!(done.stderr.contains("did you mean `data_dir`?") && done.stderr.contains("fleet.toml:3:"), "{}", done.stderr);
    Ok(())
}

#[test]
fn a_manifest_with_a_bad_cron_and_a_bad_filter_is_refused_with_both() -> Result<()> {
    let directory = directory()?;
    let text = "name = 'bad'\n[[trigger]]\ncron = '99 * * * *'\n[[trigger]]\nmqtt = 'plant/#/temperature'\n[limit]\nmemory_mb = 1\n";
    fs::write(directory.path().join("function.toml"), text)?;
    fs::copy(artifact::guest_path("hello")?, directory.path().join("hello.wasm"))?;
    let fleet = Fleet::start(directory.path())?;
    let (project, wasm) = (directory.path().to_string_lossy(), directory.path().join("hello.wasm"));
    for arguments in [&["build", &project][..], &["publish", &project], &["publish", &wasm.to_string_lossy()]] {
        let done = sedge(Some(&fleet.data()), arguments)?;
        assert_eq!(done.code, CONFIGURATION, "{arguments:?}: {done:?}");
        for part in ["function.toml:3:", "function.toml:5:", "did you mean `limits`?"] {
            assert!(done.stderr.contains(part), "{arguments:?}: {part}: {}", done.stderr);
        }
    }
    assert!(fleet.get::<Vec<sedge_protocol::api::Function>>("/api/v1/functions")?.is_empty());
    Ok(())
}
