//! Follows one invocation to its end, when somebody wants to hear of it.
//!
//! ```text
//! ended (meter's moment) ──┐
//!                          ├─ both ─▶ told: to all who listen, and to the one who waits
//! answered (the status) ───┘
//! ```
//! A request whose caller is gone before its answer is told without a status.

use crate::clock;
use crate::logs::Logs;
use sedge_protocol::local::{Cause, Ended};
use sedge_protocol::message::Assignment;
use sedge_runtime::Ending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// One invocation, watched or not. Cheap to clone, and nothing at all when nobody listens.
#[derive(Debug, Clone)]
pub(crate) struct Watched(Option<Arc<Watch>>);

/// An invocation that somebody wants to hear of.
// A leaf lock, held for a few assignments: the end comes from whatever thread the guest ended on.
#[derive(Debug)]
pub(crate) struct Watch {
    logs: Logs,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    cause: Cause,
    tell: Option<oneshot::Sender<Ended>>,
    /// Whether nothing is to be learned about the answer any more.
    answered: bool,
    status: Option<u16>,
    ended: Option<Ended>,
}

impl Watch {
    pub(crate) fn new(logs: Logs, cause: Cause, tell: Option<oneshot::Sender<Ended>>) -> Self {
        let answered = matches!(cause, Cause::Event { .. });
        Self { logs, parts: Mutex::new(Parts { cause, tell, answered, status: None, ended: None }) }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, parts: &mut Parts) {
        let Some(mut ended) = parts.ended.take() else { return };
        ended.status = parts.status;
        if let Some(tell) = parts.tell.take() {
            // Who asked may have gone away.
            drop(tell.send(ended.clone()));
        }
        self.logs.ended(ended);
    }
}

impl Watched {
    pub(crate) fn new(watch: Option<Watch>) -> Self {
        Self(watch.map(Arc::new))
    }

    /// The answer of a request is known: its status, or that there is none.
    pub(crate) fn answered(&self, status: Option<u16>) {
        let Some(watch) = &self.0 else { return };
        let mut parts = watch.parts();
        (parts.answered, parts.status) = (true, status);
        watch.tell(&mut parts);
    }

    /// The invocation is over.
    pub(crate) fn ended(&self, assignment: &Assignment, invocation: &str, ending: &Ending) {
        let Some(watch) = &self.0 else { return };
        let mut parts = watch.parts();
        let usage = &ending.usage;
        parts.ended = Some(Ended {
            time_ms: clock::wall().0,
            function: assignment.function().clone(),
            revision: assignment.revision,
            invocation: invocation.to_owned(),
            cause: parts.cause.clone(),
            ok: ending.result.is_ok(),
            status: None,
            reason: ending.result.as_ref().err().map(ToString::to_string),
            wall_us: usage.wall_us,
            cpu_us: usage.cpu_us,
            memory_bytes: usage.memory_peak_bytes,
            cold: usage.cold,
        });
        if parts.answered {
            watch.tell(&mut parts);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(mut ended) = self.parts().ended.take() else { return };
        ended.status = self.parts().status;
        self.logs.ended(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Live;
    use sedge_protocol::{Digest, Manifest, RevisionId};
    use sedge_runtime::{Failure, Usage};

    fn assignment() -> Assignment {
        let (manifest, artifact) = (Manifest::from_toml("f", "name = 'f'").unwrap().0, Digest::of(b""));
        Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 0, manifest }
    }

    fn request() -> Cause {
        Cause::Request { method: "GET".to_owned(), path: "/".to_owned() }
    }

    fn told(listener: &mut crate::logs::Listener) -> Option<(Option<u16>, bool)> {
        match listener.try_recv() {
            Ok(Live::Ended(ended)) => Some((ended.status, ended.ok)),
            _ => None,
        }
    }

    #[test]
    fn nothing_is_made_when_nobody_listens() {
        let logs = Logs::new();
        assert!(logs.watch(|| unreachable!("nobody listens")).0.is_none());
        let listener = logs.listen();
        assert!(logs.watch(request).0.is_some());
        drop(listener);
        assert!(logs.watch(|| unreachable!("nobody listens any more")).0.is_none());
    }

    #[test]
    fn an_end_is_told_once_with_its_status_whichever_comes_first() {
        let logs = Logs::new();
        let mut listener = logs.listen();
        let ending = Ending { result: Ok(()), usage: Usage::default() };
        for ended_first in [true, false] {
            let watched = logs.watch(request);
            if ended_first {
                watched.ended(&assignment(), "1", &ending);
                assert_eq!(told(&mut listener), None, "the status is still to come");
                watched.answered(Some(204));
            } else {
                watched.answered(Some(204));
                watched.ended(&assignment(), "1", &ending);
            }
            drop(watched);
            assert_eq!((told(&mut listener), told(&mut listener)), (Some((Some(204), true)), None));
        }
    }

    #[test]
    fn a_caller_that_goes_away_is_told_without_a_status() {
        let logs = Logs::new();
        let mut listener = logs.listen();
        let watched = logs.watch(request);
        watched.ended(&assignment(), "1", &Ending { result: Err(Failure::Cancelled), usage: Usage::default() });
        drop(watched);
        assert_eq!(told(&mut listener), Some((None, false)));
    }
}
