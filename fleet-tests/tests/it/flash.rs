//! `sedge flash`, the binary: from an image to a node of a real fleet, and everything that it refuses.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::cli::{Done, done, sedge};
use fleet_tests::process::{binary, run};
use fleet_tests::small_image::{SmallImage, boot_file, checksum, table};
use fleet_tests::{Fleet, Node, SmallDisk, until};
use sedge_protocol::Digest;
use sedge_provisioning::ClaimFile;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// The token of a claim that no fleet knows.
const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk";
const DAY_MS: u64 = 24 * 3600 * 1000;

fn flash(image: &Path, to: &Path, more: &[&str]) -> Result<Done> {
    sedge(None, &[&["flash", image.to_str().unwrap(), "--to", to.to_str().unwrap()], more].concat())
}

/// What lies in a directory, so that what a command left there is seen.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_flashed_file_has_everything_that_makes_a_node() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let image = SmallImage::new(6)?;
    let (packed, disk) = (image.pack(directory.path())?, directory.path().join("disk.img"));
    let told = sedge(
        Some(&fleet.data()),
        &[
            &["flash", packed.to_str().unwrap(), "--to", disk.to_str().unwrap(), "--json", "--new-claim", "--name", "gate-7"][..],
            &["--label", "site=berlin", "--size", "300MiB", "--static-ip", "192.168.1.20/24", "--gateway", "192.168.1.1"],
            &["--dns", "192.168.1.1", "--ntp", "time.example", "--interface", "en*", "--debug-login", KEY],
        ]
        .concat(),
    )?;
    let talk = told.stderr.clone();
    let told: Value = told.json()?;
    assert!(talk.contains("flashed") && talk.contains("next: ") && !talk.contains("there is no"), "{talk}");
    assert_eq!((&told["bytes"], &told["name"], &told["disk"]), (&json!(300 << 20), &json!("gate-7"), &Value::Null), "{told}");
    assert_eq!(told["image"]["checksum"], json!(checksum(&packed)));
    // The disk is the image, with its table moved to the end of what it is now.
    let found = table(&disk)?;
    assert_eq!(
        (found.partitions.as_slice(), found.last_sector),
        (&["esp", "root-a", "root-b"].map(str::to_owned)[..], (300 << 20) / 512 - 1)
    );
    let bytes = fs::read(&disk)?;
    assert!(bytes[image.root.clone()] == image.disk[image.root.clone()]);
    assert_eq!(boot_file(&disk, "EFI/BOOT/BOOTX64.EFI")?, [7; 3000]);
    let metadata = fs::metadata(&disk)?;
    assert!(metadata.blocks() * 512 < 60 << 20, "{} blocks of a sparse file", metadata.blocks());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "there is a claim in it");
    // The claim is of this box alone, lasts a week, and is nowhere but in the file.
    let text = String::from_utf8(boot_file(&disk, "claim.toml")?)?;
    let file = ClaimFile::parse(&text)?;
    assert!(!talk.contains(file.fleet.claim.as_ref().unwrap()) && !told.to_string().contains(file.fleet.claim.as_ref().unwrap()));
    let claims = fleet.claims()?;
    let now = fleet.get::<sedge_protocol::api::Status>("/api/v1/status")?.time_ms;
    assert_eq!((claims.len(), claims[0].uses, claims[0].labels.to_string()), (1, 1, "site=berlin".to_owned()));
    assert!((6 * DAY_MS..=7 * DAY_MS).contains(&(claims[0].expires_ms - now)), "{}", claims[0].expires_ms);
    assert_eq!(told["claim"], json!(claims[0].id));
    let network = file.network.unwrap().unit();
    assert!(
        network.contains("Name=en*")
            && network.contains("Address=192.168.1.20/24\nGateway=192.168.1.1\nDNS=192.168.1.1\nNTP=time.example\n")
    );
    assert_eq!(file.debug_login.unwrap().to_string(), KEY);
    // A node that finds this file is one of the fleet.
    let claim = directory.path().join("claim.toml");
    fs::write(&claim, text)?;
    let node = Node::start_with(directory.path(), "box", None, &format!("fleet = {{ file = '{}' }}", claim.display()))?;
    node.online()?;
    let nodes = fleet.nodes()?;
    assert_eq!((nodes[0].id.as_str(), nodes[0].labels.to_string()), ("gate-7", "site=berlin".to_owned()));
    assert_eq!(fleet.claims()?[0].used, 1);
    Ok(())
}

#[test]
fn a_bad_image_costs_neither_the_disk_nor_a_claim() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let image = SmallImage::new(2)?;
    let good = fs::read(image.pack(directory.path())?)?;
    let place = directory.path().join("place");
    fs::create_dir(&place)?;
    let disk = place.join("disk.img");
    fs::write(&disk, "precious")?;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut no_boot = image.disk.clone();
    no_boot[(1 << 20) + 510] = 0;
    let cases: [(&str, Vec<u8>); 10] = [
        ("is damaged or cut off", flipped(good.len() / 2)),
        ("is damaged or cut off", flipped(good.len() - 1)),
        ("is damaged or cut off", good[..good.len() / 2].to_vec()),
        ("is damaged or cut off", good[..good.len() - 4].to_vec()),
        ("is damaged or cut off", [&good[..], b"more"].concat()),
        ("has no partition table", Vec::new()),
        ("has no partition table", b"[fleet]\n".repeat(100_000)),
        ("is cut off or continued", image.disk[..20 << 20].to_vec()),
        ("is cut off or continued", [&image.disk[..], &vec![0; 2 << 20]].concat()),
        ("its boot partition has no FAT", no_boot),
    ];
    for (expected, bytes) in cases {
        let path = directory.path().join("bad.img");
        fs::write(&path, bytes)?;
        let arguments = ["flash", path.to_str().unwrap(), "--to", disk.to_str().unwrap(), "--yes", "--new-claim"];
        let told = sedge(Some(&fleet.data()), &arguments)?;
        assert_eq!(told.code, Some(1), "{expected}: {}", told.stderr);
        assert!(told.stderr.contains(expected) && told.stderr.contains("next: "), "{expected}: {}", told.stderr);
        assert_eq!((fs::read(&disk)?, names(&place)), (b"precious".to_vec(), vec!["disk.img".to_owned()]), "{expected}");
    }
    assert!(fleet.claims()?.is_empty(), "a claim was wasted");
    Ok(())
}

#[test]
fn a_checksum_beside_the_image_is_compared() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(2)?.pack(directory.path())?;
    let disk = directory.path().join("disk.img");
    for (text, expected) in [
        (format!("{}  sedge-test-x86-64-0.1.0.img.zst\n", "ab".repeat(32)), "does not have the checksum"),
        ("nothing of use\n".to_owned(), "as sha256sum writes it"),
        (String::new(), "as sha256sum writes it"),
    ] {
        fs::write(checksum(&packed), text)?;
        let told = flash(&packed, &disk, &["--no-claim"])?;
        assert!(told.code == Some(1) && told.stderr.contains(expected) && !disk.exists(), "{}", told.stderr);
    }
    fs::remove_file(checksum(&packed))?;
    let told = flash(&packed, &disk, &["--no-claim"])?;
    assert!(told.code == Some(0) && told.stderr.contains("there is no") && told.stderr.contains("copy a claim.toml"), "{}", told.stderr);
    assert!(boot_file(&disk, "claim.toml").is_err());
    assert!(told.stderr.contains("--size 4GiB makes room"), "{}", told.stderr);
    Ok(())
}

#[test]
fn settings_of_the_node_are_checked_before_anything_is_written() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(2)?.pack(directory.path())?;
    let (disk, settings) = (directory.path().join("disk.img"), directory.path().join("mine.toml"));
    let told = |text: &[u8]| {
        fs::write(&settings, text)?;
        flash(&packed, &disk, &["--no-claim", "--config", settings.to_str().unwrap()])
    };
    for (text, expected) in [
        (&b"[mqtt]\nlisten = '0.0.0.0:1883'\n"[..], "mine.toml:2: `mqtt.listen`: beyond loopback everybody could publish"),
        (b"[fleet]\nurl = 'https://f'\n", "mine.toml:1: `fleet` cannot be set here: the fleet is in claim.toml"),
        (b"[mqtt\n", "mine.toml:1: "),
        (&[0xff, 0xfe], "not UTF-8"),
        (&[b' '; 70_000], "more than 65536 bytes"),
    ] {
        let told = told(text)?;
        assert_eq!(told.code, Some(78), "{expected}: {}", told.stderr);
        assert!(told.stderr.contains(expected) && !disk.exists(), "{expected}: {}", told.stderr);
    }
    let good = "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.users]\nsensor = 'reading'\n";
    let told = told(format!("\u{feff}{good}").as_bytes())?;
    assert!(told.code == Some(0) && !told.stderr.contains("reading"), "{}", told.stderr);
    assert_eq!(boot_file(&disk, "sedged.toml")?, good.as_bytes());
    Ok(())
}

#[test]
fn what_the_command_line_says_has_to_fit_together() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(2)?.pack(directory.path())?;
    let pin = Digest::of(b"ca").to_string();
    let fleet = ["--fleet", "https://fleet.example:7443", "--ca-pin", &pin];
    let disk = directory.path().join("disk.img");
    for (code, wrong) in [
        (64, &[][..]),
        (64, &["--no-claim", "--new-claim"]),
        (64, &["--no-claim", "--label", "a=b"]),
        (64, &["--no-claim", "--debug-login", KEY]),
        (64, &["--no-claim", "--size", "1MiB"]),
        (64, &["--no-claim", "--size", "large"]),
        (64, &["--no-claim", "--ttl", "2d"]),
        (64, &["--claim", TOKEN, "--ttl", "2d"]),
        (64, &["--no-claim", "--static-ip", "192.168.1.20/24"]),
        (64, &["--no-claim", "--gateway", "192.168.1.1"]),
        (64, &["--claim", TOKEN, "--gateway", "192.168.1.1"]),
        (64, &["--claim", TOKEN, "--static-ip", "192.168.1.20"]),
        (64, &["--claim", TOKEN, "--static-ip", "192.168.1.20/24", "--interface", "en\n[x]"]),
        (64, &["--claim", "two words"]),
        (64, &["--claim", &TOKEN[1..]]),
        (64, &["--claim", TOKEN, "--label", "a=b", "--label", "a=c"]),
        (64, &["--claim", TOKEN, "--debug-login", "ssh-rsa AAAA"]),
        (78, &["--claim", TOKEN]),
        (78, &["--new-claim"]),
    ] {
        let told = flash(&packed, &disk, wrong)?;
        assert_eq!(told.code, Some(code), "{wrong:?}: {}", told.stderr);
        assert!(!disk.exists(), "{wrong:?}");
    }
    // A claim that is there already needs no login, and its labels go into the file.
    let given = [&["--claim", TOKEN, "--label", "site=a", "--label", "line=1"], &fleet[..]].concat();
    assert_eq!(flash(&packed, &disk, &given)?.code, Some(0));
    let file = ClaimFile::parse(&String::from_utf8(boot_file(&disk, "claim.toml")?)?)?;
    assert_eq!((file.fleet.url.as_str(), file.fleet.claim.as_deref()), ("https://fleet.example:7443", Some(TOKEN)));
    assert_eq!((file.fleet.labels.to_string(), file.network), ("line=1,site=a".to_owned(), None));
    // What can never work is said before anything is written.
    for (network, said) in [
        (&["--static-ip", "192.168.1.20/24", "--gateway", "10.0.0.1"][..], "in none of the networks"),
        (&["--static-ip", "192.168.1.0/24"], "the address of the network itself"),
    ] {
        let told = flash(&packed, &directory.path().join("never.img"), &[&["--claim", TOKEN], network, &fleet[..]].concat())?;
        assert!(told.code == Some(78) && told.stderr.contains(said), "{:?} {}", told.code, told.stderr);
    }
    let told = flash(&packed, &packed, &["--no-claim", "--yes"])?;
    assert!(told.code == Some(64) && told.stderr.contains("is the image itself"), "{}", told.stderr);
    assert!(
        !directory.path().join("never.img").exists() && fs::read(&packed)?.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
        "still the packed image"
    );
    // What exists is written over only when told to.
    let told = flash(&packed, &disk, &["--no-claim"])?;
    assert!(told.code == Some(64) && told.stderr.contains("add --yes"), "{}", told.stderr);
    assert!(boot_file(&disk, "claim.toml").is_ok());
    assert_eq!(flash(&packed, &disk, &["--no-claim", "--yes"])?.code, Some(0));
    assert!(boot_file(&disk, "claim.toml").is_err() && table(&disk).is_ok());
    Ok(())
}

/// A fleet that knows its status and then falls silent: whoever asks it for a claim waits.
fn silent_fleet() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        let mut waiting = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            if bytes[..count].starts_with(b"GET") {
                let body = serde_json::to_string(&sedge_protocol::api::Status::default()).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                drop(stream.write_all(head.as_bytes()));
            } else {
                waiting.push(stream);
            }
        }
    });
    Ok(url)
}

/// The file that is written before it has its name.
fn part(directory: &Path) -> Option<PathBuf> {
    names(directory).into_iter().find(|name| name.ends_with(".part")).map(|name| directory.join(name))
}

#[test]
fn a_flash_that_is_killed_leaves_nothing_that_looks_finished() -> Result<()> {
    let directory = directory()?;
    let image = SmallImage::new(6)?;
    let packed = image.pack(directory.path())?;
    let place = directory.path().join("place");
    fs::create_dir(&place)?;
    let disk = place.join("disk.img");
    fs::write(&disk, "precious")?;
    let mut command = Command::new(binary("sedge")?);
    command.arg("flash").arg(&packed).arg("--to").arg(&disk).args(["--yes", "--new-claim", "--fleet", &silent_fleet()?, "--token", "t"]);
    let mut process = command.env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // Everything is written but what makes it a disk; now it waits for its claim.
    let cut = until("all of the slot is written", || {
        let Some(part) = part(&place) else { return Ok(None) };
        let mut end = [0; 512];
        let read = fs::File::open(&part)?.read_exact_at(&mut end, image.root.end as u64 - 512);
        Ok((read.is_ok() && end[..] == image.disk[image.root.end - 512..image.root.end]).then_some(part))
    })?;
    process.kill()?;
    process.wait()?;
    assert_eq!(fs::read(&disk)?, b"precious");
    assert!(table(&cut).is_err(), "what was cut off looks finished");
    assert!(fs::read(&cut)?[..1 << 20].iter().all(|byte| *byte == 0));
    // The next one does not mind.
    assert_eq!(flash(&packed, &disk, &["--no-claim", "--yes"])?.code, Some(0));
    assert!(table(&disk).is_ok());
    Ok(())
}

#[test]
fn who_is_told_to_stop_leaves_all_or_nothing() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(64)?.pack(directory.path())?;
    let place = directory.path().join("place");
    fs::create_dir(&place)?;
    let disk = place.join("disk.img");
    let mut command = Command::new(binary("sedge")?);
    command.arg("flash").arg(&packed).arg("--to").arg(&disk).arg("--no-claim").stdin(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn()?;
    until("it writes", || Ok((part(&place).is_some() || disk.exists()).then_some(())))?;
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::INT).ok();
    match process.wait()?.code() {
        Some(0) => assert!(table(&disk).is_ok() && names(&place) == ["disk.img"]),
        Some(1) => assert!(names(&place).is_empty(), "{:?}", names(&place)),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn a_full_disk_is_refused_before_it_is_full() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(30)?.pack(directory.path())?;
    let small = SmallDisk::mount(&directory.path().join("small"), 20)?;
    let mut command = small.command(&binary("sedge")?);
    command.arg("flash").arg(&packed).arg("--to").arg(directory.path().join("small/disk.img")).arg("--no-claim");
    let told = done(&run(&mut command)?);
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stderr.contains("20 MiB are free") && told.stderr.contains("next: make room"), "{}", told.stderr);
    assert!(names(&small.outside()).is_empty());
    Ok(())
}

/// The disk that `/` lies on, when it can be told from here.
fn system_disk() -> Option<PathBuf> {
    let device = fs::metadata("/").ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let path = fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()?;
    let disk = if path.join("partition").exists() { path.parent()?.to_owned() } else { path };
    Some(Path::new("/dev").join(disk.file_name()?)).filter(|path| path.exists())
}

#[test]
fn the_disk_that_this_machine_runs_from_is_left_alone() -> Result<()> {
    let Some(disk) = system_disk() else {
        println!("skipped: `/` lies on nothing that can be named here");
        return Ok(());
    };
    // The disk is looked at before the image, which is none: whatever is wrong here, nothing is written.
    let told = flash(Path::new("/nonexistent.img.zst"), &disk, &["--no-claim", "--yes"])?;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stderr.contains("runs from") && told.stderr.contains("name another disk"), "{}", told.stderr);
    Ok(())
}

#[test]
fn what_is_no_image_and_no_disk_is_named() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(2)?.pack(directory.path())?;
    for (image, to, code, expected) in [
        (Path::new("/nonexistent.img"), directory.path().join("a"), 1, "read /nonexistent.img"),
        (directory.path(), directory.path().join("a"), 1, "not a file"),
        (&packed, "/dev/null".into(), 64, "neither a disk nor a file"),
        (&packed, directory.path().to_owned(), 64, "neither a disk nor a file"),
        (&packed, "/dev/no-such-disk".into(), 64, "neither a disk nor a file"),
        (&packed, directory.path().join("none/disk.img"), 1, "look at"),
    ] {
        let told = flash(image, &to, &["--no-claim", "--yes"])?;
        assert_eq!(told.code, Some(code), "{}: {}", to.display(), told.stderr);
        assert!(told.stderr.contains(expected) && told.stderr.contains("next: "), "{}", told.stderr);
    }
    Ok(())
}
