//! The places of a listener. When all are taken, a connection on which nothing is under way makes room for a new one.
//!
//! ```text
//! free ── accepted ──▶ idle ◀── answered, and the last byte is out ── busy
//!                       │ └──────── the head of a request is whole ────▶ │
//!                       └ asked to leave, when the listener is full: the longest idle of the address that holds the most
//! ```
//! Only the task of a connection changes its state and closes it, so a request that came in the same moment is answered. What is busy is
//! never closed for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A request is under way.
const BUSY: u64 = 0;
/// Its answer is made, and not all of it is out.
const ANSWERED: u64 = 1;
/// Idle from here on: when it began.
const IDLE: u64 = 2;

/// Whom a connection is counted for: an IPv4 address, or the network of an IPv6 address, of which one client has many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holder(u64);

impl From<IpAddr> for Holder {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

/// All places. Owned by the task that accepts.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    seats: Vec<Weak<Seat>>,
    house: Arc<House>,
}

/// What all connections of a listener know.
#[derive(Debug)]
struct House {
    begin: Instant,
    /// Somebody waits for a place.
    full: AtomicBool,
    /// Tells him that another connection may leave now.
    changed: Notify,
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Seat {
    holder: Option<Holder>,
    state: AtomicU64,
    /// The last request had a body.
    had_body: AtomicBool,
    leave: Notify,
    house: Arc<House>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Occupied {
    // Before the seat: who finds a seat gone finds its place free.
    _permit: OwnedSemaphorePermit,
    pub(super) seat: Arc<Seat>,
}

/// A request under way: from its head to the last piece of its answer.
#[derive(Debug)]
pub(super) struct Turn(Arc<Seat>);

impl Places {
    pub(super) fn new(most: usize) -> Self {
        let house = House { begin: Instant::now(), full: AtomicBool::new(false), changed: Notify::new() };
        Self { free: Arc::new(Semaphore::new(most)), most, seats: Vec::new(), house: Arc::new(house) }
    }

    /// A place for a connection of `holder`, as soon as there is one. Cancel safe: nothing is taken.
    pub(super) async fn take(&mut self, holder: Option<Holder>) -> Occupied {
        let permit = self.permit().await;
        let (state, had_body) = (AtomicU64::new(self.house.idle_now()), AtomicBool::new(false));
        let seat = Arc::new(Seat { holder, state, had_body, leave: Notify::new(), house: Arc::clone(&self.house) });
        if self.seats.len() >= 2 * self.most {
            self.seats.retain(|seat| seat.strong_count() > 0);
        }
        self.seats.push(Arc::downgrade(&seat));
        Occupied { _permit: permit, seat }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return permit;
            }
            // Before the look: who becomes idle after it tells so.
            self.house.full.store(true, SeqCst);
            self.ask_one_to_leave();
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => {
                    self.house.full.store(false, Relaxed);
                    return permit.expect("nobody closes it");
                }
                () = self.house.changed.notified() => {}
            }
        }
    }

    fn ask_one_to_leave(&self) {
        let seats: Vec<Arc<Seat>> = self.seats.iter().filter_map(Weak::upgrade).collect();
        let views: Vec<_> = seats.iter().map(|seat| (seat.holder, seat.idle_since())).collect();
        if let Some(leaver) = choose(&views) {
            seats[leaver].leave.notify_one();
        }
    }
}

/// Which of the connections makes room, by their holders and since when they are idle: of those of the holder that has the most, the
/// longest idle one. `None` when all are busy.
fn choose(seats: &[(Option<Holder>, Option<u64>)]) -> Option<usize> {
    let mut counts: HashMap<Option<Holder>, usize> = HashMap::new();
    for (holder, _) in seats {
        *counts.entry(*holder).or_default() += 1;
    }
    let idle = seats.iter().enumerate().filter_map(|(at, (holder, since))| Some((at, counts[holder], (*since)?)));
    idle.max_by_key(|(_, count, since)| (*count, std::cmp::Reverse(*since))).map(|(at, ..)| at)
}

impl House {
    fn idle_now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(IDLE)
    }
}

impl Seat {
    /// The head of a request is whole.
    pub(super) fn begin(self: &Arc<Self>, has_body: bool) -> Turn {
        self.had_body.store(has_body, Relaxed);
        self.state.store(BUSY, Relaxed);
        Turn(Arc::clone(self))
    }

    /// All that was written is out. Answers, if a request ended with that, whether it had a body.
    pub(super) fn flushed(&self) -> Option<bool> {
        if self.state.load(Relaxed) != ANSWERED {
            return None;
        }
        self.state.store(self.house.idle_now(), SeqCst);
        if self.house.full.load(SeqCst) {
            self.house.changed.notify_one();
        }
        Some(self.had_body.load(Relaxed))
    }

    fn idle_since(&self) -> Option<u64> {
        Some(self.state.load(SeqCst)).filter(|state| *state >= IDLE)
    }

    /// Waits until this connection is asked to make room. Cancel safe.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether it can: nothing is under way. If it cannot, another is asked.
    pub(super) fn leaves(&self) -> bool {
        let leaves = self.idle_since().is_some();
        if !leaves {
            self.house.changed.notify_one();
        }
        leaves
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        // Before its place is free: who gets that and looks for the next one must not ask one that is on its way out.
        self.seat.state.store(BUSY, SeqCst);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.store(ANSWERED, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    fn holder(text: &str) -> Option<Holder> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn the_longest_idle_of_the_address_that_holds_the_most_makes_room() {
        let (one, two) = (holder("10.0.0.1"), holder("10.0.0.2"));
        let check = |seats: &[(Option<Holder>, Option<u64>)], expected| assert_eq!(choose(seats), expected, "{seats:?}");
        check(&[], None);
        check(&[(one, None), (two, None)], None);
        check(&[(one, Some(9)), (two, Some(5))], Some(1));
        check(&[(one, Some(5)), (two, Some(9)), (two, Some(8))], Some(2));
        check(&[(one, Some(5)), (two, None), (two, None)], Some(0));
    }

    #[test]
    fn the_addresses_of_one_network_are_one_holder() {
        assert_eq!(holder("2001:db8::1"), holder("2001:db8::ffff:1:2:3"));
        assert_ne!(holder("2001:db8::1"), holder("2001:db8:0:1::1"));
        assert_eq!(holder("::ffff:10.0.0.1"), holder("10.0.0.1"));
        assert_ne!(holder("10.0.0.1"), holder("10.0.0.2"));
    }

    #[tokio::test]
    async fn who_is_busy_stays_and_makes_room_once_its_answer_is_out() {
        let mut places = Places::new(1);
        let occupied = places.take(None).await;
        let seat = Arc::clone(&occupied.seat);
        let turn = seat.begin(false);
        let (next, ()) = tokio::join!(tokio::time::timeout(SOON, places.take(None)), async {
            // The other has looked by now and found nobody.
            tokio::task::yield_now().await;
            drop(turn);
            assert!(seat.idle_since().is_none(), "its answer is not out");
            assert_eq!(seat.flushed(), Some(false));
            seat.asked_to_leave().await;
            assert!(seat.leaves());
            drop(occupied);
        });
        drop(next.unwrap());
    }

    #[tokio::test]
    async fn one_that_has_given_up_its_place_is_not_asked_for_it_again() {
        let mut places = Places::new(1);
        let first = places.take(None).await;
        // The thread that drops it is held up on the way.
        let _still = Arc::clone(&first.seat);
        drop(first);
        let second = places.take(None).await;
        let (next, ()) = tokio::join!(tokio::time::timeout(SOON, places.take(None)), async {
            second.seat.asked_to_leave().await;
            drop(second);
        });
        drop(next.unwrap());
    }

    #[tokio::test]
    async fn one_that_was_asked_and_has_a_request_by_then_stays_and_another_is_asked() {
        let mut places = Places::new(2);
        let (first, second) = (places.take(None).await, places.take(None).await);
        let (next, ()) = tokio::join!(tokio::time::timeout(SOON, places.take(None)), async {
            first.seat.asked_to_leave().await;
            let _turn = first.seat.begin(false);
            assert!(!first.seat.leaves());
            second.seat.asked_to_leave().await;
            assert!(second.seat.leaves());
            drop(second);
        });
        drop(next.unwrap());
    }
}
