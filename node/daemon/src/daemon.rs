//! Puts the parts together, starts them in order, and stops them in order.
//!
//! Order of start: ports, store, engine, what ran before, bus, then the sources; of stop: sources, running work, usage, store.

mod broker;

use crate::assigner::{self, Assigner};
use crate::asynchronous;
use crate::bus::{self, Bus};
use crate::config::Config;
use crate::dead_letters::DeadLetters;
use crate::device::Devices;
use crate::dumps::Dumps;
use crate::executor::Executors;
use crate::fault::Errors;
use crate::fetch::Fetcher;
use crate::functions::{Functions, TableWriter};
use crate::gate::Gate;
use crate::host::NodeHost;
use crate::host::call::Calls;
use crate::host::keyvalue::Keyvalue;
use crate::invoke::Invoker;
use crate::limits::{CA_FILE_BYTES_MAX, KEYVALUE_SHARED_MB};
use crate::local::{self, Local};
use crate::logs::Logs;
use crate::member::{self, Door, Member};
use crate::meter::Meter;
use crate::os::{Updater, UpdaterFacts, UpdaterParts};
use crate::secrets::Secrets;
use crate::session::{self, Link, Session};
use crate::state::Places;
use crate::supervisor::{Ended, Supervisor};
use crate::telemetry::{self, Export, Sources, Tracer};
use crate::usage_sync::{self, UsageSync};
use crate::vault::{Credentials, Vault};
use crate::{clock, http, timers, vitals, warm};
use anyhow::Context as _;
use sd_notify::NotifyState;
use sedge_node_core::Capacity;
use sedge_protocol::local::FleetLink;
use sedge_runtime::{Assets, Egress, Engine, EngineConfig, Host, Machine};
use sedge_store::{Blobs, Files, Pending, Recovery, Store, StoreConfig};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Why the daemon did not run to its end.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The configuration cannot be carried out here: all faults.
    Config(Vec<String>),
    /// Anything else.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn run(config: Config) -> Result<(), StartError> {
    clock::started();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (executors, threads) = Executors::start(cores)?;
    let result = runtime.block_on(serve(config, executors));
    threads.end();
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// The ports, taken before anything else so that all that are in use are reported together.
struct Ports {
    http: Option<TcpListener>,
    broker: Option<broker::Parts>,
    local: UnixListener,
    metrics: Option<TcpListener>,
}

async fn serve(config: Config, executors: Executors) -> Result<(), StartError> {
    // What functions keep is nobody else's.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|error| StartError::Config(vec![format!("{}: data_dir {}: {error}", config.file.display(), config.data_dir.display())]))?;
    let (handle, inbox) = bus::inbox();
    let (fan_out, messages) = bus::fan_out();
    let ports = bind(&config, &handle).await?;
    let (supervisor, ended) = Supervisor::new(executors);
    let opened = open(&config).await?;
    let store = opened.store.clone();
    let start = Start { config: &config, supervisor: &supervisor, handle, inbox, fan_out, messages };
    start_all(start, ports, opened).await?;
    let outcome = wait(&supervisor, ended).await;
    drop(sd_notify::notify(&[NotifyState::Stopping]));
    supervisor.shut_down(config.shutdown_grace).await;
    tokio::task::spawn_blocking(move || store.close()).await.context("close the store")?.context("close the store")?;
    log::info!("stopped");
    Ok(outcome?)
}

async fn bind(config: &Config, handle: &bus::BusHandle) -> Result<Ports, StartError> {
    let mut faults = Vec::new();
    let file = config.file.display();
    let mut listeners = [None, None];
    for ((key, address), listener) in [("http", config.http), ("metrics", config.metrics)].into_iter().zip(&mut listeners) {
        let Some(address) = address else { continue };
        match TcpListener::bind(address).await {
            Ok(bound) => *listener = Some(bound),
            Err(error) => faults.push(format!("{file}: {key}.listen {address}: {error}")),
        }
    }
    let [http, metrics] = listeners;
    let broker = config.mqtt.as_ref().and_then(|mqtt| {
        let bound = broker::bind(mqtt, handle.clone());
        bound.map_err(|error| faults.push(format!("{file}: mqtt.listen {}: {error:#}", mqtt.listen))).ok()
    });
    let local = local::bind(&config.socket).map_err(|error| faults.push(format!("{file}: local.socket: {error:#}"))).ok();
    match local {
        Some(local) if faults.is_empty() => Ok(Ports { http, broker, local, metrics }),
        Some(_) | None => Err(StartError::Config(faults)),
    }
}

/// What lies on disk, open.
struct Opened {
    store: Store,
    recovery: Recovery,
    files: Files,
    engine: Engine,
    capacity: Capacity,
    assets: Assets,
    blobs: Blobs,
    secrets: Secrets,
    egress: Egress,
    /// Whether the copy of a bundle is not needed any more.
    bundle_taken: bool,
}

async fn open(config: &Config) -> anyhow::Result<Opened> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let defaults = StoreConfig::default();
        let settings = StoreConfig {
            group_ms: config.store.group_ms.unwrap_or(defaults.group_ms),
            queue_items_max: config.store.queue_items_max.unwrap_or(defaults.queue_items_max),
            queue_bytes_max: config.store.queue_bytes_max.unwrap_or(defaults.queue_bytes_max),
            free_bytes_min: config.store.free_bytes_min.or(defaults.free_bytes_min),
            ..defaults
        };
        let free_bytes_min = settings.free_bytes_min;
        let (store, recovery) = open_store(&config.data_dir, settings)?;
        tell(&recovery);
        let files = Files::open(&config.data_dir.join("artifacts"), free_bytes_min).context("open the artifacts")?;
        let bundle_taken = config.bundle.as_ref().zip(config.fleet.as_ref()).is_some_and(|(bundle, fleet)| {
            bundle.take(fleet, &store, &files).unwrap_or_else(|error| {
                log::error!(reason:% = format!("{error:#}"); "the bundle was not taken");
                false
            })
        });
        let assets = Assets::open(&config.data_dir.join("assets"), free_bytes_min).context("open the files of artifacts")?;
        let blobs = Blobs::open(&config.data_dir.join("blobs"), free_bytes_min).context("open the files of functions")?;
        let secrets = Secrets::open(&config.data_dir, &store)?;
        let egress = open_egress(&config)?;
        let measured = vitals::measure()?;
        let memory_bytes = config.machine.memory_mb.map_or(measured.memory_bytes, |mb| (mb << 20).min(measured.memory_bytes));
        let mut capacity = Capacity::of(measured.cores, memory_bytes);
        capacity.invocations = config.machine.invocations.unwrap_or(capacity.invocations);
        let engine = open_engine(&config, Machine { cores: measured.cores, memory_bytes })?;
        capacity.invocations = capacity.invocations.min(engine.plan().slots);
        Ok(Opened { store, recovery, files, engine, capacity, assets, blobs, secrets, egress, bundle_taken })
    })
    .await?
}

/// Opens the store. On a disk that is full, what can be fetched or made again goes first.
fn open_store(data_dir: &Path, settings: StoreConfig) -> anyhow::Result<(Store, Recovery)> {
    let path = data_dir.join("store");
    Store::open(&path, settings.clone()).or_else(|error| {
        let removed = make_room(data_dir);
        if removed == 0 {
            return Err(error).context("open the store");
        }
        log::warn!(reason:% = error, removed; "the store did not open: half-fetched artifacts and compiled code were removed for another try");
        Store::open(&path, settings).context("open the store")
    })
}

/// Removes half-fetched artifacts and compiled code; answers how many files went.
fn make_room(data_dir: &Path) -> usize {
    let partial = Files::open(&data_dir.join("artifacts"), None).and_then(|files| files.sweep_partial(|_| false)).unwrap_or(0);
    let compiled = std::fs::read_dir(data_dir.join("compiled")).into_iter().flatten().flatten();
    partial + compiled.filter(|entry| std::fs::remove_file(entry.path()).is_ok()).count()
}

/// Says what the start has found damaged. Nobody may learn of lost events by chance.
fn tell(recovery: &Recovery) {
    for path in &recovery.set_aside {
        log::error!(path:% = path.display(); "damaged state was set aside; it is fetched again or begins anew");
    }
    if recovery.groups_lost > 0 || recovery.rolled_back {
        let Recovery { groups_lost, rolled_back, .. } = recovery;
        log::error!(groups_lost, rolled_back; "the journal or the database lacks what was written: events or state may be lost");
    }
    if recovery.torn {
        log::info!("the journal ends in a group that was being written; nothing acknowledged is in it");
    }
}

fn open_engine(config: &Config, machine: Machine) -> anyhow::Result<Engine> {
    let cache_dir = config.data_dir.join("compiled");
    std::fs::create_dir_all(&cache_dir).with_context(|| format!("create {}", cache_dir.display()))?;
    let engine = EngineConfig { machine, cache_dir };
    let engine = if config.machine.debug_info { Engine::for_debugger(engine) } else { Engine::new(engine) }.context("start the engine")?;
    engine.compile_in(crate::compile::workshop(&config.machine, machine.memory_bytes));
    Ok(engine)
}

/// The way of functions to other machines.
fn open_egress(config: &Config) -> anyhow::Result<Egress> {
    let Some(path) = &config.functions.ca_file else { return Ok(Egress::new(None)?) };
    let size = std::fs::metadata(path).with_context(|| format!("functions.ca_file: read {}", path.display()))?.len();
    anyhow::ensure!(size <= CA_FILE_BYTES_MAX, "functions.ca_file: {} has {size} bytes, {CA_FILE_BYTES_MAX} are allowed", path.display());
    let pem = std::fs::read(path).with_context(|| format!("functions.ca_file: read {}", path.display()))?;
    Egress::new(Some(&pem)).with_context(|| format!("functions.ca_file: {}", path.display()))
}

/// What the start needs besides ports and disk.
struct Start<'a> {
    config: &'a Config,
    supervisor: &'a Supervisor,
    handle: bus::BusHandle,
    inbox: bus::Inbox,
    fan_out: mpsc::Sender<sedge_mqtt::Message>,
    messages: mpsc::Receiver<sedge_mqtt::Message>,
}

/// The pieces that several tasks share.
struct Common {
    functions: Functions,
    invoker: Invoker,
    meter: Meter,
    logs: Logs,
    errors: Errors,
    devices: Devices,
    secrets: Secrets,
    link: watch::Sender<Link>,
    desired: watch::Sender<sedge_protocol::message::Desired>,
    credentials: watch::Sender<Option<Credentials>>,
    door: watch::Sender<Door>,
    unsent: watch::Sender<u64>,
    os: watch::Sender<Option<sedge_protocol::image::OsReport>>,
    sources: Sources,
}

/// The pieces that several tasks share; the export of telemetry starts with them, where one is configured.
fn begin_common(
    config: &Config,
    supervisor: &Supervisor,
    (handle, gate): (&bus::BusHandle, &Gate),
    (store, secrets): (&Store, Secrets),
) -> anyhow::Result<(Common, TableWriter)> {
    let (functions, table) = Functions::new();
    let (meter, logs, errors) = (Meter::default(), Logs::new(), Errors::default());
    let (tracer, spans) = config.collector.as_ref().map(|collector| telemetry::line(collector.sample_millionths)).unzip();
    let tracer: Tracer = tracer.unwrap_or_default();
    let unsent = watch::channel(0).0;
    let devices = Devices::new(&config.devices);
    let sources = Sources {
        meter: meter.clone(),
        gate: gate.clone(),
        bus: handle.clone(),
        store: store.clone(),
        logs: logs.clone(),
        unsent: unsent.subscribe(),
        devices: devices.board.clone(),
        spans_dropped: tracer.dropped(),
    };
    if let (Some(collector), Some(spans)) = (&config.collector, spans) {
        let export = Export::new(collector.clone(), spans, sources.clone(), supervisor.clone())?;
        supervisor.service("telemetry", export.run());
    }
    let state = if config.fleet.is_some() { FleetLink::Unclaimed } else { FleetLink::None };
    let common = Common {
        invoker: Invoker::new(gate.clone(), meter.clone(), (logs.clone(), errors.clone()), tracer),
        link: watch::channel(Link::without(state)).0,
        desired: watch::channel(assigner::restore_desired(store)?).0,
        credentials: watch::channel(None).0,
        os: watch::channel(None).0,
        door: watch::channel(Door::default()).0,
        unsent,
        sources,
        secrets,
        functions,
        meter,
        logs,
        errors,
        devices,
    };
    Ok((common, table))
}

async fn start_all(start: Start<'_>, ports: Ports, opened: Opened) -> anyhow::Result<()> {
    let Start { config, supervisor, handle, inbox, fan_out, messages } = start;
    let gate = Gate::new(opened.capacity, Arc::clone(opened.engine.rests()));
    let (common, table) = begin_common(config, supervisor, (&handle, &gate), (&opened.store, opened.secrets))?;
    let shared_bytes = config.functions.keyvalue_shared_mb.unwrap_or(KEYVALUE_SHARED_MB) << 20;
    let keyvalue = Keyvalue::new(opened.store.clone(), shared_bytes);
    let dumps = Dumps::new(config.data_dir.join("core-dumps"));
    let (store, blobs) = (opened.store.clone(), opened.blobs.clone());
    let places = Places { store, keyvalue: keyvalue.clone(), blobs, dumps: dumps.clone() };
    let egress = opened.egress.clone();
    let host: Arc<dyn Host> = Arc::new(NodeHost {
        keyvalue,
        assets: opened.assets,
        blobs: opened.blobs,
        secrets: common.secrets.clone(),
        egress: opened.egress,
        calls: Calls { functions: common.functions.clone(), invoker: common.invoker.clone() },
        bus: handle.clone(),
        logs: common.logs.clone(),
        dumps,
        blocking: tokio::runtime::Handle::current(),
        published: AtomicU64::new(0),
    });
    supervisor.service("gate", gate.clone().run(common.functions.clone(), opened.engine.clone(), supervisor.clone()));
    supervisor.service("warm", warm::run(common.functions.clone(), gate.clone(), supervisor.clone()));
    let mut assigner = Assigner {
        store: opened.store.clone(),
        files: opened.files.clone(),
        engine: opened.engine,
        host,
        gate,
        meter: common.meter.clone(),
        fetcher: Fetcher::new(opened.files.clone(), common.link.subscribe()),
        errors: common.errors.clone(),
        table,
        supervisor: supervisor.clone(),
        refused: BTreeMap::new(),
        hindered: 0,
    };
    let before = assigner.restore().await?;
    supervisor.service("assigner", assigner.run(common.desired.subscribe()));
    let letters = DeadLetters::open(opened.store.clone(), Arc::clone(&handle.stats)).context("read the dead letters")?;
    let parts = (&opened.store, &letters, egress);
    let (calls, events) = start_calls(config, supervisor, parts, opened.recovery.pending, &common)?;
    let defaults = StoreConfig::default();
    let parts = bus::Parts {
        store: opened.store.clone(),
        functions: common.functions.clone(),
        invoker: common.invoker.clone(),
        errors: common.errors.clone(),
        letters: letters.clone(),
        supervisor: supervisor.clone(),
        fan_out: ports.broker.is_some().then_some(fan_out),
        devices: common.devices.board.clone(),
        bound: bus::bound(
            config.store.queue_items_max.unwrap_or(defaults.queue_items_max),
            config.store.queue_bytes_max.unwrap_or(defaults.queue_bytes_max),
        ),
    };
    supervisor.service_near("bus", Bus::new(parts, &handle, inbox, events).run());
    start_usage(supervisor, &opened.store, &common).await?;
    start_fleet(config, supervisor, (&handle, &opened.store), &common);
    let http = ports.http.as_ref().map(TcpListener::local_addr).transpose()?;
    start_updater(config, supervisor, UpdaterFacts { before, http, bundle_taken: opened.bundle_taken }, &common);
    let parts = SourceParts { config, common, store: opened.store, files: opened.files, calls, letters, places };
    start_sources(ports, supervisor, handle, messages, parts)
}

/// Starts what brings the operating system where the fleet wants it, where the node keeps one.
fn start_updater(config: &Config, supervisor: &Supervisor, facts: UpdaterFacts, common: &Common) {
    let Some(os) = &config.os else { return };
    let parts = UpdaterParts {
        socket: os.socket.clone(),
        rate: os.rate,
        fleet: config.fleet.is_some(),
        facts,
        functions: common.functions.clone(),
        gate: common.sources.gate.clone(),
        store: common.sources.store.clone(),
        link: common.link.subscribe(),
        credentials: common.credentials.subscribe(),
        desired: common.desired.subscribe(),
        report: common.os.clone(),
    };
    supervisor.service("updater", Updater::new(parts).run(supervisor.stop().clone()));
}

/// Starts what keeps asynchronous calls; answers the items of the store's queue that are the bus's.
fn start_calls(
    config: &Config,
    supervisor: &Supervisor,
    (store, letters, egress): (&Store, &DeadLetters, Egress),
    pending: Vec<Pending>,
    common: &Common,
) -> anyhow::Result<(asynchronous::Handle, Vec<Pending>)> {
    let defaults = StoreConfig::default();
    let parts = asynchronous::Parts {
        store: store.clone(),
        functions: common.functions.clone(),
        invoker: common.invoker.clone(),
        errors: common.errors.clone(),
        letters: letters.clone(),
        supervisor: supervisor.clone(),
        egress,
        waiting_max: config.store.queue_items_max.unwrap_or(defaults.queue_items_max) / 2,
        waiting_bytes_max: config.store.queue_bytes_max.unwrap_or(defaults.queue_bytes_max) / 2,
    };
    let (calls, handle, events) = asynchronous::open(parts, pending).context("read the asynchronous calls")?;
    supervisor.service("asynchronous", calls.run());
    Ok((handle, events))
}

async fn start_usage(supervisor: &Supervisor, store: &Store, common: &Common) -> anyhow::Result<()> {
    let opened = store.clone();
    let ledger = tokio::task::spawn_blocking(move || usage_sync::restore(&opened)).await?.context("read the usage ledger")?;
    let sync = UsageSync {
        store: store.clone(),
        meter: common.meter.clone(),
        link: common.link.subscribe(),
        unsent: common.unsent.clone(),
        supervisor: supervisor.clone(),
    };
    supervisor.service("usage", usage_sync::run(sync, ledger));
    Ok(())
}

fn start_fleet(config: &Config, supervisor: &Supervisor, (handle, store): (&bus::BusHandle, &Store), common: &Common) {
    let Some(fleet) = &config.fleet else { return };
    let (events, inbox) = member::inbox();
    let session = Session {
        fleet: fleet.clone(),
        functions: common.functions.clone(),
        meter: common.meter.clone(),
        errors: common.errors.clone(),
        stats: Arc::clone(&handle.stats),
        devices: common.devices.board.clone(),
        store: store.clone(),
        secrets: common.secrets.clone(),
        desired: common.desired.clone(),
        credentials: common.credentials.subscribe(),
        door: common.door.subscribe(),
        events,
        instance: rand::random_range(1..=u64::MAX),
        link: common.link.clone(),
        os: common.os.subscribe(),
        supervisor: supervisor.clone(),
    };
    supervisor.service("session", session::run(session));
    let member = Member {
        fleet: fleet.clone(),
        vault: Vault::new(&config.data_dir),
        credentials: common.credentials.clone(),
        door: common.door.clone(),
        link: common.link.subscribe(),
        inbox,
        supervisor: supervisor.clone(),
    };
    supervisor.service("member", member::run(member));
}

/// What the sources need.
struct SourceParts<'a> {
    config: &'a Config,
    common: Common,
    store: Store,
    files: Files,
    calls: asynchronous::Handle,
    letters: DeadLetters,
    places: Places,
}

fn start_sources(
    ports: Ports,
    supervisor: &Supervisor,
    handle: bus::BusHandle,
    messages: mpsc::Receiver<sedge_mqtt::Message>,
    parts: SourceParts<'_>,
) -> anyhow::Result<()> {
    let SourceParts { config, common, store, files, calls, letters, places } = parts;
    let http_address = ports.http.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.to_string());
    let mqtt_address = ports.broker.as_ref().map(|broker| broker.address().to_string());
    let metrics_address = ports.metrics.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.to_string());
    let shown = |address: &Option<String>| address.as_deref().unwrap_or("off").to_owned();
    log::info!(http = shown(&http_address), mqtt = shown(&mqtt_address), metrics = shown(&metrics_address); "listening");
    if let Some(listener) = ports.http {
        let serve = http::run(listener, common.functions.clone(), common.invoker.clone(), calls.clone(), supervisor.clone());
        supervisor.service("http", serve);
    }
    if let Some(broker) = ports.broker {
        broker.start(supervisor, messages);
    }
    if let Some(listener) = ports.metrics {
        supervisor.service("metrics", telemetry::serve(listener, common.sources.clone(), supervisor.clone()));
    }
    let devices = common.devices.board.clone();
    common.devices.start(&handle, supervisor);
    supervisor.service("timers", timers::run(common.functions.clone(), handle.clone(), supervisor.clone()));
    let local = Local {
        functions: common.functions,
        invoker: common.invoker,
        meter: common.meter,
        logs: common.logs,
        followers: local::Followers::default(),
        bus: handle,
        calls,
        letters,
        places,
        store,
        secrets: common.secrets,
        files,
        link: common.link.subscribe(),
        credentials: common.credentials.subscribe(),
        door: common.door.subscribe(),
        unsent: common.unsent.subscribe(),
        desired: config.fleet.is_none().then(|| local::Own::new(common.desired.clone())),
        http: http_address,
        mqtt: mqtt_address,
        metrics: metrics_address,
        sources: common.sources,
        devices,
        supervisor: supervisor.clone(),
    };
    supervisor.service("local", local::run(local, ports.local));
    Ok(())
}

/// Waits for a signal or the end of a service; feeds the watchdog meanwhile.
async fn wait(supervisor: &Supervisor, mut ended: mpsc::Receiver<Ended>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    drop(sd_notify::notify(&[NotifyState::Ready]));
    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 3);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(Ended { name, error }) = ended.recv() => {
                supervisor.stop().cancel();
                return Err(error.context(format!("the service `{name}` ended")));
            }
            () = tokio::time::sleep(watchdog.unwrap_or_default()), if watchdog.is_some() => {
                drop(sd_notify::notify(&[NotifyState::Watchdog]));
            }
        }
    }
}
