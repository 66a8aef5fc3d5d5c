//! The image for boxes in the field: what an operator asks for on the boot partition, and nothing else, is open.

use super::online;
use crate::support::{directory, now_ms};
use anyhow::Result;
use fleet_tests::hardware::{Card, Drive, Hardware};
use fleet_tests::login::Key;
use fleet_tests::machine::HOST;
use fleet_tests::process::run;
use fleet_tests::wire::Wire;
use fleet_tests::{Board, Disk, Fleet, Machine, wait};
use std::fs;
use std::process::{Command, Output};

/// A gateway: NVMe, a network card of Intel, a serial line beside that of the console, and one on USB.
const GATEWAY: Hardware = Hardware {
    drive: Drive::Nvme,
    card: Card::E1000e,
    secure_boot: false,
    more: &[
        "-chardev",
        "null,id=line",
        "-device",
        "pci-serial,chardev=line",
        "-device",
        "qemu-xhci,id=usb",
        "-chardev",
        "null,id=adapter",
        "-device",
        "usb-serial,bus=usb.0,chardev=adapter,always-plugged=on",
    ],
};
/// Opens the broker to the network, and metrics on a port that the firewall of the image does not know.
const SETTINGS: &str = "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.users]\nsensor = 'reading'\n[metrics]\nlisten = '[::]:9464'\n";
const METRICS: u16 = 9464;
const SSH: u16 = 22;
/// A program that opens the file `$1` as the daemon could: its account and groups, in its control group, where only some devices exist.
const AS_DAEMON: &str = r#"pid=$(systemctl show -P MainPID sedged) && cat "/proc/$pid/cgroup" | cut -d: -f3 | while read -r group; do echo $$ >"/sys/fs/cgroup$group/cgroup.procs"; done
groups=$(sed -n 's/^Groups:[[:space:]]*//p' "/proc/$pid/status" | sed 's/ *$//; s/ /,/g')
exec setpriv --reuid=sedge --regid=sedge --groups="$groups" --inh-caps=-all --bounding-set=-all sh -c "exec 3<>$1""#;

/// One reading, by whoever `arguments` say.
fn publish(machine: &Machine, arguments: &[&str]) -> Result<Output> {
    let (host, port) = (machine.mqtt.ip().to_string(), machine.mqtt.port().to_string());
    run(Command::new("mosquitto_pub").args(["-h", &host, "-p", &port, "-q", "1", "-t", "plant/s1", "-m", "1"]).args(arguments))
}

#[test]
#[ignore = "boots the image for gateways twice: `cargo xtask test --all`"]
fn what_the_boot_partition_asks_for_is_open_and_shut_again_without_it() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    // A new cable for each boot: what was not taken from the one before would be heard again.
    let wire = || -> Result<Wire> { Wire::new(&tempfile::tempdir_in(directory.path())?.keep()) };
    let (key, other) = (Key::new(directory.path(), "key")?, Key::new(directory.path(), "other")?);
    let settings = directory.path().join("mine.toml");
    fs::write(&settings, SETTINGS)?;
    let told = ["--debug-login", &key.public()?, "--config", &settings.to_string_lossy()];
    let disk = Disk::of_gateway(directory.path(), &fleet.membership()?, &told)?;
    let cable = wire()?;
    let mut machine = Machine::boot_on(&disk, &GATEWAY, &cable.arguments())?;
    online(&fleet, &mut machine, 0)?;

    // The key of the file signs in and no other one; nothing but a key does.
    let who = wait::until_within(Board::Pc.patience(), "the key signs in", || {
        machine.check()?;
        Ok(key.ask(machine.ssh, "id -un").ok())
    })?;
    assert_eq!(who, "root");
    let refused = other.try_ask(machine.ssh, "true")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Permission denied (publickey)"), "{said}");
    assert_eq!(cable.answering(SSH, METRICS)?, [SSH, METRICS].into());
    inside(&key, &machine)?;

    // The broker takes who has a password.
    wait::until("the broker takes a reading", || {
        Ok(publish(&machine, &["-u", "sensor", "-P", "reading"])?.status.success().then_some(()))
    })?;
    for wrong in [&[][..], &["-u", "sensor", "-P", "readin"], &["-u", "root", "-P", ""]] {
        let refused = publish(&machine, wrong)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("bad user name or password"), "{wrong:?}: {said}");
    }
    drop(machine);

    // Settings with a fault change nothing, and say so where the card is read; the line of the key is gone.
    assert_eq!(disk.read("sedged.last-good.toml")?, SETTINGS);
    disk.write("sedged.toml", &format!("{SETTINGS}[http]\nlissten = '0.0.0.0:80'\n"))?;
    let claim = disk.read("claim.toml")?;
    let (kept, _debug) = claim.split_once("[debug]").unwrap();
    disk.write("claim.toml", kept)?;
    let begin_ms = now_ms()?;
    let cable = wire()?;
    let mut machine = Machine::boot_on(&disk, &GATEWAY, &cable.arguments())?;
    online(&fleet, &mut machine, begin_ms)?;
    assert_eq!(cable.answering(SSH, METRICS)?, [METRICS].into(), "nobody signs in");
    assert!(publish(&machine, &["-u", "sensor", "-P", "reading"])?.status.success());
    let fault = disk.read("sedged-fault.txt")?;
    assert!(fault.starts_with("sedged.toml:8: unknown key `http.lissten`; did you mean `listen`?\n"), "{fault}");
    drop(machine);

    // Back to what the image says, with the key again: the box is known by the key that it had.
    disk.remove("sedged.toml")?;
    disk.write("claim.toml", &claim)?;
    let begin_ms = now_ms()?;
    let cable = wire()?;
    let mut machine = Machine::boot_on(&disk, &GATEWAY, &cable.arguments())?;
    online(&fleet, &mut machine, begin_ms)?;
    wait::until_within(Board::Pc.patience(), "the key signs in", || Ok(key.ask(machine.ssh, "true").ok()))?;
    assert_eq!(cable.answering(METRICS, SSH)?, [SSH].into());
    assert!(!publish(&machine, &["-u", "sensor", "-P", "reading"])?.status.success(), "the broker is for the box alone");
    assert!(disk.read("sedged-fault.txt").is_err() && disk.read("sedged.last-good.toml").is_err());
    Ok(())
}

/// What can only be seen from inside.
fn inside(key: &Key, machine: &Machine) -> Result<()> {
    let ask = |command: &str| key.ask(machine.ssh, command);
    assert_eq!(ask("systemctl is-system-running --wait")?, "running", "{}", ask("systemctl --failed; journalctl -b -p warning")?);
    // Looked at after the node has started, so that it starts sooner.
    wait::until("the devices have their groups", || {
        let groups = ask("stat -c %G /dev/ttyS1 /dev/ttyUSB0 /dev/i2c-0").unwrap_or_default();
        Ok((groups == "dialout\ndialout\ni2c").then_some(()))
    })?;
    let opens = |path: &str| key.try_ask(machine.ssh, &format!("set -- {path}; {AS_DAEMON}"));
    for line in ["/dev/ttyS1", "/dev/ttyUSB0", "/dev/i2c-0"] {
        let opened = opens(line)?;
        assert!(opened.status.success(), "{line}: {}", String::from_utf8_lossy(&opened.stderr));
    }
    for shut in ["/dev/nvme0n1", "/dev/mem", "/etc/sedge/sedged.toml", "/run/sedge/login/authorized_keys"] {
        assert!(!opens(shut)?.status.success(), "{shut} is none of the daemon's business");
    }
    // The data partition has grown to its disk, is mounted without the times of reading, and nothing is swapped to it; the log is in memory.
    let data_mib: u64 = ask("df --output=size -B1M /data | tail -1")?.trim().parse()?;
    assert!(data_mib > 1100, "{data_mib} MiB of a disk of 2 GiB with slots of 705 MiB");
    assert_eq!(ask("grep -c ' /data ext4 .*noatime' /proc/mounts; tail -n +2 /proc/swaps | cut -d' ' -f1")?, "1\n/dev/zram0");
    assert_eq!(ask("ls -d /run/log/journal /var/log/journal 2>/dev/null; ls /data/log")?, "/run/log/journal\nwarnings");
    // What one signs in for is not what others find: nothing is swapped, nothing is written to the root.
    assert_eq!(ask("touch /usr/x 2>&1 | grep -c 'Read-only'; stat -c %a /data/login/host_key")?, "1\n600");
    println!("{}", ask("systemd-analyze security sedged.service --no-pager | tail -1")?);
    println!(
        "{}",
        ask("grep -E '^Mem(Total|Free|Available)' /proc/meminfo; df -h / /data; cat /sys/fs/cgroup/sedge.slice/memory.current")?
    );
    Ok(())
}
