//! What happens to an instance after its invocation, when the answer is on its way and nobody waits for it.
//!
//! ```text
//! handler returned ─▶ answer leaves ─▶ after ─┬─ reuse: put with the idle ones
//!                                             └─ cleared away ─▶ a fresh one is made in its room ─▶ put with the idle ones
//! ```
//! So clearing one instance away and making the next is on no caller's way, and each is metered all the same: clearing counts for the
//! invocation that is over, making for the one that gets the instance. An idle instance keeps the memory that was reserved for the
//! one before it; [`Function::release`](crate::Function::release) gives it back.

use crate::body::Sever;
use crate::failure::Failure;
use crate::function::Parts;
use crate::guest::{Guest, Held, Rest};
use crate::idle::Warm;
use crate::instance::Instance;
use crate::limits::FRESH_IDLE;
use crate::state::State;
use crate::usage::Call;
use sedge_protocol::Manifest;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What of the invocations of all functions is kept: instances between them, and what counts as long.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Fresh instances of one function: as many as can be entered at the same moment.
    pub(crate) fresh_max: usize,
    /// Memory is short: nothing is kept.
    pub(crate) tight: AtomicBool,
    /// Processor time above which an invocation is long, microseconds.
    pub(crate) long_us: AtomicU64,
}

/// How long an instance of this function may wait for an invocation.
pub(crate) fn idle_max(manifest: &Manifest) -> Duration {
    if manifest.reuse.is_off() { FRESH_IDLE } else { Duration::from_secs(manifest.reuse.idle_s.into()) }
}

/// What is needed to care for an instance when its guest has ended.
pub(crate) struct Care {
    pub(crate) parts: Arc<Parts>,
    pub(crate) call: Arc<Call>,
    pub(crate) severance: Arc<dyn Sever>,
}

impl Care {
    /// Sees to what the guest left, in a task of its own that runs when this one has written its answer.
    pub(crate) fn after(self, guest: &mut Guest) {
        if let Some(rest) = guest.take_rest() {
            tokio::spawn(self.see_to(rest));
        }
    }

    async fn see_to(self, rest: Rest) {
        let Self { parts, call, severance } = self;
        let Rest { mut instance, room } = rest;
        let manifest = &parts.revision.manifest;
        let tight = parts.shared().kept.tight.load(Relaxed);
        if !tight && instance.served() < manifest.reuse.count && !instance.leaves_bodies() {
            severance.sever();
            // It must not hold on to an invocation that is over; what it does from now on is for the next.
            let between = Call::preparation(Arc::clone(&parts.revision));
            call.metered(|| instance.enter(&between));
            drop(call);
            let most = manifest.limits.concurrency as usize;
            // More than that never run at a time, so none is given up here.
            parts.idle.put(Warm::new(instance, Some(between), room), most);
            return;
        }
        call.metered(|| drop(instance));
        drop(call);
        if !tight && parts.idle.len() < parts.shared().kept.fresh_max {
            // It says by itself why it failed, in the function's log; the next invocation meets the same.
            drop(prepare(parts, room).await);
        }
    }
}

/// Makes an instance for whoever comes next.
pub(crate) async fn prepare(parts: Arc<Parts>, room: Box<dyn Any + Send>) -> Result<(), Failure> {
    if !parts.prepared().is_http() {
        return Ok(());
    }
    let call = Call::preparation(Arc::clone(&parts.revision));
    let held = Held { permit: Box::new(()), gone: None, room, ticking: parts.shared().clock.ticking() };
    let (of_guest, of_call) = (Arc::clone(&parts), Arc::clone(&call));
    let work = async move {
        let mut instance = Instance::empty(&of_guest, &of_call);
        let result = instance.make(&of_guest).await;
        let whole = result.is_ok();
        State::verdict(&mut instance.store, result)?;
        Ok(whole.then_some(instance))
    };
    let mut guest = Guest::new(Arc::clone(&call), held, &parts, work);
    (&mut guest).await?;
    if let Some(Rest { instance, room }) = guest.take_rest() {
        let most = parts.shared().kept.fresh_max.max(parts.revision.manifest.limits.reserved as usize);
        parts.idle.put(Warm::new(instance, Some(call), room), most);
    }
    Ok(())
}
