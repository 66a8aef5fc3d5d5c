//! The power goes at random moments of an update, on a disk that keeps what it was told and on one that loses what was not flushed.

use super::{BOOTS_MAX, Site};
use anyhow::{Context as _, Result, ensure};
use fleet_tests::{Board, Machine, wait};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sedge_protocol::image::{OsPhase, OsReport};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Cuts of all rounds together.
const CUTS: usize = 40;
/// At least so many of them on a disk that loses writes.
const LOSSY_MIN: usize = 10;
/// What the kernel says when the first program has found a root and hands over.
const STARTED: &str = "watchdog did not stop";

/// What an update is at when the power goes; it goes through them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Fetch,
    Write,
    Stage,
    Activate,
    Reboot,
    Trial,
    Bless,
    Kept,
    /// The version was given up.
    Over,
}

/// In each round, as far as they come.
const MOMENTS: [Moment; 8] =
    [Moment::Fetch, Moment::Write, Moment::Stage, Moment::Activate, Moment::Reboot, Moment::Trial, Moment::Bless, Moment::Kept];

/// When exactly, after the moment has begun.
#[derive(Debug, Clone, Copy)]
enum Fuse {
    After(Duration),
    /// At this write to the boot partition.
    BootPartition(u32),
    /// At this write to the slot that is written.
    OtherSlot(u32),
}

impl Moment {
    /// How far an update is.
    fn of(os: &OsReport) -> Option<Self> {
        match (&os.phase, os.version.to_string() == "1.0") {
            (OsPhase::Fetching { .. }, _) => Some(Self::Fetch),
            (OsPhase::Staged { .. }, _) => Some(Self::Activate),
            (OsPhase::Trial { .. }, true) => Some(Self::Trial),
            (OsPhase::Confirmed, true) => Some(Self::Kept),
            (OsPhase::RolledBack { .. }, _) => Some(Self::Over),
            (_, _) => None,
        }
    }

    /// Whether the power can go now; false when this moment has passed.
    fn has_begun(self, seen: Option<Self>, starts: usize) -> Option<bool> {
        match seen {
            Some(seen) if seen > self => Some(false),
            Some(Self::Fetch) => (self <= Self::Stage).then_some(true),
            Some(Self::Activate) => (self <= Self::Reboot || starts > 1).then_some(true),
            Some(Self::Trial) => (self <= Self::Bless).then_some(true),
            Some(Self::Kept | Self::Over) => Some(true),
            _ => None,
        }
    }

    fn fuse(self, random: &mut StdRng, lossy: bool) -> Fuse {
        let mut after = |ms: RangeInclusive<u64>| Fuse::After(Duration::from_millis(random.random_range(ms)));
        match self {
            Self::Fetch => after(0..=2_000),
            Self::Write if lossy => Fuse::OtherSlot(random.random_range(1..=60)),
            Self::Write => after(1_000..=12_000),
            Self::Stage if lossy => Fuse::BootPartition(random.random_range(1..=30)),
            Self::Stage => after(5_000..=20_000),
            Self::Activate | Self::Bless if lossy => Fuse::BootPartition(random.random_range(1..=14)),
            Self::Activate | Self::Kept | Self::Over => after(0..=2_000),
            Self::Reboot | Self::Trial => after(0..=20_000),
            Self::Bless => after(5_000..=25_000),
        }
    }
}

impl Site {
    /// The power goes at `moment`; false when that does not come any more.
    fn cut_at(&mut self, moment: Moment, random: &mut StdRng, lossy: bool) -> Result<bool> {
        let patience = self.machine.board().patience();
        let begun = wait::until_within(patience * BOOTS_MAX, &format!("{moment:?} begins"), || {
            self.machine.check()?;
            let starts = self.machine.console().matches(STARTED).count();
            Ok(moment.has_begun(self.seen()?.as_ref().and_then(Moment::of), starts))
        })?;
        if !begun {
            return Ok(false);
        }
        let (fuse, begin) = (moment.fuse(random, lossy), Instant::now());
        let after = match fuse {
            Fuse::After(after) => after,
            Fuse::BootPartition(writes) => self.disk.cut_at_boot_partition(writes).map(|()| patience)?,
            Fuse::OtherSlot(writes) => self.disk.cut_at_other_slot(writes).map(|()| patience)?,
        };
        wait::until_within(patience * 2, "the power goes", || {
            self.machine.check()?;
            // What is not written any more cannot be cut: then it is the next moment that is.
            let late = begin.elapsed() >= after || self.seen()?.as_ref().and_then(Moment::of) > Some(moment);
            Ok((self.disk.is_cut() || late).then_some(()))
        })?;
        let blown = self.disk.is_cut();
        self.machine.pull_the_plug()?;
        let lost = self.disk.cut_power()?;
        let names = self.disk.kernel_images().unwrap_or_default();
        println!("{moment:?}, {fuse:?}, blown {blown}, {lost:?}: {names:?}");
        Ok(true)
    }

    /// What the fleet knows of the box since its power came.
    fn seen(&self) -> Result<Option<OsReport>> {
        let nodes = self.fleet.nodes()?;
        Ok(nodes.into_iter().find(|node| node.vitals.started_ms >= self.power_ms).and_then(|node| node.os))
    }

    /// Boots again, and finds one version whole.
    fn boots(&mut self) -> Result<()> {
        self.power_ms = crate::support::now_ms()?;
        self.machine = Machine::boot(&self.disk)?;
        let os = self.os("the box is back after a power cut", 1, |_| true)?;
        let one_version = matches!((os.version.to_string().as_str(), os.slot.as_str()), ("0.1.0", "a") | ("1.0", "b"));
        ensure!(one_version, "{os:?}");
        Ok(())
    }
}

/// One box from its flash to the end of an update; answers the moments at which it lost power, and whether the version was kept.
fn round(random: &mut StdRng, lossy: bool) -> Result<(Vec<Moment>, bool)> {
    let mut site = Site::with(Board::Pc, lossy.then(|| random.random()))?;
    let first = site.count()?;
    site.roll_out("1.0")?;
    let mut cuts = Vec::new();
    for moment in MOMENTS {
        if site.cut_at(moment, random, lossy)? {
            cuts.push(moment);
            site.boots().with_context(|| format!("after a cut at {moment:?}"))?;
        }
    }
    let ended = |os: &OsReport| matches!(Moment::of(os), Some(Moment::Kept | Moment::Over));
    let os = site.os("the update has ended", BOOTS_MAX, ended)?;
    println!("ended with {} in slot {}: {:?}", os.version, os.slot, os.phase);
    let second = site.count()?;
    ensure!(second > first, "state outlives power cuts: {first}, {second}");
    site.machine.pull_the_plug()?;
    site.disk.cut_power()?;
    site.disk.check_boot_partition().context("the boot partition after the last boot")?;
    Ok((cuts, Moment::of(&os) == Some(Moment::Kept)))
}

#[test]
#[ignore = "boots some fifty times: `cargo xtask test --all`"]
fn a_box_that_loses_power_forty_times_in_updates_always_boots_one_version_whole() -> Result<()> {
    let seed = std::env::var("SEDGE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (SEDGE_TEST_SEED)");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut cuts, mut ends) = (BTreeMap::<(bool, Moment), usize>::new(), [0, 0]);
    for lossy in [true, false].into_iter().cycle() {
        let (at, kept) = round(&mut random, lossy)?;
        at.into_iter().for_each(|moment| *cuts.entry((lossy, moment)).or_default() += 1);
        ends[usize::from(kept)] += 1;
        let lossy: usize = cuts.iter().filter(|((lossy, _), _)| *lossy).map(|(_, count)| count).sum();
        if cuts.values().sum::<usize>() >= CUTS && lossy >= LOSSY_MIN {
            break;
        }
    }
    println!("power cuts (on a disk that loses writes, moment): {cuts:?}; given up {}, kept {}", ends[0], ends[1]);
    Ok(())
}
