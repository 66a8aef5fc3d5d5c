use super::*;
use proptest::prelude::*;

const MIB: u64 = 1024 * 1024;

fn name(text: &str) -> FunctionName {
    text.parse().unwrap()
}

fn share(concurrency: u32, reserved: u32) -> Share {
    Share { concurrency, reserved, instance_bytes: MIB, timeout_us: 1_000_000 }
}

/// Two processors, so many MiB, at most 32 slots.
fn node(mib: u64) -> Controller {
    Controller::new(2, mib * MIB, 1000)
}

fn run(arrival: Arrival) -> RoomId {
    match arrival {
        Arrival::Run(room) => room,
        other => panic!("{other:?}"),
    }
}

fn ticket(arrival: Arrival) -> Ticket {
    match arrival {
        Arrival::Wait(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_exact_and_goes_to_the_next_when_it_is_free() {
    let (mut node, f) = (node(2), name("f"));
    node.open(&f, share(10, 0));
    let first = run(node.arrive(&f, false, 0, Micros(0)));
    let _second = run(node.arrive(&f, false, 0, Micros(0)));
    let third = ticket(node.arrive(&f, false, 0, Micros(0)));
    assert!(node.poll(Micros(1)).is_none() && node.wants_memory() && node.memory_free() == 0);
    node.finish(&f, Some((100, 100)));
    assert!(node.poll(Micros(2)).is_none(), "a slot alone is not enough");
    node.release(first);
    assert_eq!(node.poll(Micros(3)).map(|(ticket, _)| ticket), Some(third));
}

#[test]
fn a_warm_instance_needs_no_memory() {
    let (mut node, f) = (node(1), name("f"));
    node.open(&f, share(10, 0));
    let _all = run(node.arrive(&f, false, 0, Micros(0)));
    run(node.arrive(&f, true, 0, Micros(0)));
}

#[test]
fn who_waits_for_the_host_leaves_his_slot_to_others_and_keeps_his_memory() {
    let (mut node, f) = (node(20), name("f"));
    node.open(&f, share(30, 0));
    let limit = node.limit();
    let mut at = 0..;
    let mut now = || Micros(at.next().unwrap());
    (0..limit).for_each(|_| drop(run(node.arrive(&f, false, 0, now()))));
    let waits: Vec<Ticket> = (0..20).map(|_| ticket(node.arrive(&f, false, 0, now()))).collect();
    assert!(node.poll(now()).is_none(), "every slot is used");
    node.rest(limit);
    let mut started = Vec::new();
    while let Some((ticket, Verdict::Run(_))) = node.poll(now()) {
        started.push(ticket);
    }
    assert_eq!(started, waits[..limit as usize], "as many again");
    // They fall asleep as well: now the memory is what ends it.
    node.rest(2 * limit);
    while let Some((ticket, Verdict::Run(_))) = node.poll(now()) {
        started.push(ticket);
    }
    assert_eq!((started.len() + limit as usize, node.memory_free()), (20, 0));
    // All wake at once: nobody starts until they are fewer than the limit.
    node.rest(0);
    (0..20 - limit).for_each(|_| node.finish(&f, Some((100, 100))));
    assert!(node.poll(now()).is_none() && node.running() == limit);
}

#[test]
fn one_that_waited_in_vain_hears_for_what() {
    let why = |mib: u64, concurrency: u32, others: u32| {
        let (mut node, f) = (node(mib), name("f"));
        node.open(&f, share(concurrency, 0));
        (0..others).for_each(|_| drop(run(node.arrive(&f, false, 0, Micros(0)))));
        let waits = ticket(node.arrive(&f, false, 0, Micros(0)));
        match node.poll(Micros(1_000_000)) {
            Some((ticket, Verdict::Shed(refusal))) if ticket == waits => refusal.why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why(64, 1, 1), Why::Concurrency, "its own limit");
    assert_eq!(why(2, 10, 2), Why::Memory);
    assert_eq!(why(64, 100, node(64).limit()), Why::Overload);
}

#[test]
fn what_is_reserved_is_never_taken() {
    let (mut node, greedy, quiet) = (node(64), name("greedy"), name("quiet"));
    node.open(&greedy, share(1000, 0));
    node.open(&quiet, share(2, 2));
    let mut took = 0;
    while let Arrival::Run(_) = node.arrive(&greedy, false, 0, Micros(0)) {
        took += 1;
    }
    assert_eq!(took, node.limit());
    run(node.arrive(&quiet, false, 0, Micros(0)));
    run(node.arrive(&quiet, false, 0, Micros(0)));
    assert!(matches!(node.arrive(&quiet, false, 0, Micros(0)), Arrival::Wait(_)), "its own concurrency holds");
    assert!(!node.fits(&name("other"), &share(1, 63)) && node.fits(&name("other"), &share(1, 62)));
}

#[test]
fn memory_that_is_reserved_is_not_for_others() {
    let (mut node, greedy, quiet) = (node(3), name("greedy"), name("quiet"));
    node.open(&greedy, share(1000, 0));
    node.open(&quiet, share(2, 2));
    run(node.arrive(&greedy, false, 0, Micros(0)));
    assert!(matches!(node.arrive(&greedy, false, 0, Micros(0)), Arrival::Wait(_)));
    let room = run(node.arrive(&quiet, false, 0, Micros(0)));
    node.finish(&quiet, Some((1, 1)));
    node.release(room);
    assert!(node.poll(Micros(1)).is_none(), "what comes back to the reserve stays there");
}

#[test]
fn who_would_wait_beyond_his_deadline_is_refused_at_once() {
    let (mut node, f) = (node(64), name("f"));
    node.open(&f, Share { timeout_us: 50_000, ..share(1, 0) });
    run(node.arrive(&f, false, 0, Micros(0)));
    node.finish(&f, Some((10_000, 10_000)));
    run(node.arrive(&f, false, 0, Micros(0)));
    let mut waiting = 0;
    let refusal = loop {
        match node.arrive(&f, false, 0, Micros(0)) {
            Arrival::Wait(_) => waiting += 1,
            Arrival::Refused(refusal) => break refusal,
            Arrival::Run(_) => panic!("over its concurrency"),
        }
    };
    assert!((20..60).contains(&waiting), "{waiting} wait");
    assert!(refusal.why == Why::Concurrency && refusal.retry_after_ms >= 50, "{refusal:?}");
}

#[test]
fn functions_take_turns_by_processor_time() {
    let (mut node, many, few) = (node(64), name("many"), name("few"));
    node.open(&many, share(1000, 0));
    node.open(&few, share(1000, 0));
    while let Arrival::Run(_) = node.arrive(&many, false, 0, Micros(0)) {}
    for _ in 0..50 {
        node.arrive(&many, false, 0, Micros(0));
    }
    run(node.arrive(&few, false, 0, Micros(0)));
    for _ in 0..5 {
        ticket(node.arrive(&few, false, 0, Micros(0)));
    }
    node.finish(&many, Some((5_000, 5_000)));
    assert!(node.poll(Micros(1)).is_none(), "the one beyond the limit has its slot now");
    let mut turns = Vec::new();
    for _ in 0..10 {
        node.finish(&many, Some((5_000, 5_000)));
        let before = node.lines[&few].in_flight;
        assert!(matches!(node.poll(Micros(1)), Some((_, Verdict::Run(_)))));
        turns.push(node.lines[&few].in_flight > before);
    }
    assert!(turns.iter().filter(|few| **few).count() >= 4, "{turns:?}");
}

#[test]
fn the_first_of_a_function_waits_for_no_other_function() {
    let mut node = node(64);
    let functions: Vec<FunctionName> = (0..40).map(|number| name(&format!("f-{number}"))).collect();
    for function in &functions {
        node.open(function, share(1000, 0));
    }
    while let Arrival::Run(_) = node.arrive(&functions[0], false, 0, Micros(0)) {}
    let beyond = functions[1..].iter().filter(|function| matches!(node.arrive(function, false, 0, Micros(0)), Arrival::Run(_))).count();
    assert_eq!((node.running(), beyond), (32, 32 - 8), "up to what the limit could grow to");
}

#[test]
fn those_that_wait_for_a_function_that_goes_are_answered() {
    let (mut node, f) = (node(64), name("f"));
    node.open(&f, share(1, 0));
    run(node.arrive(&f, false, 0, Micros(0)));
    let waiting = ticket(node.arrive(&f, false, 0, Micros(0)));
    node.close(&f);
    assert!(matches!(node.poll(Micros(1)), Some((ticket, Verdict::Shed(Refusal { why: Why::Gone, .. }))) if ticket == waiting));
    node.finish(&f, Some((1, 1)));
    assert_eq!((node.waiting(), node.running()), (0, 0));
    assert!(matches!(node.arrive(&f, false, 0, Micros(2)), Arrival::Refused(Refusal { why: Why::Gone, .. })));
}

#[test]
fn a_function_that_comes_back_while_one_of_it_still_runs_is_admitted_again() {
    let (mut node, f) = (node(64), name("f"));
    node.open(&f, share(2, 0));
    run(node.arrive(&f, false, 0, Micros(0)));
    node.close(&f);
    node.open(&f, share(2, 0));
    run(node.arrive(&f, false, 0, Micros(1)));
    node.finish(&f, Some((1, 1)));
    node.finish(&f, Some((1, 1)));
    run(node.arrive(&f, false, 0, Micros(2)));
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { function: u8, warm: bool },
    Finish(usize),
    Release(usize),
    GiveUp(usize),
    Open { function: u8, concurrency: u32, reserved: u32 },
    Close(u8),
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3, prop::bool::weighted(0.2)).prop_map(|(function, warm)| Step::Arrive { function, warm }),
        4 => any::<usize>().prop_map(Step::Finish),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (0_u8..3, 1_u32..6, 0_u32..3).prop_map(|(function, concurrency, reserved)| Step::Open { function, concurrency, reserved: reserved.min(concurrency) }),
        1 => (0_u8..3).prop_map(Step::Close),
        2 => (0_u64..300_000).prop_map(Step::Later),
    ]
}

proptest! {
    /// Whatever happens: memory in use never passes what there is, and each ticket is answered exactly once.
    #[test]
    fn memory_holds_and_every_ticket_is_answered_once(steps in proptest::collection::vec(step(), 1..200)) {
        let functions = [name("a"), name("b"), name("c")];
        let mut node = node(6);
        let (mut now, mut running, mut rooms, mut waiting) = (Micros(0), Vec::new(), Vec::<(RoomId, bool)>::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Arrive { function, warm } => match node.arrive(&functions[usize::from(function)], warm, 0, now) {
                    Arrival::Run(room) => { running.push(function); rooms.push((room, warm)); }
                    Arrival::Wait(ticket) => prop_assert!(waiting.insert(ticket, function).is_none()),
                    Arrival::Refused(_) => {}
                },
                Step::Finish(at) if !running.is_empty() => {
                    let function = running.swap_remove(at % running.len());
                    node.finish(&functions[usize::from(function)], Some((100, 200)));
                }
                Step::Release(at) if rooms.len() > running.len() => { let (room, _) = rooms.swap_remove(at % rooms.len()); node.release(room); }
                Step::GiveUp(at) if !waiting.is_empty() => {
                    let (ticket, function) = waiting.iter().nth(at % waiting.len()).map(|(ticket, function)| (*ticket, *function)).unwrap();
                    waiting.remove(&ticket);
                    node.give_up(&functions[usize::from(function)], ticket);
                }
                Step::Open { function, concurrency, reserved } => {
                    let share = share(concurrency, reserved);
                    if node.fits(&functions[usize::from(function)], &share) { node.open(&functions[usize::from(function)], share); }
                }
                Step::Close(function) => node.close(&functions[usize::from(function)]),
                Step::Later(us) => now = Micros(now.0 + us),
                Step::Finish(_) | Step::Release(_) | Step::GiveUp(_) => {}
            }
            while let Some((ticket, verdict)) = node.poll(now) {
                let function = waiting.remove(&ticket);
                prop_assert!(function.is_some() || matches!(verdict, Verdict::Shed(Refusal { why: Why::Gone, .. })), "answered twice or given up before");
                if let Verdict::Run(room) = verdict { running.push(function.unwrap()); rooms.push((room, false)); }
            }
            let used = rooms.iter().filter(|(_, warm)| !warm).count() as u64;
            prop_assert!(used * MIB <= 6 * MIB, "{used} MiB in use of 6");
            prop_assert_eq!(node.running() as usize, running.len());
        }
        for function in running.drain(..) { node.finish(&functions[usize::from(function)], Some((1, 1))); }
        for (room, _) in rooms.drain(..) { node.release(room); }
        for function in &functions { node.close(function); }
        while let Some((ticket, _)) = node.poll(now) { waiting.remove(&ticket); }
        prop_assert!(waiting.is_empty() && node.running() == 0 && node.waiting() == 0);
        prop_assert_eq!(node.memory_free(), 6 * MIB);
    }
}

#[test]
fn callers_that_hold_every_slot_get_their_callees() {
    let (mut node, caller, callee) = (node(64), name("caller"), name("callee"));
    node.open(&caller, share(1000, 0));
    node.open(&callee, share(2, 0));
    while let Arrival::Run(_) = node.arrive(&caller, false, 0, Micros(0)) {}
    run(node.arrive(&callee, false, 0, Micros(0)));
    assert!(matches!(node.arrive(&callee, false, 0, Micros(0)), Arrival::Wait(_)) && !node.is_full(&callee));
    assert!(node.call(&callee, false).is_some() && node.is_full(&callee));
    assert!(node.call(&callee, false).is_none(), "its own concurrency holds");
    assert!(node.call(&name("nobody"), false).is_none());
}
