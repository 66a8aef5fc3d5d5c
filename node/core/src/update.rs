//! The update of the operating system as a pure machine. What is on the disk is an argument, time is an argument, what is to be done is returned.
//!
//! ```text
//!          Begin            Written             Activate: three tries, restart            Healthy: bless
//!   Idle ────────▶ Fetching ────────▶ Staged ─────────────────────────────────▶ Trial ─────────────────▶ Confirmed
//!    ▲                │  ▲              │ Begin of another, back to Fetching     │                          │ Begin
//!    └────────────────┘  └──────────────┴───────────────────────────────────────┼──────────────────────────┘
//!        Abandoned                                                              │ Failed, or its time is over: restart;
//!                                                                               ▼ when no try is left the boot loader takes
//!                                                                          RolledBack   the version before
//! ```
//! The state is written down nowhere: it is the names of the kernel images on the boot partition ([`BootEntry`]), read at each start by
//! [`Update::at_start`]. A power cut at any moment therefore leaves a state that is true. Every [`Effect`] may be carried out twice.

use crate::boot_entry::{BootEntry, ImageVersion};
use crate::time::Mono;
use std::fmt;
use std::time::Duration;

/// How often a new version may begin before the one before it is taken again.
pub const TRIES: u32 = 3;

/// Where an update stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Nothing is under way, and the disk does not know the version that runs: its kernel image was lost.
    Idle,
    /// The other slot is being written: it holds nothing that boots.
    Fetching {
        /// The version that it will hold.
        target: ImageVersion,
    },
    /// The other slot holds a verified version that the boot loader does not know of.
    Staged {
        /// Which.
        target: ImageVersion,
    },
    /// The version that runs may run a few times and has to show itself.
    Trial {
        /// When it has had enough time; none when there is no other version to go back to.
        until: Option<Mono>,
        /// What it has not shown yet.
        waits: String,
    },
    /// The version that runs is good.
    Confirmed,
    /// A version was tried, and the one before runs.
    RolledBack {
        /// Which was tried.
        target: ImageVersion,
        /// Why it was given up.
        reason: String,
    },
}

/// What the disk says at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The version that runs.
    pub running: ImageVersion,
    /// Kernel images that the boot loader sees.
    pub entries: Vec<BootEntry>,
    /// Versions that are staged, whole.
    pub staged: Vec<ImageVersion>,
    /// The version that was tried last, where that is known.
    pub tried: Option<ImageVersion>,
    /// What the last version that failed said of it, if it could.
    pub last_words: Option<(ImageVersion, String)>,
}

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it is for.
    pub board: String,
    /// Its version.
    pub version: ImageVersion,
    /// The oldest version that can be followed by it.
    pub minimum: Option<ImageVersion>,
}

/// Why a version is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for something else.
    #[error("it is for {offered}, this box is {ours}")]
    Board {
        /// What it is for.
        offered: String,
        /// What this is.
        ours: String,
    },
    /// It is older than what runs.
    #[error("it is older than {running}, which runs: a version that was replaced is not taken again")]
    Older {
        /// What runs.
        running: ImageVersion,
    },
    /// It cannot follow what runs.
    #[error("it can follow {minimum} and later, {running} runs: update to a version between first")]
    TooFar {
        /// What it can follow.
        minimum: ImageVersion,
        /// What runs.
        running: ImageVersion,
    },
    /// The version that runs has not shown itself yet, and what is in the other slot may be needed.
    #[error("{running}, which runs, is on trial: wait until it is kept")]
    OnTrial {
        /// What runs.
        running: ImageVersion,
    },
    /// It was tried before.
    #[error("it was tried and given up: {reason}")]
    GivenUp {
        /// Why.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A version that may be installed begins to come in.
    Begin {
        /// Which.
        target: ImageVersion,
    },
    /// The other slot holds it, read back and compared.
    Written,
    /// What came cannot be used, or nobody wants it any more.
    Abandoned,
    /// The box may restart now.
    Activate,
    /// The version that runs says what it has not shown yet.
    Waits(String),
    /// The version that runs does its work.
    Healthy,
    /// The version that runs does not come up.
    Failed {
        /// Why.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Take away every kernel image but that of `keep`: what they boot is about to be overwritten. One that failed stays as a record.
    Forget {
        /// The version that runs.
        keep: ImageVersion,
    },
    /// Show the staged version to the boot loader, with [`TRIES`] tries, then restart.
    Try {
        /// Which.
        target: ImageVersion,
    },
    /// Take the counter off the version that runs.
    Bless,
    /// Note why, then restart: the boot loader counts.
    GiveUp {
        /// Why.
        reason: String,
    },
}

impl Update {
    /// Where an update stands after a start at `now`; a version on trial has `trial` to show itself.
    #[must_use]
    pub fn at_start(disk: &Disk, now: Mono, trial: Duration) -> Self {
        if disk.is_on_trial() {
            let other = disk.entries.iter().any(|entry| entry.version != disk.running && !entry.is_bad());
            return Self::Trial { until: other.then(|| now.after(trial)), waits: "the node has not started".to_owned() };
        }
        if let Some(target) = disk.staged.iter().filter(|version| **version > disk.running).max() {
            return Self::Staged { target: target.clone() };
        }
        match disk.given_up() {
            Some((target, reason)) => Self::RolledBack { target, reason },
            None if disk.entries.iter().any(|entry| entry.version == disk.running) => Self::Confirmed,
            None => Self::Idle,
        }
    }

    /// The next state, and what is to be done now. `running` is the version that runs.
    #[must_use]
    pub fn on(self, event: Event, running: &ImageVersion, now: Mono) -> (Self, Option<Effect>) {
        match (self, event) {
            (
                Self::Idle | Self::Confirmed | Self::RolledBack { .. } | Self::Fetching { .. } | Self::Staged { .. },
                Event::Begin { target },
            ) => (Self::Fetching { target }, Some(Effect::Forget { keep: running.clone() })),
            (Self::Fetching { target }, Event::Written) => (Self::Staged { target }, None),
            (Self::Fetching { .. } | Self::Staged { .. }, Event::Abandoned) => {
                (Self::Confirmed, Some(Effect::Forget { keep: running.clone() }))
            }
            (Self::Staged { target }, Event::Activate) => (Self::Staged { target: target.clone() }, Some(Effect::Try { target })),
            (Self::Trial { .. }, Event::Healthy) => (Self::Confirmed, Some(Effect::Bless)),
            (Self::Trial { until, .. }, Event::Waits(waits)) => (Self::Trial { until, waits }, None),
            // Without another version to go back to, this one goes on.
            (state @ Self::Trial { until: Some(_), .. }, Event::Failed { reason }) => (state, Some(Effect::GiveUp { reason })),
            (Self::Trial { until: Some(until), waits }, Event::Tick) if now >= until => {
                let reason = format!("it did not show within its time that it works: {waits}");
                (Self::Trial { until: Some(until), waits }, Some(Effect::GiveUp { reason }))
            }
            // A version that is good already may be told so again; what comes too late changes nothing.
            (
                state @ (Self::Idle
                | Self::Fetching { .. }
                | Self::Staged { .. }
                | Self::Trial { .. }
                | Self::Confirmed
                | Self::RolledBack { .. }),
                Event::Begin { .. }
                | Event::Written
                | Event::Abandoned
                | Event::Activate
                | Event::Waits(_)
                | Event::Healthy
                | Event::Failed { .. }
                | Event::Tick,
            ) => (state, None),
        }
    }

    /// Until when [`Event::Tick`] has to come.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        match self {
            Self::Trial { until, .. } => *until,
            Self::Idle | Self::Fetching { .. } | Self::Staged { .. } | Self::Confirmed | Self::RolledBack { .. } => None,
        }
    }
}

impl Disk {
    /// Whether the version that runs is counted.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.entries.iter().any(|entry| entry.version == self.running && entry.tries.is_some())
    }

    /// The newest version that used up its tries, and why; none when another one was tried after it.
    #[must_use]
    pub fn given_up(&self) -> Option<(ImageVersion, String)> {
        let bad = self.entries.iter().filter(|entry| entry.is_bad() && entry.version > self.running);
        let version = bad.map(|entry| entry.version.clone()).max()?;
        let last = self.tried.as_ref().is_none_or(|tried| *tried == version);
        last.then(|| self.why(&version)).flatten().map(|reason| (version, reason))
    }

    /// Why a version was given up, if it was.
    fn why(&self, version: &ImageVersion) -> Option<String> {
        let bad = self.entries.iter().any(|entry| entry.is_bad() && entry.version == *version);
        let said = self.last_words.as_ref().filter(|(of, _)| of == version).map(|(_, reason)| reason.clone());
        bad.then(|| said.unwrap_or_else(|| "it never came up far enough to say why: it hung, panicked or lost power".to_owned()))
    }

    /// Whether this box takes what is offered. `again` is set when the operator wants a version tried once more that was given up.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, offer: &Offer, board: &str, again: bool) -> Result<(), Refusal> {
        let running = || self.running.clone();
        if offer.board != board {
            return Err(Refusal::Board { offered: offer.board.clone(), ours: board.to_owned() });
        }
        if offer.version <= self.running {
            return Err(Refusal::Older { running: running() });
        }
        if let Some(minimum) = offer.minimum.as_ref().filter(|minimum| **minimum > self.running) {
            return Err(Refusal::TooFar { minimum: minimum.clone(), running: running() });
        }
        if self.is_on_trial() {
            return Err(Refusal::OnTrial { running: running() });
        }
        match self.why(&offer.version).filter(|_| !again) {
            Some(reason) => Err(Refusal::GivenUp { reason }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Fetching { target } => write!(f, "fetching {target}"),
            Self::Staged { target } => write!(f, "staged {target}"),
            Self::Trial { .. } => f.write_str("trial"),
            Self::Confirmed => f.write_str("confirmed"),
            Self::RolledBack { target, reason } => write!(f, "rolled back from {target}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests;
