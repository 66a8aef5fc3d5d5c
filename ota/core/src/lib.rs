//! What a fleet decides, without doing any of it.
//!
//! ```text
//!  "site=berlin,!canary" ─▶ Filter ─┐
//!  rollouts, newest last ───────────┼─▶ desired(node) ─▶ revisions ─▶ DesiredState::advance ─▶ new epoch, or nothing to say
//!  its standing ──────────────────────── allowed ──┘
//!  greetings of one node ─▶ Greetings ─▶ two boxes with one key, or not
//!  snapshot of the fleet ─▶ Fleet ──┴─▶ plan(rollout) ─▶ Plan: done, failed, and for every waiting node its reason
//! ```
//!
//! Invariants: a node runs at most one revision of a function, that of the newest rollout which matches it; an epoch grows when
//! and only when the set of assigned revisions changes; the same input gives the same output, whatever order it came in.
//! Absent on purpose: storage, connections, clocks, random numbers. Waves and gates belong in [`mod@plan`].

pub mod filter;
pub mod image;
pub mod plan;
pub mod rollout;
pub mod twin;

pub use filter::{Filter, FilterError};
pub use image::{ImageRollout, allowed_image, desired_image, image_step};
pub use plan::{Fleet, NodeFacts, Plan, Step, Waiting, plan};
pub use rollout::{DesiredState, Revisions, Rollout, allowed, desired};
pub use twin::{Greetings, Twins};
