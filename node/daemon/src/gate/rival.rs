//! Admission by another policy, for comparison: only in a daemon that was built with the feature `rivals`, and only when
//! `SEDGE_RIVAL` names one. The memory gate, the lines, the tuner and the turns of the controller are all out of the way then.

use crate::clock;
use sedge_node_core::controller::{Refusal, Why};
use sedge_node_core::rivals::{Fixed, Gradient2, Policy, PressureOnly, Say, Unlimited};
use sedge_runtime::Usage;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Names the policy.
const VARIABLE: &str = "SEDGE_RIVAL";
/// Slots of the fixed one.
const SLOTS: usize = 64;

/// The policy and who waits for what it says.
#[derive(Debug)]
pub(super) struct Rival(Mutex<State>);

#[derive(Debug)]
struct State {
    policy: Box<dyn Policy<u64> + Send>,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
    next: u64,
}

/// One that waits. Given up in the moment when it was started, it ends there.
struct InLine<'a> {
    rival: &'a Rival,
    request: u64,
    said: oneshot::Receiver<bool>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.said.try_recv() == Ok(true) {
            self.rival.end(self.request, None);
        }
    }
}

/// One that was started by the policy. Dropping it ends it there.
#[derive(Debug)]
pub(super) struct Started {
    rival: Arc<Rival>,
    request: u64,
    pub(super) used: Option<Usage>,
}

impl Rival {
    /// The one that the environment names.
    pub(super) fn chosen(cores: u32) -> Option<Arc<Self>> {
        let policy: Box<dyn Policy<u64> + Send> = match std::env::var(VARIABLE).ok()?.as_str() {
            "unlimited" => Box::new(Unlimited),
            "fixed" => Box::new(Fixed::new(SLOTS)),
            "gradient2" => Box::new(Gradient2::default()),
            "pressure" => Box::new(PressureOnly::new(cores)),
            other => panic!("{VARIABLE}={other}: unlimited, fixed, gradient2 or pressure"),
        };
        log::warn!("admission by another policy, for comparison only");
        Some(Arc::new(Self(Mutex::new(State { policy, waiting: HashMap::new(), next: 0 }))))
    }

    /// Waits until the policy starts or refuses it.
    pub(super) async fn admit(self: &Arc<Self>) -> Result<Started, Refusal> {
        let (sender, said) = oneshot::channel();
        let request = {
            let mut state = self.state();
            state.next += 1;
            let request = state.next;
            state.waiting.insert(request, sender);
            let says = state.policy.arrive(request, clock::micros().0);
            state.obey(says);
            request
        };
        let mut line = InLine { rival: self, request, said };
        match (&mut line.said).await {
            Ok(true) => Ok(Started { rival: Arc::clone(self), request, used: None }),
            Ok(false) | Err(_) => Err(Refusal { why: Why::Overload, retry_after_ms: 1_000 }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, request: u64, used: Option<Usage>) {
        let (cpu_us, wall_us) = used.map_or((0, 0), |usage| (usage.cpu_us, usage.wall_us));
        let mut state = self.state();
        let says = state.policy.finish(request, cpu_us, wall_us, clock::micros().0);
        state.obey(says);
    }

    /// Tells the policy how the last interval went.
    pub(super) fn tick(&self, stretch: f64, pressure: f64) {
        let mut state = self.state();
        let says = state.policy.tick(clock::micros().0, stretch, pressure);
        state.obey(says);
    }
}

impl State {
    fn obey(&mut self, says: Vec<Say<u64>>) {
        let mut says = VecDeque::from(says);
        while let Some(say) = says.pop_front() {
            let (request, starts) = match say {
                Say::Start(request) => (request, true),
                Say::Refuse(request) => (request, false),
            };
            let heard = self.waiting.remove(&request).is_some_and(|sender| sender.send(starts).is_ok());
            if starts && !heard {
                // Given up while it waited: it ends as soon as it starts.
                says.extend(self.policy.finish(request, 0, 0, clock::micros().0));
            }
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.rival.end(self.request, self.used);
    }
}
