//! `sedged.toml`: read strictly, every fault at once. In the image an operator's file of that name is laid over the image's own
//! ([`crate::os`]): a key of one of its tables goes before that of the image.

mod ports;

use crate::bundle;
use crate::device::{self, Device};
use crate::limits::FREE_BYTES_MIN_LEAST;
use crate::telemetry::Collector;
use sedge_protocol::Labels;
use sedge_protocol::strict::{Fault, Faults, Reader, Section};
use sedge_provisioning::{ClaimFile, Membership};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an operator says about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file it came from, for messages.
    pub(crate) file: PathBuf,
    /// Everything the node keeps.
    pub(crate) data_dir: PathBuf,
    /// Time for running work to end after SIGTERM.
    pub(crate) shutdown_grace: Duration,
    /// Where HTTP triggers are served; nowhere when absent.
    pub(crate) http: Option<SocketAddr>,
    /// The embedded broker; none when absent.
    pub(crate) mqtt: Option<Mqtt>,
    /// The local API.
    pub(crate) socket: PathBuf,
    /// The fleet; none for a node of its own.
    pub(crate) fleet: Option<Membership>,
    /// A claim for a box without a network; none when absent.
    pub(crate) bundle: Option<bundle::Place>,
    /// Store.
    pub(crate) store: StoreSettings,
    /// Bounds an operator sets below what the box has.
    pub(crate) machine: Machine,
    /// What functions may use of the node.
    pub(crate) functions: FunctionSettings,
    /// Where Prometheus reads, beside the local API; nowhere when absent.
    pub(crate) metrics: Option<SocketAddr>,
    /// The OpenTelemetry collector; none when absent.
    pub(crate) collector: Option<Collector>,
    /// The process that keeps the operating system; none where the daemon was installed by hand.
    pub(crate) os: Option<Os>,
    /// What sensors hang on.
    pub(crate) devices: Vec<Device>,
}

/// The process that keeps the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Os {
    pub(crate) socket: PathBuf,
    /// Most bytes of a new version in a second; as many as come when absent.
    pub(crate) rate: Option<u64>,
}

/// The embedded broker.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mqtt {
    pub(crate) listen: SocketAddr,
    pub(crate) users: Vec<(String, String)>,
}

impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mqtt").field("listen", &self.listen).field("users", &self.users.len()).finish()
    }
}

/// What may be tuned of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoreSettings {
    pub(crate) group_ms: Option<u64>,
    pub(crate) queue_items_max: Option<usize>,
    pub(crate) queue_bytes_max: Option<usize>,
    pub(crate) free_bytes_min: Option<u64>,
}

/// Bounds below what the box has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) memory_mb: Option<u64>,
    pub(crate) invocations: Option<u32>,
    /// Whether gdb and lldb can follow guests, which then run slower.
    pub(crate) debug_info: bool,
    /// Most time and memory that compiling one artifact may take.
    pub(crate) compile_s: Option<u64>,
    pub(crate) compile_mb: Option<u64>,
}

/// What functions may use of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FunctionSettings {
    /// Certificates of authorities that their requests trust beside the public ones, PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// Quota of the key-value stores that they share.
    pub(crate) keyvalue_shared_mb: Option<u64>,
}

/// Reads the file at `path`, and the one that is laid over it. `SEDGED_DATA_DIR` overrides `data_dir`.
pub(crate) fn load(path: &Path, over: Option<&Path>) -> Result<Config, Faults> {
    let read = |path: &Path, option: &str| {
        let unread = |cause| Fault { line: 0, message: format!("cannot be read: {cause}; name another file with {option}") };
        std::fs::read_to_string(path).map_err(|cause| Faults { file: path.display().to_string(), list: vec![unread(cause)] })
    };
    let (file, text) = (path.display().to_string(), read(path, "--config")?);
    let mut config = match over {
        Some(over) => parse_over((&file, &text), &over.display().to_string(), &read(over, "--over")?)?,
        None => parse(&file, &text)?,
    };
    if let Some(directory) = std::env::var_os("SEDGED_DATA_DIR") {
        config.data_dir = directory.into();
    }
    path.clone_into(&mut config.file);
    Ok(config)
}

/// Reads a configuration; `file` is the name that faults are reported under.
pub(crate) fn parse(file: &str, text: &str) -> Result<Config, Faults> {
    read(Reader::new(file, text)?, file)
}

/// Reads an operator's configuration over that of the image, which is named first.
pub(crate) fn parse_over(image: (&str, &str), file: &str, text: &str) -> Result<Config, Faults> {
    read(Reader::over(image, file, text)?, file)
}

fn read(reader: Reader, file: &str) -> Result<Config, Faults> {
    let root = reader.root();
    root.fixed("data_dir", "the image has a partition for it");
    root.fixed("local", "the image says where its socket is");
    root.fixed("fleet", "the fleet is in claim.toml");
    let data_dir = PathBuf::from(root.text("data_dir").unwrap_or_else(|| "/var/lib/sedge".to_owned()));
    let grace = root.integer("shutdown_grace_s", 0..=600).unwrap_or(10);
    let (fleet, bundle) = read_fleet(root.section("fleet"), &data_dir);
    let config = Config {
        file: PathBuf::from(file),
        data_dir,
        shutdown_grace: Duration::from_secs(grace),
        http: read_listen(root.section("http")),
        mqtt: read_mqtt(root.section("mqtt")),
        socket: read_socket(root.section("local")),
        fleet,
        bundle,
        store: read_store(root.section("store")),
        machine: read_machine(root.section("machine")),
        functions: read_functions(root.section("functions")),
        metrics: read_listen(root.section("metrics")),
        collector: read_collector(root.section("telemetry")),
        os: read_os(root.section("os")),
        devices: device::read(root.sections("device")),
    };
    if root.is_laid_over() {
        ports::check(&root, &config);
    }
    root.finish();
    reader.finish(Some(config))
}

fn read_listen(section: Section<'_>) -> Option<SocketAddr> {
    let listen = section.is_present().then(|| section.require("listen")).flatten();
    section.finish();
    listen
}

fn read_collector(section: Section<'_>) -> Option<Collector> {
    if !section.is_present() {
        section.finish();
        return None;
    }
    let url: Option<String> = section.require("otlp");
    let whole =
        |url: &String| url.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
    if url.as_ref().is_some_and(|url| !whole(url)) {
        section.reject("otlp", "write it as http://host:4318 or https://host:4318; /v1/traces and /v1/metrics are added");
    }
    let headers: Vec<(String, String)> = section.free("headers").into_iter().collect();
    let valid = |(name, value): &&(String, String)| {
        http::HeaderName::try_from(name.as_str()).is_ok() && http::HeaderValue::try_from(value.as_str()).is_ok()
    };
    for (name, _) in headers.iter().filter(|header| !valid(header)) {
        section.reject("headers", format!("`{name}` or its value cannot be a header of HTTP"));
    }
    let ca_file = section.text("ca_file").unwrap_or_else(|| "/etc/ssl/certs/ca-certificates.crt".to_owned());
    if url.as_ref().is_some_and(|url| url.starts_with("https:"))
        && let Err(error) = std::fs::metadata(&ca_file)
    {
        section.reject("ca_file", format!("`{ca_file}`: {error}; name a file with the certificates that the collector's is signed by"));
    }
    let sample_millionths = section.millionths("sample_ratio").unwrap_or(1_000_000);
    let interval = Duration::from_secs(section.integer("interval_s", 1..=3600).unwrap_or(15));
    section.finish();
    Some(Collector { url: url?, headers, ca_file: PathBuf::from(ca_file), sample_millionths, interval })
}

fn read_mqtt(section: Section<'_>) -> Option<Mqtt> {
    let listen = section.is_present().then(|| section.require("listen")).flatten();
    let users: Vec<(String, String)> = section.free("users").into_iter().collect();
    if listen.is_some_and(|listen: SocketAddr| !listen.ip().is_loopback()) && users.is_empty() {
        section.reject("listen", "beyond loopback everybody could publish: name who may in [mqtt.users], or listen on 127.0.0.1");
    }
    section.finish();
    Some(Mqtt { listen: listen?, users })
}

fn read_socket(section: Section<'_>) -> PathBuf {
    let socket = section.text("socket").unwrap_or_else(|| "/run/sedged/sedged.sock".to_owned());
    section.finish();
    PathBuf::from(socket)
}

fn read_os(section: Section<'_>) -> Option<Os> {
    section.fixed("socket", "the image says where its socket is");
    let socket: Option<PathBuf> = section.is_present().then(|| section.require("socket")).flatten();
    let rate = section.integer("fetch_kib_per_s", 1..=(1 << 30)).map(|kib| kib << 10);
    section.finish();
    Some(Os { socket: socket?, rate })
}

fn read_fleet(section: Section<'_>, data_dir: &Path) -> (Option<Membership>, Option<bundle::Place>) {
    let Some(stick) = section.text("bundle") else { return (read_membership(section), None) };
    // The data directory of the environment goes before that of the file.
    let data_dir = std::env::var_os("SEDGED_DATA_DIR").map_or_else(|| data_dir.to_owned(), PathBuf::from);
    let place = bundle::Place::new(PathBuf::from(stick), &data_dir);
    let Some(file) = section.text("file") else {
        let labels = Labels::try_from(section.free("labels")).map_err(|fault| section.reject("labels", fault)).unwrap_or_default();
        let (pin, name) = (section.parse("ca_pin"), section.parse("name"));
        section.finish();
        return (place.membership(pin, (name, labels)), Some(place));
    };
    section.finish();
    let of_bundle = |pin| place.membership(pin, (None, Labels::default()));
    // The file goes before the bundle, which may know the claim that the file has not.
    let fleet = match fleet_file(Path::new(&file)) {
        Some(fleet) if fleet.claim.is_none() => {
            let claim = of_bundle(Some(fleet.ca_pin)).and_then(|bundle| bundle.claim);
            Some(Membership { claim, ..fleet })
        }
        Some(fleet) => Some(fleet),
        None => of_bundle(None),
    };
    (fleet, Some(place))
}

fn read_membership(section: Section<'_>) -> Option<Membership> {
    if !section.is_present() {
        section.finish();
        return None;
    }
    if let Some(file) = section.text("file") {
        section.finish();
        return fleet_file(Path::new(&file));
    }
    let from_file = claim_file(&section);
    let membership = Membership::read(&section);
    section.finish();
    membership.map(|membership| Membership { claim: membership.claim.or(from_file), ..membership })
}

/// The fleet of a file that is written while the box runs, such as that of the boot partition. A node without it, or with one that cannot be
/// used, is one of its own: functions go on.
fn fleet_file(path: &Path) -> Option<Membership> {
    let text = std::fs::read_to_string(path).ok()?;
    let parsed = ClaimFile::parse(&text).map_err(|faults| log::error!(reason:% = faults; "the fleet's file cannot be used"));
    Some(parsed.ok()?.fleet)
}

fn claim_file(section: &Section<'_>) -> Option<String> {
    let path = section.text("claim_file")?;
    std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn read_store(section: Section<'_>) -> StoreSettings {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let store = StoreSettings {
        group_ms: section.integer("group_ms", 1..=10_000),
        queue_items_max: section.integer("queue_items_max", 1..=10_000_000).map(size),
        queue_bytes_max: section.integer("queue_bytes_max", 65_536..=(1 << 40)).map(size),
        free_bytes_min: section.integer("free_bytes_min", 0..=(1 << 50)),
    };
    if store.free_bytes_min.is_some_and(|bytes| bytes < FREE_BYTES_MIN_LEAST) {
        section.reject(
            "free_bytes_min",
            format!(
                "at least {FREE_BYTES_MIN_LEAST}: the journal and the database need some MiB to note what is removed, and a disk that is \
                 full to the end keeps the node from starting"
            ),
        );
    }
    section.finish();
    store
}

fn read_machine(section: Section<'_>) -> Machine {
    let machine = Machine {
        memory_mb: section.integer("memory_mb", 16..=(1 << 24)),
        invocations: section.integer("invocations", 1..=10_000).and_then(|number| u32::try_from(number).ok()),
        debug_info: section.boolean("debug_info").unwrap_or_default(),
        compile_s: section.integer("compile_s", 1..=86_400),
        compile_mb: section.integer("compile_mb", 64..=(1 << 20)),
    };
    section.finish();
    machine
}

fn read_functions(section: Section<'_>) -> FunctionSettings {
    let functions = FunctionSettings {
        ca_file: section.text("ca_file").map(PathBuf::from),
        keyvalue_shared_mb: section.integer("keyvalue_shared_mb", 1..=(1 << 20)),
    };
    section.finish();
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_node_of_its_own() {
        let config = parse("c", "").unwrap();
        assert_eq!((config.http, config.fleet.is_none(), config.mqtt), (None, true, None));
    }

    #[test]
    fn a_broker_open_to_the_network_needs_users() {
        assert!(parse("c", "[mqtt]\nlisten = '0.0.0.0:1883'\n").is_err());
        assert!(parse("c", "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.users]\nsensor = 'secret'\n").is_ok());
    }

    #[test]
    fn a_collector_is_read_and_its_faults_are_named() {
        let text = "[metrics]\nlisten = '127.0.0.1:9464'\n[telemetry]\notlp = 'http://c:4318'\nsample_ratio = 0.25\n\
                    [telemetry.headers]\nauthorization = 'Bearer x'\n";
        let config = parse("c", text).unwrap();
        let collector = config.collector.unwrap();
        assert_eq!((collector.sample_millionths, collector.headers.len(), config.metrics.map(|at| at.port())), (250_000, 1, Some(9464)));
        assert!(!format!("{collector:?}").contains("Bearer"), "headers may be secrets");
        let faults =
            parse("c", "[telemetry]\notlp = 'collector:4318'\nsample_ratio = 1.5\n[telemetry.headers]\n'a b' = 'x'\n").unwrap_err();
        for part in ["telemetry.otlp", "telemetry.sample_ratio", "`a b`"] {
            assert!(faults.to_string().contains(part), "{part}: {faults}");
        }
        let faults = parse("c", "[telemetry]\notlp = 'https://c:4318'\nca_file = '/no/such/file'\n").unwrap_err().to_string();
        assert!(faults.contains("telemetry.ca_file"), "{faults}");
        assert!(parse("c", "[telemetry]\n").unwrap_err().to_string().contains("`telemetry.otlp` is missing"));
    }

    #[test]
    fn free_space_too_little_for_the_journal_is_refused_with_the_least() {
        let read = |bytes: u64| parse("c", &format!("[store]\nfree_bytes_min = {bytes}\n"));
        let fault = read(FREE_BYTES_MIN_LEAST - 1).unwrap_err().to_string();
        assert!(fault.contains("c:2: `store.free_bytes_min`: at least 16777216: the journal"), "{fault}");
        assert_eq!(read(FREE_BYTES_MIN_LEAST).unwrap().store.free_bytes_min, Some(FREE_BYTES_MIN_LEAST));
    }

    const IMAGE: &str = sedge_provisioning::node_file::IMAGE_SETTINGS;

    #[test]
    fn what_an_operator_says_goes_before_what_the_image_says() {
        let over = |text: &str| parse_over(("image", IMAGE), "sedged.toml", text);
        let own = parse("image", IMAGE).unwrap();
        assert_eq!(over("").unwrap(), Config { file: "sedged.toml".into(), ..own.clone() });
        let text = "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.users]\nsensor = 'reading'\n[os]\nfetch_kib_per_s = 100\n";
        let config = over(text).unwrap();
        assert_eq!(config.mqtt.map(|mqtt| (mqtt.listen.to_string(), mqtt.users.len())), Some(("0.0.0.0:1883".to_owned(), 1)));
        assert_eq!((config.http, &config.data_dir), (own.http, &own.data_dir));
        let os = config.os.unwrap();
        assert_eq!((os.rate, os.socket), (Some(100 << 10), own.os.unwrap().socket));
        let faults = over("[mqtt]\nlisten = '0.0.0.0:1883'\n").unwrap_err().to_string();
        assert!(faults.starts_with("sedged.toml:2: `mqtt.listen`: beyond loopback everybody could publish"), "{faults}");
    }

    #[test]
    fn what_the_image_fixes_is_not_for_the_operator_and_every_fault_has_its_line() {
        let text = "data_dir = '/tmp'\n[local]\nsocket = '/x'\n[fleet]\nurl = 'https://f'\n[os]\nsocket = '/x'\n[http]\nlisten = '0.0.0.0:1883'\n\
                    [metrics]\nlisten = '0.0.0.0:22'\n[mqtt]\nlisten = 'here'\nlissten = 1\n";
        let faults = parse_over(("image", IMAGE), "sedged.toml", text).unwrap_err();
        let lines: Vec<usize> = faults.list.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 2, 4, 7, 11, 13, 14], "{faults}");
        for part in ["sedged.toml:4: `fleet` cannot be set here: the fleet is in claim.toml", "did you mean `listen`?", "80 to 65535"] {
            assert!(faults.to_string().contains(part), "{part}: {faults}");
        }
        let twice = "[http]\nlisten = '0.0.0.0:1883'\n";
        let faults = parse_over(("image", IMAGE), "sedged.toml", twice).unwrap_err().to_string();
        assert!(faults.starts_with("sedged.toml:2: `http.listen`: port 1883 is that of `mqtt.listen`"), "{faults}");
    }

    #[test]
    fn every_fault_is_listed() {
        let text = "data_dirr = '/x'\n[http]\nlisten = '127.0.0.1'\n[fleet]\nurl = 'http://x'\n[mqtt]\n";
        let faults = parse("c", text).unwrap_err().to_string();
        for part in [
            "c:1: unknown key `data_dirr`; did you mean `data_dir`?",
            "`http.listen`",
            "`fleet.url`",
            "`fleet.ca_pin` is missing",
            "`mqtt.listen` is missing",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }
}
