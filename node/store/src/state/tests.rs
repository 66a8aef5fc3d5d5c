//! The rules, without threads and disks.

use super::*;
use crate::limits::{BATCH_RECORDS_MAX, ITEM_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

type Answer = Result<(), crate::commit::JournalLost>;

fn state(config: StoreConfig) -> (State, Instant) {
    let now = Instant::now();
    let mut state = State::new(config, Queue::default(), 1, now);
    state.handle_started(1, &[]);
    (state, now)
}

fn batch(build: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new();
    build(&mut batch);
    batch
}

fn accept(id: u64) -> Batch {
    batch(|b| b.accept(ItemId(id), "event"))
}

fn finish(id: u64) -> Batch {
    batch(|b| b.finish(ItemId(id)))
}

fn set(key: &str, value: &str) -> Batch {
    batch(|b| b.set(Tree::Keyvalue, key, value))
}

/// The answer so far: `None` while the commit waits.
fn answer(commit: &mut Commit) -> Option<Answer> {
    use tokio::sync::oneshot::error::TryRecvError as Oneshot;
    let Some(receiver) = &mut commit.answer else {
        return Some(Ok(()));
    };
    match receiver.try_recv() {
        Ok(answer) => Some(answer),
        Err(Oneshot::Empty) => None,
        Err(Oneshot::Closed) => panic!("the buffer forgot a commit"),
    }
}

fn write(state: &mut State, now: Instant) -> Flight {
    let Step::Write(flight) = state.poll_step(now) else { panic!("a group is due") };
    flight
}

const GROUP: Duration = Duration::from_millis(250);

#[test]
fn an_item_finished_before_its_group_costs_nothing_and_answers_at_once() {
    let (mut state, now) = state(StoreConfig::default());
    let mut accepted = state.commit(accept(1), Durability::Grouped, now).unwrap();
    assert_eq!(answer(&mut accepted), None);
    let finished = state.commit(finish(1), Durability::Grouped, now).unwrap();
    assert!(finished.is_settled());
    assert_eq!(answer(&mut accepted), Some(Ok(())));
    assert_eq!(state.buffer_bytes(), 0);
    assert!(matches!(state.poll_step(now + GROUP * 100), Step::Wait(_)));
}

#[test]
fn an_item_waits_for_what_its_function_left_behind() {
    let (mut state, now) = state(StoreConfig::default());
    let mut accepted = state.commit(accept(1), Durability::Grouped, now).unwrap();
    let mut done = finish(1);
    done.set(Tree::Keyvalue, "state", "1");
    let mut finished = state.commit(done, Durability::None, now).unwrap();
    assert_eq!(answer(&mut finished), Some(Ok(())), "nothing was promised");
    assert_eq!(answer(&mut accepted), None);
    let flight = write(&mut state, now + GROUP);
    assert_eq!(flight.len(), 1, "only the state is written");
    state.handle_written(&flight, 1, &[]);
    assert_eq!(answer(&mut accepted), Some(Ok(())));
}

#[test]
fn waiting_follows_a_chain_of_items() {
    let (mut state, now) = state(StoreConfig::default());
    let mut first = state.commit(accept(1), Durability::Grouped, now).unwrap();
    let mut second = accept(2);
    second.finish(ItemId(1));
    drop(state.commit(second, Durability::None, now).unwrap());
    let mut third = finish(2);
    third.set(Tree::Keyvalue, "total", "2");
    drop(state.commit(third, Durability::None, now).unwrap());
    assert_eq!(answer(&mut first), None, "its effect is only in memory");
    let flight = write(&mut state, now + GROUP);
    state.handle_written(&flight, 1, &[]);
    assert_eq!(answer(&mut first), Some(Ok(())));
}

#[test]
fn an_item_on_the_disk_is_finished_on_the_disk() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(accept(1), Durability::Each, now).unwrap());
    let flight = write(&mut state, now);
    drop(state.commit(finish(1), Durability::Grouped, now).unwrap());
    state.handle_written(&flight, 1, &[]);
    let flight = write(&mut state, now + GROUP);
    assert_eq!(flight[0].1, Record::Finish { id: ItemId(1) });
}

#[test]
fn a_key_set_twice_in_one_group_is_written_once() {
    let (mut state, now) = state(StoreConfig::default());
    for value in ["1", "2", "3"] {
        drop(state.commit(set("k", value), Durability::Grouped, now).unwrap());
    }
    let flight = write(&mut state, now + GROUP);
    assert_eq!(flight.len(), 1);
    assert!(matches!(&flight[0].1, Record::Set { value, .. } if **value == *b"3"));
}

#[test]
fn attempts_fold_into_the_waiting_accept() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(accept(1), Durability::Each, now).unwrap());
    drop(state.commit(batch(|b| b.attempt(ItemId(1), 4)), Durability::None, now).unwrap());
    let flight = write(&mut state, now);
    assert!(matches!(flight.as_slice(), [(_, Record::Accept { attempts: 4, .. })]));
}

#[test]
fn a_group_waits_for_its_first_commit_and_no_longer() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(set("a", "1"), Durability::Grouped, now).unwrap());
    drop(state.commit(set("b", "1"), Durability::Grouped, now + GROUP / 2).unwrap());
    let Step::Wait(Some(until)) = state.poll_step(now + GROUP / 2) else { panic!("not yet") };
    assert_eq!(until, now + GROUP);
    assert_eq!(write(&mut state, now + GROUP).len(), 2);
}

#[test]
fn a_failed_write_tells_its_waiters_and_is_tried_again() {
    let (mut state, now) = state(StoreConfig::default());
    let mut commit = state.commit(set("a", "1"), Durability::Each, now).unwrap();
    let _flight = write(&mut state, now);
    state.handle_write_failed("input/output error", now);
    assert!(matches!(answer(&mut commit), Some(Err(crate::JournalLost::Write { .. }))));
    let refused = state.commit(set("b", "1"), Durability::Grouped, now);
    assert!(matches!(refused, Err(CommitError::Degraded { .. })));
    drop(state.commit(set("a", "2"), Durability::None, now).unwrap());

    let Step::Wait(Some(retry_at)) = state.poll_step(now) else { panic!("it pauses first") };
    let flight = write(&mut state, retry_at);
    assert!(matches!(&flight[0].1, Record::Set { value, .. } if **value == *b"2"));
    state.handle_written(&flight, 2, &[1]);
    assert!(state.commit(set("b", "1"), Durability::Grouped, now).is_ok());
}

#[test]
fn an_item_of_a_failed_write_is_finished_on_the_disk() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(accept(1), Durability::Each, now).unwrap());
    let _flight = write(&mut state, now);
    state.handle_write_failed("no space", now);
    drop(state.commit(finish(1), Durability::None, now).unwrap());
    let flight = write(&mut state, now + Duration::from_secs(60));
    assert_eq!(flight.as_slice().last().unwrap().1, Record::Finish { id: ItemId(1) });
}

#[test]
fn a_checkpoint_holds_exactly_what_the_journal_holds() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(set("a", "1"), Durability::None, now).unwrap());
    state.want_checkpoint();
    let flight = write(&mut state, now);
    assert!(matches!(state.poll_checkpoint(now), Ok(CheckpointStep::Wait(None))));
    drop(state.commit(set("b", "1"), Durability::None, now).unwrap());
    state.handle_written(&flight, 1, &[]);
    let Ok(CheckpointStep::Move(frozen)) = state.poll_checkpoint(now) else { panic!("ready") };
    assert!(frozen.changes.get(Tree::Keyvalue, b"a").is_some());
    assert!(frozen.changes.get(Tree::Keyvalue, b"b").is_none());
    assert!(state.change(Tree::Keyvalue, b"a").is_some(), "readable while it moves");
    state.handle_checkpoint(Ok(()), now);
    assert!(state.change(Tree::Keyvalue, b"a").is_none(), "the database has it");
}

#[test]
fn a_failed_write_calls_its_checkpoint_off() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(set("a", "1"), Durability::None, now).unwrap());
    state.want_checkpoint();
    let _flight = write(&mut state, now);
    drop(state.commit(set("b", "1"), Durability::None, now).unwrap());
    state.handle_write_failed("input/output error", now);
    assert!(matches!(state.poll_checkpoint(now), Ok(CheckpointStep::Wait(None))));
    let later = now + Duration::from_secs(60);
    let flight = write(&mut state, later);
    state.handle_written(&flight, 1, &[]);
    let Ok(CheckpointStep::Move(frozen)) = state.poll_checkpoint(later) else { panic!("ready") };
    assert!(frozen.changes.get(Tree::Keyvalue, b"a").is_some());
    assert!(frozen.changes.get(Tree::Keyvalue, b"b").is_some());
}

#[test]
fn an_old_segment_goes_once_nothing_lives_in_it() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(accept(1), Durability::Each, now).unwrap());
    let flight = write(&mut state, now);
    state.handle_written(&flight, 1, &[]);
    drop(state.commit(set("k", "1"), Durability::Each, now).unwrap());
    state.want_checkpoint();
    let flight = write(&mut state, now);
    state.handle_written(&flight, 2, &[1]);
    state.handle_checkpoint(Ok(()), now);
    assert!(matches!(state.poll_step(now), Step::Wait(_)), "the checkpoint covers only what was sealed");

    drop(state.commit(set("k", "2"), Durability::None, now).unwrap());
    state.want_checkpoint();
    let flight = write(&mut state, now);
    state.handle_written(&flight, 2, &[1]);
    state.handle_checkpoint(Ok(()), now);
    assert!(matches!(state.poll_step(now), Step::Wait(_)), "the item lives in it");
    drop(state.commit(finish(1), Durability::None, now).unwrap());
    assert!(matches!(state.poll_step(now), Step::Recycle(1)));
    state.handle_recycle_failed(now);
    assert!(matches!(state.poll_step(now), Step::Wait(_)));
}

#[test]
fn many_segments_make_the_live_items_of_the_oldest_move() {
    let config = StoreConfig { queue_bytes_max: 1024, ..StoreConfig::default() };
    let most = config.sealed_segments_max() as u64;
    let (mut state, now) = state(config);
    drop(state.commit(accept(1), Durability::Each, now).unwrap());
    let flight = write(&mut state, now);
    let sealed: Vec<_> = (1..=most).collect();
    state.handle_written(&flight, 1, &[]);
    state.handle_started(most + 1, &sealed);
    let Step::Move(items) = state.poll_step(now) else { panic!("the oldest is emptied") };
    assert!(matches!(items.as_slice(), [(_, Record::Accept { id: ItemId(1), .. })]));
    state.handle_written(&items, most + 1, &sealed);
    assert!(matches!(state.poll_step(now), Step::Recycle(1)));
}

#[test]
fn bounds_refuse_the_value_one_above() {
    let (state, _) = state(StoreConfig::default());
    let admits = |batch: Batch| state.admit(&batch, Durability::None);
    let value = |n: usize| batch(|b| b.set(Tree::Meta, "k", vec![0; n]));
    let key = |n: usize| batch(|b| b.delete(Tree::Meta, vec![0; n]));
    let item = |n: usize| batch(|b| b.accept(ItemId(9), vec![0; n]));
    let many = |n: usize| batch(|b| (0..n).fold(b, |b, _| b.finish(ItemId(9))));
    assert_eq!(admits(value(VALUE_BYTES_MAX)), Ok(()));
    assert_eq!(admits(key(KEY_BYTES_MAX)), Ok(()));
    assert_eq!(admits(item(ITEM_BYTES_MAX)), Ok(()));
    assert_eq!(admits(many(BATCH_RECORDS_MAX)), Ok(()));
    assert!(matches!(admits(value(VALUE_BYTES_MAX + 1)), Err(CommitError::ValueTooLong { .. })));
    assert!(matches!(admits(key(KEY_BYTES_MAX + 1)), Err(CommitError::KeyTooLong { .. })));
    assert!(matches!(admits(item(ITEM_BYTES_MAX + 1)), Err(CommitError::ItemTooLong { .. })));
    assert!(matches!(admits(many(BATCH_RECORDS_MAX + 1)), Err(CommitError::BatchTooBig { .. })));
}

#[test]
fn a_full_queue_refuses_items_and_still_finishes_them() {
    let (mut state, now) = state(StoreConfig { queue_items_max: 2, ..StoreConfig::default() });
    for id in 1..3 {
        drop(state.commit(accept(id), Durability::None, now).unwrap());
    }
    let refused = state.commit(accept(3), Durability::None, now);
    assert!(matches!(refused, Err(CommitError::QueueFull { items: 2, .. })));
    drop(state.commit(finish(1), Durability::None, now).unwrap());
    assert!(state.commit(accept(3), Durability::None, now).is_ok());
}

#[test]
fn a_full_buffer_refuses_until_it_is_written() {
    let (mut state, now) = state(StoreConfig::default());
    let mut written = 0;
    let error = loop {
        let key = format!("k{written}");
        match state.commit(batch(|b| b.set(Tree::Meta, key, vec![0; VALUE_BYTES_MAX])), Durability::None, now) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Full { .. }) && written > 10);
    let flight = write(&mut state, now);
    state.handle_written(&flight, 1, &[]);
    assert!(state.commit(set("k", "v"), Durability::None, now).is_ok());
}

#[test]
fn what_waits_is_counted_once_and_only_while_it_waits() {
    let (mut state, now) = state(StoreConfig::default());
    let bytes_max = StoreConfig::default().buffer_bytes_max();
    let one = |number: usize| batch(|b| b.set(Tree::Keyvalue, format!("k{number:04}"), vec![0; 990]));
    let weight = crate::buffer::weight(&one(0).records[0]);
    // Answers how many keys were taken, and what waits by then.
    let fill = |state: &mut State, keys: std::ops::RangeFrom<usize>| {
        for (taken, key) in keys.enumerate() {
            match state.commit(one(key), Durability::None, now) {
                Ok(_) => {}
                Err(CommitError::Full { waiting }) => return (taken, waiting),
                Err(other) => panic!("{other}"),
            }
        }
        unreachable!("there is a bound")
    };
    let most = bytes_max / weight;
    assert_eq!(fill(&mut state, 0..), (most, most * weight), "not one byte below the bound");
    let flight = write(&mut state, now);
    assert_eq!(fill(&mut state, 5_000..), (most, most * weight), "what is on its way to the disk waits no more");
    state.handle_written(&flight, 1, &[]);
    let flight = write(&mut state, now);
    // Keys that are written again and again wait once.
    for _ in 0..5 {
        (0..most / 2).for_each(|key| drop(state.commit(one(key), Durability::None, now).unwrap()));
    }
    assert_eq!(state.buffer_bytes(), most / 2 * weight);
    assert_eq!(fill(&mut state, 5_000..).0, most - most / 2);
    state.handle_written(&flight, 1, &[]);
    // A group that could not be written waits again, once.
    let flight = write(&mut state, now);
    (0..10).for_each(|key| drop(state.commit(one(key), Durability::None, now).unwrap()));
    state.handle_write_failed("no", now);
    assert_eq!((flight.len(), state.buffer_bytes()), (most, most * weight));
}

#[test]
fn a_full_disk_takes_what_frees_space() {
    let (mut state, now) = state(StoreConfig::default());
    drop(state.commit(accept(1), Durability::None, now).unwrap());
    state.room = Room { free: 9, free_min: 10, database_max: u64::MAX, ..Room::default() };
    let refused = state.commit(accept(2), Durability::None, now);
    assert_eq!(refused.unwrap_err(), CommitError::DiskFull { free: 9, needed: 10 });
    assert!(state.commit(set("k", "v"), Durability::None, now).is_err());
    assert!(state.commit(finish(1), Durability::None, now).is_ok());
    let told = || {
        let mut batch = Batch::new();
        batch.set(Tree::Assignment, *b"desired", *b"less");
        batch
    };
    assert!(state.commit(told(), Durability::None, now).is_ok(), "what takes load away is taken");
    state.room.free = 4;
    assert!(state.commit(told(), Durability::None, now).is_err());
    state.room = Room { free: 10, free_min: 10, database: 2, database_max: 1, ..Room::default() };
    assert!(state.commit(accept(2), Durability::None, now).is_ok());
    assert!(state.commit(told(), Durability::None, now).is_ok(), "what the node is told is taken past the bound");
    let mut letter = Batch::new();
    letter.set(Tree::DeadLetter, *b"k", *b"v");
    let refused = state.commit(letter, Durability::None, now);
    assert!(matches!(refused, Err(CommitError::DatabaseFull { .. })));
}

#[test]
fn functions_without_room_have_the_database_copied_a_few_times_until_something_changes() {
    let (mut state, mut now) = state(StoreConfig::default());
    let mut copies_of = |state: &mut State| {
        let mut copies = 0;
        for _ in 0..3 * RECOPIES_MAX {
            assert!(matches!(state.commit(set("k", "v"), Durability::None, now), Err(CommitError::FunctionsFull { .. })));
            if matches!(state.poll_step(now), Step::Frozen) {
                copies += u32::from(state.frozen.as_ref().unwrap().recopy);
                state.handle_checkpoint(Ok(()), now);
            }
            now += Duration::from_millis(ROOM_CHECKPOINT_MS);
        }
        copies
    };
    let full = Room { free: u64::MAX, database: 7, database_used: 6, database_max: 8, ..Room::default() };
    state.room = full;
    assert_eq!(copies_of(&mut state), RECOPIES_MAX);
    assert_eq!(copies_of(&mut state), 0, "nothing has changed");
    state.room = Room { database_used: 0, database_max: u64::MAX, ..full };
    drop(state.commit(set("k", "v"), Durability::None, now).unwrap());
    assert_eq!(state.recopies_left, RECOPIES_MAX, "something has");
}
