//! The controller against other ways to limit concurrency, on a simulated box: processors that are shared evenly, an open loop of
//! requests that come whether or not the box can bear them.
//!
//! The times are simulated: the same seed gives the same run, on any machine.

#![expect(clippy::print_stdout, reason = "the table is what a person reads of it")]

#[path = "overload/box_model.rs"]
mod box_model;
#[path = "overload/policy.rs"]
mod policy;

use box_model::{Load, Outcome, simulate};
use policy::Ours;
use sedge_node_core::rivals::{Fixed, Gradient2, PressureOnly, Unlimited};

/// Two processors and 256 MiB for instances.
const CORES: u32 = 2;
const MEMORY_MIB: u64 = 256;

/// A mix: many short calls, some long ones, and a victim that wants a tenth of the box. `factor` 1 is what the box can do.
fn mix(factor: f64) -> Vec<Load> {
    let capacity_us = f64::from(CORES) * 1e6;
    let of = |name: &'static str, cpu_us: u64, share: f64, timeout_us: u64| Load {
        name,
        cpu_us,
        instance_mib: 4,
        timeout_us,
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        per_second: share * capacity_us / cpu_us as f64,
    };
    vec![of("short", 1_000, 0.45 * factor, 200_000), of("long", 20_000, 0.45 * factor, 1_000_000), of("victim", 4_000, 0.10, 200_000)]
}

fn ours(factor: f64) -> Outcome {
    simulate(&mut Ours::new(CORES, MEMORY_MIB, &mix(factor)), CORES, &[&mix(factor)], 1)
}

#[test]
fn five_times_overload_costs_little_goodput_and_no_patience() {
    let (calm, over) = (ours(0.7), ours(5.0));
    let others = [
        simulate(&mut Unlimited, CORES, &[&mix(5.0)], 1),
        simulate(&mut Fixed::new(64), CORES, &[&mix(5.0)], 1),
        simulate(&mut Gradient2::default(), CORES, &[&mix(5.0)], 1),
        simulate(&mut PressureOnly::new(CORES), CORES, &[&mix(5.0)], 1),
    ];
    let best = others.iter().map(Outcome::useful_share).fold(over.useful_share(), f64::max);
    println!("calm      {calm}\nours      {over}");
    for (name, other) in ["unlimited", "fixed 64", "gradient2", "pressure"].iter().zip(&others) {
        println!("{name:<9} {other}");
    }
    assert!(over.useful_share() >= 0.9 * best, "useful work: {} of the best {best}", over.useful_share());
    assert!(over.p99_us() <= 3 * calm.p99_us().max(1), "p99 {} µs against {} µs", over.p99_us(), calm.p99_us());
    assert!(over.refused_p99_us() <= 5_000, "refused after {} µs", over.refused_p99_us());
    let (victim, alone) = (over.goodput("victim"), calm.goodput("victim"));
    assert!(victim >= 0.9 * alone, "the victim has {victim}/s of {alone}/s");
    assert!(over.memory_peak_mib <= MEMORY_MIB, "{} MiB", over.memory_peak_mib);
}

#[test]
fn after_the_overload_everything_is_as_before() {
    let mut node = Ours::new(CORES, MEMORY_MIB, &mix(1.0));
    let after = simulate(&mut node, CORES, &[&mix(5.0), &mix(0.7)], 2);
    println!("after     {after}");
    let refused = after.refused_share();
    assert!(refused < 0.02, "{refused} refused at 70 % load after the overload");
}

#[test]
fn close_to_the_limit_an_overload_before_costs_nothing() {
    for factor in [0.9, 0.95] {
        let run = |phases: &[&[Load]]| simulate(&mut Ours::new(CORES, MEMORY_MIB, &mix(1.0)), CORES, phases, 3);
        let (only, after) = (run(&[&mix(factor)]), run(&[&mix(5.0), &mix(factor)]));
        println!("{factor} only  {only}\n{factor} after {after}");
        let kept = after.useful_share() / only.useful_share();
        assert!(kept >= 0.97, "at {factor} of what the box can do, {kept} of the useful work is left after an overload");
    }
}
