//! One engine for the node: compiler, instance pool, epoch clock, compiled-code cache.
//!
//! ```text
//! Engine ─┬─ components of WASI 0.2, commands, core modules: here, without concurrency inside an instance, which is faster
//!         └─ components of WASI 0.3: a side of its own, started by the first of them (wasi03::engine)
//! ```

use crate::aftercare::Kept;
use crate::assets::UnpackError;
use crate::compiled::{Artifact, Cache};
use crate::compiler::{Order, Workshop};
use crate::epoch::EpochClock;
use crate::form::Form;
use crate::function::{Function, Shared};
use crate::host::outgoing::{IMPORT_OF_02, IMPORT_OF_03};
use crate::host::{Host, RevisionRef};
use crate::limits::LONG_US;
use crate::linker;
use crate::pool::{self, Machine, Plan};
use crate::rests::Rests;
use crate::state::State;
use crate::turns::Turns;
use crate::wasi03::engine::Side;
use sedge_protocol::Digest;
use sedge_protocol::artifact::{self, ArtifactError, Kind};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use wasmtime::component::Component;
use wasmtime::{Config, Module, OptLevel, WasmBacktraceDetails};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings::CommandPre as Command03Pre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

/// What an engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What the machine has.
    pub machine: Machine,
    /// Where compiled code is kept; only the daemon may write there.
    pub cache_dir: PathBuf,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel grants too little address space for any pool.
    #[error("the kernel grants no address space for {slots} instances of {reservation_bytes} bytes: raise the limit (`ulimit -v`, cgroup)")]
    AddressSpace {
        /// Instances of the smallest plan.
        slots: u32,
        /// Address space of one of its memories.
        reservation_bytes: u64,
        /// What the engine said.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host interfaces do not fit together.
    #[error("link the host interfaces")]
    Link(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The directory of compiled code cannot be used.
    #[error("open the compiled-code directory {dir}")]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A thread did not start.
    #[error("start the threads of the engine")]
    Clock(#[source] io::Error),
}

/// Why a revision cannot run on this node. The revision that ran before goes on.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The artifact cannot be read.
    #[error("read the artifact {path}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Other bytes than the revision names.
    #[error("the artifact {path} has digest {found}, the revision names {expected}")]
    Digest {
        /// Where it lies.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The revision's.
        expected: Digest,
    },
    /// It breaks a rule for artifacts.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Its files cannot be unpacked.
    #[error(transparent)]
    Assets(#[from] UnpackError),
    /// More memory than one instance can be given here.
    #[error("limits.memory_mb is {wanted_bytes} bytes, this node gives an instance {max_bytes} at most")]
    Memory {
        /// The limit of the manifest.
        wanted_bytes: u64,
        /// The node's bound.
        max_bytes: u64,
    },
    /// There is no engine for what it is.
    #[error("start the engine for components of WASI 0.3")]
    Side(#[source] EngineError),
    /// The compiler or the linker refuses it.
    #[error("prepare the artifact")]
    Compile(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an engine's guests are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// A debugger follows them.
    pub debugger: bool,
    /// They are of WASI 0.3: several tasks in one instance.
    pub concurrent: bool,
}

/// The engine of a node. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

struct Parts {
    engine: wasmtime::Engine,
    shared: Shared,
    components: wasmtime::component::Linker<State>,
    modules: wasmtime::Linker<State>,
    cache: Cache,
    plan: Plan,
    rules: Rules,
    workshop: OnceLock<Workshop>,
    side: Side,
}

/// A guest with its imports resolved.
pub(crate) enum Prepared {
    Http(ProxyPre<State>),
    Http03(ServicePre<State>),
    Command(CommandPre<State>),
    Command03(Command03Pre<State>),
    Core(wasmtime::InstancePre<State>),
}

impl Prepared {
    /// Whether it answers requests in an instance that could be kept.
    pub(crate) const fn is_http(&self) -> bool {
        match self {
            Self::Http(_) | Self::Http03(_) => true,
            Self::Command(_) | Self::Command03(_) | Self::Core(_) => false,
        }
    }

    /// By what name it sends requests.
    pub(crate) const fn outgoing_import(&self) -> &'static str {
        match self {
            Self::Http03(_) | Self::Command03(_) => IMPORT_OF_03,
            Self::Http(_) | Self::Command(_) | Self::Core(_) => IMPORT_OF_02,
        }
    }
}

impl Engine {
    /// Reserves the instance pool, starts the epoch thread and opens the cache.
    ///
    /// # Errors
    /// When the kernel grants no address space, or the cache directory cannot be used.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        Self::with_rules(config, Rules::default())
    }

    /// An engine whose guests a native debugger can follow: gdb and lldb find their sources, lines and variables. Slower.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn for_debugger(config: EngineConfig) -> Result<Self, EngineError> {
        Self::with_rules(config, Rules { debugger: true, ..Rules::default() })
    }

    fn with_rules(config: EngineConfig, rules: Rules) -> Result<Self, EngineError> {
        let EngineConfig { machine, cache_dir } = config;
        let (engine, plan) = first_engine(machine, rules)?;
        let components = linker::component(&engine).map_err(|cause| EngineError::Link(cause.into()))?;
        let modules = linker::module(&engine).map_err(|cause| EngineError::Link(cause.into()))?;
        let cache = Cache::open(cache_dir.clone(), &engine).map_err(|cause| EngineError::Cache { dir: cache_dir.clone(), cause })?;
        let clock = Arc::new(EpochClock::start(&engine).map_err(EngineError::Clock)?);
        let turns = Arc::new(Turns::start(machine.cores).map_err(EngineError::Clock)?);
        let kept = Arc::new(Kept { fresh_max: machine.cores, tight: AtomicBool::new(false), long_us: AtomicU64::new(LONG_US) });
        let shared = Shared { clock, turns, kept, rests: Arc::default() };
        let side = Side::new(EngineConfig { machine, cache_dir }, Rules { concurrent: true, ..rules });
        Ok(Self(Arc::new(Parts { engine, shared, components, modules, cache, plan, rules, workshop: OnceLock::new(), side })))
    }

    /// From now on artifacts are compiled in processes of their own. Without one they are compiled here, which is for artifacts that
    /// nobody else made. Only the first workshop counts.
    pub fn compile_in(&self, workshop: Workshop) {
        let _first = self.0.workshop.set(workshop);
    }

    /// Says whether memory is short: then no instance is kept between invocations.
    pub fn set_tight(&self, tight: bool) {
        self.0.shared.kept.tight.store(tight, Relaxed);
    }

    /// The guests that wait for the host.
    #[must_use]
    pub fn rests(&self) -> &Arc<Rests> {
        &self.0.shared.rests
    }

    /// Changes what counts as long, microseconds of processor time: functions whose invocations usually take longer begin where long
    /// guests take turns. Who measures on a simulated processor, where everything is long, keeps them where they are.
    pub fn set_long_us(&self, long_us: u64) {
        self.0.shared.kept.long_us.store(long_us, Relaxed);
    }

    /// How the instance pool was laid out.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.0.plan
    }

    /// Checks, compiles (or loads from the cache) and links the artifact at `wasm`. Blocks: call it where that is allowed.
    ///
    /// # Errors
    /// When the artifact is not what the revision names, breaks a rule, or does not compile.
    pub fn prepare(&self, wasm: &Path, revision: &RevisionRef, host: Arc<dyn Host>) -> Result<Function, PrepareError> {
        let bytes = std::fs::read(wasm).map_err(|cause| PrepareError::Read { path: wasm.to_owned(), cause })?;
        let found = Digest::of(&bytes);
        if found != revision.digest {
            return Err(PrepareError::Digest { path: wasm.to_owned(), found, expected: revision.digest });
        }
        let kind = artifact::inspect_for(&bytes, &revision.manifest)?;
        let wanted_bytes = u64::from(revision.manifest.limits.memory_mb) * 1024 * 1024;
        let max_bytes = self.0.plan.memory_bytes_max;
        if wanted_bytes > max_bytes {
            return Err(PrepareError::Memory { wanted_bytes, max_bytes });
        }
        host.assets().unpack(&found, &bytes)?;
        let artifact = Artifact { path: wasm, digest: found, form: Form::of(kind, &revision.manifest), bytes: &bytes };
        let compile = |cause: wasmtime::Error| PrepareError::Compile(cause.into());
        if kind.is_concurrent() {
            let side = self.0.side.started(&self.0.shared).map_err(PrepareError::Side)?;
            if wanted_bytes > side.plan.memory_bytes_max {
                return Err(PrepareError::Memory { wanted_bytes, max_bytes: side.plan.memory_bytes_max });
            }
            let prepared = side.link(kind, &artifact, self.0.workshop.get()).map_err(compile)?;
            return Ok(Function::new(&side.engine, &side.shared, prepared, revision, host));
        }
        let prepared = self.link(kind, &artifact).map_err(compile)?;
        Ok(Function::new(&self.0.engine, &self.0.shared, prepared, revision, host))
    }

    /// Removes the compiled code of an artifact that is no longer needed.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not removed.
    pub fn forget(&self, digest: &Digest) -> io::Result<()> {
        self.0.cache.forget(digest)
    }

    fn link(&self, kind: Kind, artifact: &Artifact<'_>) -> wasmtime::Result<Prepared> {
        let Parts { engine, components, modules, cache, .. } = &*self.0;
        let make = self.0.workshop.get().map(|shop| shop.for_engine(self.0.rules, self.0.plan));
        let make = make.as_ref();
        Ok(match kind {
            Kind::Http => {
                let component: Component = cache.code(engine, artifact, make)?;
                Prepared::Http(ProxyPre::new(components.instantiate_pre(&component)?)?)
            }
            Kind::Command | Kind::CoreCommand if artifact.form != Form::Module => {
                let component: Component = cache.code(engine, artifact, make)?;
                Prepared::Command(CommandPre::new(components.instantiate_pre(&component)?)?)
            }
            Kind::Command | Kind::CoreCommand => {
                let module: Module = cache.code(engine, artifact, make)?;
                Prepared::Core(modules.instantiate_pre(&module)?)
            }
            Kind::Http03 | Kind::Command03 => unreachable!("the side links those"),
        })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("plan", &self.0.plan).finish_non_exhaustive()
    }
}

/// The engine of the best plan that the kernel grants.
pub(crate) fn first_engine(machine: Machine, rules: Rules) -> Result<(wasmtime::Engine, Plan), EngineError> {
    let mut refused = None;
    for plan in Plan::candidates(machine) {
        let mut config = rules.config();
        plan.apply(machine, rules.concurrent, &mut config);
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok((engine, plan)),
            Err(cause) => {
                log::warn!(slots = plan.slots, reservation_bytes = plan.reservation_bytes, cause:%; "pool not granted, trying a smaller one");
                refused = Some((plan, cause));
            }
        }
    }
    let (plan, cause) = refused.expect("there is at least one plan");
    Err(EngineError::AddressSpace { slots: plan.slots, reservation_bytes: plan.reservation_bytes, cause: cause.into() })
}

/// An engine that runs nothing and compiles for the one that does.
pub(crate) fn compiling_engine(order: &Order) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = order.rules.config();
    pool::lay_out_memory(&mut config, order.reservation_bytes, order.guard_bytes);
    wasmtime::Engine::new(&config)
}

impl Rules {
    fn config(self) -> Config {
        let mut config = guest_rules();
        config.concurrency_support(self.concurrent);
        if self.debugger {
            config.debug_info(true).cranelift_opt_level(OptLevel::None);
        }
        config
    }
}

/// What holds for every guest, whatever the machine.
fn guest_rules() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .gc_support(false)
        .wasm_memory64(false)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        // Names, files and lines of a trap, as far as the artifact has them; what the author asked for, its memory.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .coredump_on_trap(true);
    config
}
