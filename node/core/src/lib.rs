//! The decisions of a node, without I/O: no async, no socket, no clock, no disk.
//!
//! ```text
//! event ─▶ Queue ─▶ Dispatch ─▶ (an invocation) ─▶ Queue: done | retry at | dead letter
//! Desired ─▶ assignment::diff ─▶ fetch, prepare, stop
//! trigger ─▶ timer::next_fire            machine ─▶ Capacity            line of a function's log ─▶ Flow: keep | drop
//! failed invocation ─▶ Failures: how many within the last hour
//! event of QoS ≥ 1 ─▶ Brake: acknowledge | hold | refuse
//! asynchronous call ─▶ asynchronous: Life, Lease, Keys, Shelf
//! bytes, edges of a device ─▶ device: Framer, Edges, Allowance, Patience
//! name of a kernel image ─▶ BootEntry: version, tries, good or bad
//! invocation ─▶ Ledger ─▶ records to persist ─▶ batches to send ─▶ watermark
//! ```
//!
//! Invariants: time is an argument ([`Mono`] for waiting, [`Wall`] for dates, never mixed); the same calls give the same answers;
//! at most one event of a function and topic is in flight, in the order of acceptance.
//! Absent on purpose: who does it. The daemon moves bytes, timers and files.

pub mod assignment;
pub mod asynchronous;
pub mod boot_entry;
pub mod brake;
pub mod capacity;
pub mod controller;
pub mod device;
pub mod fair;
pub mod flow;
pub mod health;
pub mod ledger;
pub mod queue;
pub mod retry;
pub mod rivals;
pub mod round;
pub mod time;
pub mod timer;
pub mod update;

pub use brake::Brake;
pub use capacity::Capacity;
pub use controller::Controller;
pub use flow::Flow;
pub use ledger::Ledger;
pub use queue::Queue;
pub use time::{Micros, Mono, Wall};
