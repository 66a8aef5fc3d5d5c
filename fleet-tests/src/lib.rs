//! The whole system as its users run it: real processes, real sockets, real disks, and the faults that happen to them.
//!
//! ```text
//!   tests/*.rs ──▶ Fleet (sedge-fleet) ◀── HTTPS, pinned ── cli (sedge)
//!       │             ▲
//!       │             │ UDP, through Link: counted, cut, mended
//!       ├──────────▶ Node (sedged) ◀── MQTT ── Load, Subscriber
//!       │             ▲
//!       └─────────────┴── HTTP and the local API on a Unix socket
//! ```
//!
//! Every process writes its log into a file, whose end is printed when the process handle is dropped, so that a failed test
//! shows it. Nothing waits for time: [`wait::until`] is the only place that sleeps, and it waits for a condition.
//!
//! Absent on purpose: the simulation of whole fleets, which needs no processes, and measurements (`cargo xtask bench`).

pub mod artifact;
pub mod board;
pub mod call;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod disk;
pub mod exposition;
pub mod fleet;
pub mod gateway;
pub mod hardware;
pub mod http;
pub mod lines;
pub mod link;
pub mod load;
pub mod login;
pub mod lossy;
pub mod machine;
pub mod node;
pub mod process;
pub mod small_image;
pub mod tty;
pub mod wait;
pub mod wire;

pub use board::Board;
pub use clock::Clock;
pub use disk::SmallDisk;
pub use fleet::Fleet;
pub use gateway::Gateway;
pub use lines::{Line, Lines};
pub use link::Link;
pub use load::{Load, Subscriber};
pub use machine::{Disk, Machine};
pub use node::{Membership, Node};
pub use tty::Tty;
pub use wait::until;
