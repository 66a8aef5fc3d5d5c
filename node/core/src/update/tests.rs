use super::*;
use crate::boot_entry::Tries;
use proptest::prelude::*;

const TRIAL: Duration = Duration::from_secs(600);

fn version(text: &str) -> ImageVersion {
    text.parse().unwrap()
}

fn disk(running: &str, entries: &[&str]) -> Disk {
    let entries = entries.iter().map(|name| name.parse().unwrap()).collect();
    Disk { running: version(running), entries, staged: Vec::new(), tried: None, last_words: None }
}

fn on_trial(until: Option<u64>) -> Update {
    Update::Trial { until: until.map(Mono), waits: "the node has not started".to_owned() }
}

#[test]
fn the_names_on_the_disk_say_where_an_update_stands() {
    let start = |disk: &Disk| Update::at_start(disk, Mono(5), TRIAL);
    assert_eq!(start(&disk("1", &["sedge_1.efi"])), Update::Confirmed);
    assert_eq!(start(&disk("1", &[])), Update::Idle);
    assert_eq!(start(&disk("2", &["sedge_1.efi", "sedge_2+2-1.efi"])), on_trial(Some(600_005)));
    assert_eq!(start(&disk("1", &["sedge_1+2-1.efi"])), on_trial(None), "nothing to go back to");
    assert_eq!(start(&disk("2", &["sedge_1+0-3.efi", "sedge_2+2-1.efi"])), on_trial(None));
    let mut fallen = disk("1", &["sedge_1.efi", "sedge_2+0-3.efi"]);
    let Update::RolledBack { target, reason } = start(&fallen) else { panic!("not rolled back") };
    assert!(target == version("2") && reason.contains("hung"), "{reason}");
    fallen.last_words = Some((version("2"), "no network".to_owned()));
    assert_eq!(start(&fallen), Update::RolledBack { target: version("2"), reason: "no network".to_owned() });
    fallen.tried = Some(version("1"));
    assert_eq!(start(&fallen), Update::Confirmed, "another one was tried since");
    fallen.tried = Some(version("2"));
    assert!(matches!(start(&fallen), Update::RolledBack { .. }));
    fallen.running = version("3");
    fallen.entries.push("sedge_3.efi".parse().unwrap());
    assert_eq!(start(&fallen), Update::Confirmed, "what failed before a later version is history");
    let staged = Disk { staged: vec![version("2"), version("1")], ..disk("1.5", &["sedge_1.5.efi"]) };
    assert_eq!(start(&staged), Update::Staged { target: version("2") });
}

#[test]
fn what_may_not_be_installed_is_refused_with_its_reason() {
    let offer = |version_text: &str| Offer { board: "b".to_owned(), version: version(version_text), minimum: None };
    let ours = disk("2", &["sedge_2.efi", "sedge_3+0-3.efi"]);
    assert_eq!(ours.admit(&offer("2.1"), "b", false), Ok(()));
    assert!(matches!(ours.admit(&offer("2.1"), "c", false), Err(Refusal::Board { .. })));
    assert!(matches!(ours.admit(&offer("1.9"), "b", false), Err(Refusal::Older { .. })));
    assert!(matches!(ours.admit(&offer("2"), "b", false), Err(Refusal::Older { .. })));
    assert!(matches!(ours.admit(&offer("3"), "b", false), Err(Refusal::GivenUp { .. })));
    assert_eq!(ours.admit(&offer("3"), "b", true), Ok(()));
    let since = Disk { tried: Some(version("2")), ..ours.clone() };
    assert!(matches!(since.admit(&offer("3"), "b", false), Err(Refusal::GivenUp { .. })), "whatever was tried since");
    let far = Offer { minimum: Some(version("2.5")), ..offer("4") };
    assert!(matches!(ours.admit(&far, "b", false), Err(Refusal::TooFar { .. })));
    let trial = disk("2", &["sedge_1.efi", "sedge_2+2-1.efi"]);
    assert!(matches!(trial.admit(&offer("3"), "b", false), Err(Refusal::OnTrial { .. })));
}

#[test]
fn a_version_that_does_not_show_itself_is_given_up() {
    let running = version("2");
    let trial = on_trial(Some(10));
    assert_eq!(trial.clone().on(Event::Tick, &running, Mono(9)), (trial.clone(), None));
    let (state, effect) = trial.clone().on(Event::Tick, &running, Mono(10));
    assert!(matches!(effect, Some(Effect::GiveUp { reason }) if reason.contains("not started")) && state == trial);
    let (waiting, _) = trial.clone().on(Event::Waits("no fleet".to_owned()), &running, Mono(1));
    assert!(matches!(waiting.on(Event::Tick, &running, Mono(10)).1, Some(Effect::GiveUp { reason }) if reason.contains("no fleet")));
    let failed = Event::Failed { reason: "no".to_owned() };
    assert_eq!(trial.clone().on(failed.clone(), &running, Mono(0)).1, Some(Effect::GiveUp { reason: "no".to_owned() }));
    assert_eq!(on_trial(None).on(failed.clone(), &running, Mono(0)), (on_trial(None), None), "there is nothing to go back to");
    assert_eq!(on_trial(None).on(Event::Tick, &running, Mono(u64::MAX)).1, None);
    assert_eq!(trial.on(Event::Healthy, &running, Mono(0)), (Update::Confirmed, Some(Effect::Bless)));
    assert_eq!(Update::Confirmed.on(failed, &running, Mono(0)), (Update::Confirmed, None), "a good version is never given up");
    assert_eq!(Update::Confirmed.on(Event::Healthy, &running, Mono(0)), (Update::Confirmed, None));
}

/// A box: two slots, a boot partition, a boot loader, and the machine while it runs.
#[derive(Debug)]
struct Box {
    disk: Disk,
    /// What is in each slot; none while it is being written.
    slots: [Option<ImageVersion>; 2],
    update: Update,
    /// Versions that were blessed.
    blessed: Vec<ImageVersion>,
}

#[derive(Debug, Clone)]
enum Step {
    Begin(u32),
    Written,
    Abandoned,
    Activate,
    Healthy,
    Failed,
    LateTick,
    PowerCut,
}

impl Box {
    fn new() -> Self {
        let disk = disk("1", &["sedge_1+3.efi"]);
        let update = Update::at_start(&disk, Mono(0), TRIAL);
        let mut new = Self { disk, slots: [Some(version("1")), None], update, blessed: Vec::new() };
        new.boot();
        new
    }

    fn other(&self) -> usize {
        usize::from(self.slots[0].as_ref() == Some(&self.disk.running))
    }

    /// What firmware, boot loader and first program do.
    fn boot(&mut self) {
        for _ in 0..20 {
            let best = |entry: &&mut BootEntry| (!entry.is_bad(), entry.version.clone());
            let entry = self.disk.entries.iter_mut().max_by_key(best).expect("there is always something to boot");
            if let Some(tries) = &mut entry.tries {
                *tries = Tries { left: tries.left.saturating_sub(1), done: tries.done + 1 };
            }
            let chosen = entry.version.clone();
            if self.slots.contains(&Some(chosen.clone())) {
                self.disk.running = chosen;
                self.update = Update::at_start(&self.disk, Mono(0), TRIAL);
                return;
            }
        }
        panic!("does not boot any more: {self:?}");
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Forget { keep } => {
                self.disk.entries.retain(|entry| entry.version == *keep || entry.is_bad());
                self.disk.staged.clear();
                let other = self.other();
                self.slots[other] = None;
            }
            Effect::Try { target } => {
                if let Some(at) = self.disk.staged.iter().position(|version| version == target) {
                    self.disk.staged.remove(at);
                    self.disk.entries.retain(|entry| entry.version != *target);
                    self.disk.entries.push(BootEntry { version: target.clone(), tries: Some(Tries { left: TRIES, done: 0 }) });
                }
            }
            Effect::Bless => {
                let running = self.disk.running.clone();
                self.disk.entries.iter_mut().filter(|entry| entry.version == running).for_each(|entry| entry.tries = None);
                self.blessed.push(running);
            }
            Effect::GiveUp { .. } => {}
        }
    }

    /// One event; its effect is carried out once more when `twice`, as after a crash.
    fn step(&mut self, step: &Step, twice: bool) {
        let event = match step {
            Step::PowerCut => return self.boot(),
            Step::Begin(number) => {
                let target = version(&number.to_string());
                let offer = Offer { board: "b".to_owned(), version: target.clone(), minimum: None };
                if self.disk.admit(&offer, "b", false).is_err() {
                    return;
                }
                Event::Begin { target }
            }
            Step::Written => {
                if let Update::Fetching { target } = &self.update {
                    let other = self.other();
                    self.slots[other] = Some(target.clone());
                    self.disk.staged = vec![target.clone()];
                }
                Event::Written
            }
            Step::Abandoned => Event::Abandoned,
            Step::Activate => Event::Activate,
            Step::Healthy => Event::Healthy,
            Step::Failed => Event::Failed { reason: "it crashed".to_owned() },
            Step::LateTick => Event::Tick,
        };
        let (next, effect) = self.update.clone().on(event, &self.disk.running, Mono(u64::MAX));
        self.update = next;
        let Some(effect) = effect else { return };
        for _ in 0..=u8::from(twice) {
            self.carry_out(&effect);
        }
        if matches!(effect, Effect::Try { .. } | Effect::GiveUp { .. }) {
            self.boot();
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u32..6).prop_map(Step::Begin),
        Just(Step::Written),
        Just(Step::Written),
        Just(Step::Abandoned),
        Just(Step::Activate),
        Just(Step::Activate),
        Just(Step::Healthy),
        Just(Step::Failed),
        Just(Step::LateTick),
        Just(Step::PowerCut),
    ]
}

proptest! {
    #[test]
    fn a_box_always_boots_a_whole_version_and_keeps_none_that_was_not_tried(steps in proptest::collection::vec((step(), any::<bool>()), 0..60)) {
        let mut node = Box::new();
        node.step(&Step::Healthy, false);
        for (step, twice) in &steps {
            let before = node.disk.running.clone();
            let good_before = node.blessed.contains(&before);
            node.step(step, *twice);
            let running = node.disk.running.clone();
            prop_assert!(node.slots.contains(&Some(running.clone())), "{node:?}");
            let entry = node.disk.entries.iter().find(|entry| entry.version == running);
            prop_assert!(entry.is_some(), "{node:?}");
            // Good without a counter means that it was blessed, and what was good is never lost to a version that is not.
            prop_assert!(entry.is_some_and(|entry| entry.tries.is_some() || node.blessed.contains(&running)), "{node:?}");
            prop_assert!(running >= before || !good_before || node.blessed.contains(&running), "{node:?}");
            prop_assert!(running >= *node.blessed.iter().max().unwrap(), "older than a version that was kept: {node:?}");
            // The state in memory is the one that the disk says, but for what is being fetched.
            let from_disk = Update::at_start(&node.disk, Mono(0), TRIAL);
            match (&node.update, &from_disk) {
                (Update::Fetching { .. }, _) | (Update::Confirmed, Update::RolledBack { .. }) => {}
                (state, from_disk) => prop_assert_eq!(state, from_disk),
            }
        }
        for _ in 0..4 {
            node.step(&Step::PowerCut, false);
        }
        prop_assert!(!matches!(node.update, Update::Trial { .. }), "a trial ends: {node:?}");
    }
}
