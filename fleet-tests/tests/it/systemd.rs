//! Under systemd itself: Debian booted in a container, both daemons started by their units.

use crate::support::directory;
use anyhow::{Context as _, Result, ensure};
use fleet_tests::artifact;
use fleet_tests::process::binary;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A node that listens where nothing else does: the container shares the network of the machine.
const CONFIG: &str = "data_dir = '/var/lib/sedge'\n[http]\nlisten = '127.0.0.1:0'\n[local]\nsocket = '/run/sedged/sedged.sock'\n";
const PROBE_UNIT: &str = "[Unit]\nAfter=systemd-journald.service\n[Service]\nType=oneshot\nExecStart=/bin/sh /probe/run\n";
const PACKAGES: &str = "systemd,systemd-sysv,dbus";

#[test]
#[ignore = "boots Debian: needs root, mmdebstrap, systemd-container; `cargo xtask test --all`"]
fn both_daemons_are_services_of_systemd() -> Result<()> {
    let base = base()?;
    let directory = directory()?;
    let probe = directory.path();
    fs::create_dir(probe.join("units"))?;
    for unit in ["sedged.service", "sedge-fleet.service"] {
        fs::copy(artifact::repository().join("image/units").join(unit), probe.join("units").join(unit))?;
    }
    fs::write(probe.join("run"), include_str!("systemd.sh"))?;
    fs::write(probe.join("sedged.toml"), CONFIG)?;
    fs::copy(artifact::guest_path("faulty")?, probe.join("faulty.wasm"))?;
    fs::copy(artifact::manifest_path("faulty"), probe.join("faulty.toml"))?;

    let mut container = Command::new("systemd-nspawn");
    container.arg("--quiet").arg("--directory").arg(&base).args(["--volatile=overlay", "--register=no", "--keep-unit", "--boot"]);
    container.arg(format!("--bind={}:/probe", probe.display()));
    for name in ["sedged", "sedge-fleet", "sedge"] {
        container.arg(format!("--bind-ro={}:/usr/bin/{name}", binary(name)?.display()));
    }
    let output = container.output().context("boot the container")?;
    let answer = fs::read_to_string(probe.join("answer")).unwrap_or_default();
    let log = fs::read_to_string(probe.join("log")).unwrap_or_default();
    let said: BTreeMap<&str, &str> = answer.lines().filter_map(|line| line.split_once('=')).collect();
    let console = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| said.get(name).copied().with_context(|| format!("no `{name}` in:\n{answer}\n{log}\n{console}"));
    for (name, expected) in [
        ("ready", "yes"),
        ("rolled_out", "yes"),
        ("FUNCTION", "faulty"),
        ("sedged.restarts", "0"),
        ("sedge-fleet.restarts", "0"),
        ("sedged.restarted", "1"),
        ("sedge-fleet.restarted", "1"),
        ("sedged.stopped", "inactive,0"),
        ("sedge-fleet.stopped", "inactive,0"),
    ] {
        assert_eq!(value(name)?, expected, "{name} in:\n{answer}\n{log}");
    }
    assert!(value("MESSAGE")?.starts_with("line ") && value("REVISION")?.len() == 12 && !value("INVOCATION")?.is_empty(), "{answer}");
    Ok(())
}

/// A small Debian of the machine's own release, made once.
fn base() -> Result<PathBuf> {
    let base = artifact::repository().join("target/systemd-root");
    if base.join("probe").is_dir() {
        return Ok(base);
    }
    drop(fs::remove_dir_all(&base));
    let release = fs::read_to_string("/etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("the release has no name")?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), suite]).arg(&base).args(sources()?);
    let output = command.output().context("run mmdebstrap")?;
    ensure!(output.status.success(), "mmdebstrap failed: {}", String::from_utf8_lossy(&output.stderr));
    let units = base.join("etc/systemd/system");
    fs::write(units.join("probe.service"), PROBE_UNIT)?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    std::os::unix::fs::symlink("/etc/systemd/system/probe.service", units.join("multi-user.target.wants/probe.service"))?;
    // The last step: what is there is whole.
    fs::create_dir(base.join("probe"))?;
    Ok(base)
}

/// Where the machine itself gets its packages from.
fn sources() -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d")?.filter_map(|entry| Some(entry.ok()?.path())));
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    files.retain(|path| text(path).lines().any(|line| line.starts_with("deb ") || line.starts_with("URIs:")));
    Ok(files)
}
