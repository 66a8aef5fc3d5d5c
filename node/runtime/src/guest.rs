//! Drives a guest: every poll is metered, nothing runs past the deadline, and one that computes on goes where it holds nobody up.
//!
//! ```text
//! Here(course) ── Pending after a whole turn of computing ──▶ Away(course in Turns) ◀── the function usually computes long
//!      └───────────────── ended ─▶ Ended { rest } ◀────────────────┘
//! ```

use crate::epoch::Ticking;
use crate::failure::Failure;
use crate::function::Parts;
use crate::instance::Instance;
use crate::rests::Rests;
use crate::turns::Away;
use crate::usage::{Call, Gone};
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};

/// What a guest leaves when it ends well: an instance that could serve another invocation, or nothing.
type Left = Option<Box<Instance>>;
type Work = Pin<Box<dyn Future<Output = Result<Left, Failure>> + Send>>;

/// One guest on its way. A failure is recorded in the call before the guest's streams close, so whoever reads
/// those sees a failure and never a clean end.
///
/// Cancel safe: dropping it stops the guest; the call then counts as cancelled.
pub(crate) struct Guest {
    state: State,
    call: Arc<Call>,
    parts: Arc<Parts>,
}

/// What is let go after the guest.
#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) struct Held {
    /// The right to run.
    pub(crate) permit: Box<dyn Any + Send>,
    /// Who hears that the guest is gone.
    pub(crate) gone: Option<Gone>,
    /// The memory that is reserved for the instance.
    pub(crate) room: Box<dyn Any + Send>,
    /// The clock that the deadline needs.
    pub(crate) ticking: Ticking,
}

/// What is left of a guest that ended well, to be cleared away when that holds up nobody.
pub(crate) struct Rest {
    pub(crate) instance: Box<Instance>,
    pub(crate) room: Box<dyn Any + Send>,
}

enum State {
    Here(Course),
    Away(Away<(Result<(), Failure>, Option<Rest>)>),
    Ended(Option<Rest>),
}

impl Guest {
    /// `work` runs the guest; it must record its own failure before it drops the store.
    pub(crate) fn new(
        call: Arc<Call>,
        held: Held,
        parts: &Arc<Parts>,
        work: impl Future<Output = Result<Left, Failure>> + Send + 'static,
    ) -> Self {
        // What is made ahead has no slot that it could free.
        let rests = (!call.is_preparation()).then(|| Arc::clone(&parts.shared().rests));
        let rest = Resting { rests, resting: false };
        let course = Course { work: Some(Box::pin(work)), timer: None, held: Some(held), call: Arc::clone(&call), gave_way: None, rest };
        let state = if parts.usual.is_long(parts.shared().kept.long_us.load(Relaxed)) {
            State::Away(away(&call, parts, course))
        } else {
            State::Here(course)
        };
        Self { state, call, parts: Arc::clone(parts) }
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// What it left, once.
    pub(crate) fn take_rest(&mut self) -> Option<Rest> {
        match &mut self.state {
            State::Ended(rest) => rest.take(),
            State::Here(_) | State::Away(_) => None,
        }
    }

    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let State::Here(course) = std::mem::replace(&mut self.state, State::Ended(None)) else { return Poll::Pending };
        self.state = State::Away(away(&self.call, &self.parts, course));
        Pin::new(self).poll(cx)
    }
}

impl Future for Guest {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (result, rest) = match &mut this.state {
            State::Here(course) => match Pin::new(course).poll(cx) {
                Poll::Ready(ended) => ended,
                Poll::Pending if this.call.has_turned() => return this.leave(cx),
                Poll::Pending => return Poll::Pending,
            },
            State::Away(away) => ready!(Pin::new(away).poll(cx)),
            State::Ended(_) => return Poll::Pending,
        };
        this.state = State::Ended(rest);
        if !this.call.is_preparation() {
            this.parts.usual.note(this.call.cpu_us());
        }
        Poll::Ready(result)
    }
}

fn away(call: &Call, parts: &Parts, course: Course) -> Away<(Result<(), Failure>, Option<Rest>)> {
    parts.shared().turns.run(call.info().revision.function.clone(), course)
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("call", &self.call).field("done", &self.is_done()).finish_non_exhaustive()
    }
}

/// The guest itself with its meter and its deadline, wherever it runs.
struct Course {
    work: Option<Work>,
    timer: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
    call: Arc<Call>,
    /// When it gave way; until it goes on it could have run.
    gave_way: Option<std::time::Instant>,
    rest: Resting,
}

/// Whether it waits for the host, and who counts that.
struct Resting {
    rests: Option<Arc<Rests>>,
    resting: bool,
}

impl Resting {
    fn set(&mut self, resting: bool) {
        let before = std::mem::replace(&mut self.resting, resting);
        match &self.rests {
            Some(rests) if resting && !before => rests.begin(),
            Some(rests) if before && !resting => rests.end(),
            _ => {}
        }
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Course {
    /// Lets go of the instance, then of what was reserved for it.
    fn stop(&mut self) {
        self.rest.set(false);
        if let Some(work) = self.work.take() {
            self.call.metered(|| drop(work));
            self.gone();
        }
        self.held = None;
    }

    fn gone(&mut self) {
        self.call.guest_gone();
        if let Some(gone) = self.held.as_mut().and_then(|held| held.gone.take()) {
            gone(self.call.usage());
        }
    }

    fn end(&mut self, result: Result<Left, Failure>) -> (Result<(), Failure>, Option<Rest>) {
        self.work = None;
        self.gone();
        self.call.close_part();
        match (result, self.held.take()) {
            (Ok(Some(instance)), Some(held)) => (Ok(()), Some(Rest { instance, room: held.room })),
            (Ok(_), _) => (Ok(()), None),
            (Err(failure), _) => (Err(failure), None),
        }
    }
}

impl Future for Course {
    type Output = (Result<(), Failure>, Option<Rest>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(work) = &mut this.work else { return Poll::Pending };
        this.rest.set(false);
        let begin = std::time::Instant::now();
        let polled = this.call.metered(|| work.as_mut().poll(cx));
        this.call.count_runnable(this.gave_way.take().unwrap_or(begin).elapsed());
        if let Poll::Ready(result) = polled {
            return Poll::Ready(this.end(result));
        }
        this.gave_way = this.call.gave_way().then(std::time::Instant::now);
        this.rest.set(this.gave_way.is_none());
        // Most guests never wait, so the timer is made for those that do.
        let deadline = this.call.deadline();
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::from_std(deadline))));
        if timer.as_mut().poll(cx).is_ready() {
            let failure = this.call.fail(Failure::Timeout { limit_ms: this.call.limit_ms() });
            this.stop();
            return Poll::Ready((Err(failure), None));
        }
        Poll::Pending
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        self.stop();
    }
}
