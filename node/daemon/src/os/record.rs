//! What has happened to the slots, kept on the boot partition: it outlives both of them and the data, and can be read on any other computer.

use super::files;
use anyhow::Context as _;
use sedge_protocol::image::{ImageVersion, SlotChange};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

const FILE: &str = "sedge-slots.json";
/// What the first program leaves when it gives up a damaged version: the version and why.
pub(super) const FAULT: &str = "slot-fault.txt";
/// Changes and tries that are kept.
const CHANGES_MAX: usize = 10;
/// Longest file that is read, bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// The file. One that cannot be read is begun anew: nothing depends on it but what people are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// What ran last.
    pub(super) running: Option<ImageVersion>,
    /// The newest first.
    pub(super) changes: Vec<SlotChange>,
    /// Versions that were tried, with the numbers of their rollouts, the last one first.
    pub(super) tried: Vec<(ImageVersion, u64)>,
    /// What a version said before it was given up.
    pub(super) last_words: Option<(ImageVersion, String)>,
}

impl Record {
    pub(super) fn read(boot: &Path) -> Self {
        let path = boot.join(FILE);
        let fits = fs::metadata(&path).is_ok_and(|file| file.len() <= BYTES_MAX);
        let bytes = fits.then(|| fs::read(&path).ok()).flatten().unwrap_or_default();
        let mut record: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let fault = fs::read_to_string(boot.join(FAULT)).unwrap_or_default();
        let said = fault.trim().split_once(' ').and_then(|(version, reason)| Some((version.parse().ok()?, reason.to_owned())));
        record.last_words = said.or(record.last_words);
        record
    }

    /// Writes it beside and puts it into its place.
    pub(super) fn write(&self, boot: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).context("encode the record of the slots")?;
        files::replace(&boot.join(FILE), &bytes)
    }

    /// Notes that `running` runs now, from `slot`. False when that is known.
    pub(super) fn note(&mut self, running: &ImageVersion, slot: &str, now_ms: u64) -> bool {
        let before = self.running.replace(running.clone());
        let Some(from) = before.filter(|before| before != running) else {
            return self.changes.is_empty() && self.first(running, slot, now_ms);
        };
        let reason = if *running > from {
            self.tried.first().map_or_else(|| "updated".to_owned(), |(_, rollout)| format!("updated by rollout {rollout}"))
        } else {
            let said = self.last_words.as_ref().filter(|(version, _)| *version == from).map(|(_, reason)| reason.as_str());
            format!("{from} was given up: {}", said.unwrap_or("it never came up far enough to say why: it hung, panicked or lost power"))
        };
        self.push(SlotChange { time_ms: now_ms, from, to: running.clone(), slot: slot.to_owned(), reason });
        true
    }

    /// A version is about to be tried.
    pub(super) fn try_now(&mut self, version: &ImageVersion, rollout: u64) {
        self.tried.insert(0, (version.clone(), rollout));
        self.tried.truncate(CHANGES_MAX);
    }

    fn first(&mut self, running: &ImageVersion, slot: &str, now_ms: u64) -> bool {
        let reason = "first start".to_owned();
        self.push(SlotChange { time_ms: now_ms, from: running.clone(), to: running.clone(), slot: slot.to_owned(), reason });
        true
    }

    fn push(&mut self, change: SlotChange) {
        self.changes.insert(0, change);
        self.changes.truncate(CHANGES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_noted_once_with_its_reason() {
        let boot = tempfile::tempdir().unwrap();
        let (one, two): (ImageVersion, ImageVersion) = ("1".parse().unwrap(), "2".parse().unwrap());
        let mut record = Record::read(boot.path());
        assert!(record.note(&one, "a", 1) && !record.note(&one, "a", 2));
        record.try_now(&two, 7);
        assert!(record.note(&two, "b", 3));
        record.last_words = Some((two.clone(), "no network".to_owned()));
        record.write(boot.path()).unwrap();
        let mut record = Record::read(boot.path());
        assert!(record.note(&one, "a", 4));
        let reasons: Vec<&str> = record.changes.iter().map(|change| change.reason.as_str()).collect();
        assert_eq!(reasons, ["2 was given up: no network", "updated by rollout 7", "first start"]);
        fs::write(boot.path().join(FILE), "{ torn").unwrap();
        assert_eq!(Record::read(boot.path()), Record::default());
    }
}
