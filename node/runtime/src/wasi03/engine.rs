//! The engine of components of WASI 0.3, started by the first of them.
//!
//! Concurrency inside an instance costs every call of every component that is compiled for it, so those of 0.2 keep an engine without.
//! Turns, and what is kept between invocations, are common; pool, epochs, cache key and linker are of its own.

use super::linker;
use crate::compiled::{Artifact, Cache};
use crate::compiler::Workshop;
use crate::engine::{EngineConfig, EngineError, Prepared, Rules, first_engine};
use crate::epoch::EpochClock;
use crate::function::Shared;
use crate::pool::Plan;
use crate::state::State;
use sedge_protocol::artifact::Kind;
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p3::bindings::CommandPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

/// Where that engine is, or will be.
pub(crate) struct Side {
    config: EngineConfig,
    rules: Rules,
    // Held while the engine starts, so that two first components start one.
    started: Mutex<Option<Arc<Started>>>,
}

/// The engine.
pub(crate) struct Started {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) shared: Shared,
    pub(crate) plan: Plan,
    rules: Rules,
    components: Linker<State>,
    cache: Cache,
}

impl Side {
    /// Nothing yet.
    pub(crate) const fn new(config: EngineConfig, rules: Rules) -> Self {
        Self { config, rules, started: Mutex::new(None) }
    }

    /// The engine; blocks while it starts. `main` is what the other one runs with.
    pub(crate) fn started(&self, main: &Shared) -> Result<Arc<Started>, EngineError> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = &*started {
            return Ok(Arc::clone(started));
        }
        let new = Arc::new(self.start(main)?);
        *started = Some(Arc::clone(&new));
        Ok(new)
    }

    fn start(&self, main: &Shared) -> Result<Started, EngineError> {
        let EngineConfig { machine, cache_dir } = self.config.clone();
        let (engine, plan) = first_engine(machine, self.rules)?;
        let components = linker::concurrent(&engine).map_err(|cause| EngineError::Link(cause.into()))?;
        let cache = Cache::open(cache_dir.clone(), &engine).map_err(|cause| EngineError::Cache { dir: cache_dir, cause })?;
        let clock = Arc::new(EpochClock::start(&engine).map_err(EngineError::Clock)?);
        let shared = Shared { clock, ..main.clone() };
        log::info!(slots = plan.slots, reservation_bytes = plan.reservation_bytes; "engine for WASI 0.3 started");
        Ok(Started { engine, shared, plan, rules: self.rules, components, cache })
    }
}

impl Started {
    /// Compiles in `shop`, if there is one.
    pub(crate) fn link(&self, kind: Kind, artifact: &Artifact<'_>, shop: Option<&Workshop>) -> wasmtime::Result<Prepared> {
        let make = shop.map(|shop| shop.for_engine(self.rules, self.plan));
        let component: Component = self.cache.code(&self.engine, artifact, make.as_ref())?;
        let linked = self.components.instantiate_pre(&component)?;
        Ok(match kind {
            Kind::Http03 => Prepared::Http03(ServicePre::new(linked)?),
            Kind::Command03 => Prepared::Command03(CommandPre::new(linked)?),
            Kind::Http | Kind::Command | Kind::CoreCommand => unreachable!("the main engine links those"),
        })
    }
}
