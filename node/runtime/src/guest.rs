//! Drives a guest: every poll is metered, and nothing runs past the deadline.

use crate::epoch::Ticking;
use crate::failure::Failure;
use crate::usage::Call;
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// One guest on its way. A failure is recorded in the call before the guest's streams close, so whoever reads
/// those sees a failure and never a clean end.
///
/// Cancel safe: dropping it stops the guest; the call then counts as cancelled.
pub(crate) struct Guest {
    state: State,
    call: Arc<Call>,
}

/// What is let go after the instance.
#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) struct Held {
    /// The memory that admission counts.
    pub(crate) permit: Box<dyn Any + Send>,
    /// The clock that the deadline needs.
    pub(crate) ticking: Ticking,
}

enum State {
    Running { work: Work, timer: Option<Pin<Box<Sleep>>>, held: Held },
    Done,
}

impl Guest {
    /// `work` runs the guest; it must record its own failure before it drops the store.
    pub(crate) fn new(call: Arc<Call>, held: Held, work: impl Future<Output = Result<(), Failure>> + Send + 'static) -> Self {
        Self { state: State::Running { work: Box::pin(work), timer: None, held }, call }
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn stop(&mut self) {
        if let State::Running { work, held, .. } = std::mem::replace(&mut self.state, State::Done) {
            self.call.metered(|| drop(work));
            self.call.guest_gone();
            drop(held);
        }
    }
}

impl Future for Guest {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let State::Running { work, timer, .. } = &mut this.state else { return Poll::Pending };
        if let Poll::Ready(result) = this.call.metered(|| work.as_mut().poll(cx)) {
            // The store went with the work, inside the metered poll.
            this.call.guest_gone();
            this.state = State::Done;
            this.call.close_part();
            return Poll::Ready(result);
        }
        // Most guests never wait, so the timer is made for those that do.
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::from_std(this.call.deadline()))));
        if timer.as_mut().poll(cx).is_ready() {
            let failure = this.call.fail(Failure::Timeout { limit_ms: this.call.limit_ms() });
            this.stop();
            return Poll::Ready(Err(failure));
        }
        Poll::Pending
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("call", &self.call).field("done", &self.is_done()).finish_non_exhaustive()
    }
}
