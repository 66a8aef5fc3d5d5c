//! Which image of the operating system a node is told to boot, and how far it is with it.

use crate::Filter;
use crate::plan::{Step, Waiting};
use sedge_protocol::image::{ImageVersion, OsPhase, OsReport};
use sedge_protocol::{Labels, NodeId, Standing};

/// Moves the nodes of one board that match to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRollout {
    /// Grows with every rollout of an image: the larger is the newer.
    pub number: u64,
    /// Which boxes can boot it.
    pub board: String,
    /// Its version.
    pub version: ImageVersion,
    /// Which nodes.
    pub filter: Filter,
    /// Whether somebody has stopped it: what it would have moved stays as it is.
    pub stopped: bool,
}

/// The rollout whose image `node` should boot: the newest for its board that matches it, unless that was stopped.
#[must_use]
pub fn desired_image<'a>(
    node: &NodeId,
    (labels, board): (&Labels, &str),
    rollouts: impl IntoIterator<Item = &'a ImageRollout>,
) -> Option<&'a ImageRollout> {
    let fitting = rollouts.into_iter().filter(|rollout| rollout.board == board && rollout.filter.matches(node, labels));
    fitting.max_by_key(|rollout| rollout.number).filter(|rollout| !rollout.stopped)
}

/// The number of the rollout whose image a node of this standing is told, of what it is told now and of what it should be told.
#[must_use]
pub fn allowed_image(standing: &Standing, current: Option<u64>, wanted: Option<u64>) -> Option<u64> {
    match standing {
        Standing::Active => wanted,
        Standing::Pending => None,
        // Nothing new; what is to go goes.
        Standing::Quarantined { .. } => current.filter(|_| current == wanted),
        Standing::Revoked { .. } => current,
    }
}

/// How far a node is with `version`, as it last said.
#[must_use]
pub fn image_step(version: &ImageVersion, online: bool, report: Option<&OsReport>) -> Step {
    let Some(report) = report else { return Step::Waiting(if online { Waiting::Unanswered } else { Waiting::Offline }) };
    if let Some(trouble) = report.trouble.as_ref().filter(|_| online && report.version < *version) {
        return Step::Waiting(Waiting::Trouble { reason: trouble.clone() });
    }
    match &report.phase {
        OsPhase::Trial { .. } if report.version == *version && online => Step::Waiting(Waiting::Trying),
        OsPhase::Trial { .. } if report.version == *version => Step::Waiting(Waiting::Offline),
        OsPhase::RolledBack { version: tried, reason } | OsPhase::Refused { version: tried, reason } if tried == version => {
            Step::Failed { reason: reason.clone() }
        }
        _ if report.version >= *version => Step::Done,
        OsPhase::Fetching { version: target, bytes, total } if target == version && online => {
            Step::Waiting(Waiting::Fetching { bytes: *bytes, total: *total })
        }
        OsPhase::Staged { version: target, waits } if target == version && online => {
            Step::Waiting(Waiting::Restart { waits: waits.clone() })
        }
        OsPhase::Idle
        | OsPhase::Fetching { .. }
        | OsPhase::Staged { .. }
        | OsPhase::Trial { .. }
        | OsPhase::Confirmed
        | OsPhase::RolledBack { .. }
        | OsPhase::Refused { .. } => Step::Waiting(if online { Waiting::Unanswered } else { Waiting::Offline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ImageVersion {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_rollout_for_the_board_decides() {
        let rollout = |number, board: &str, filter: &str| ImageRollout {
            number,
            board: board.to_owned(),
            version: version(&number.to_string()),
            filter: filter.parse().unwrap(),
            stopped: false,
        };
        let mut rollouts = [rollout(1, "x", ""), rollout(3, "y", ""), rollout(2, "x", "site=a"), rollout(4, "x", "site=b")];
        let node: NodeId = "n".parse().unwrap();
        let mut labels = Labels::default();
        let number = |rollouts: &[ImageRollout], labels: &Labels, board| {
            desired_image(&node, (labels, board), rollouts).map(|rollout| rollout.number)
        };
        let of = |board| number(&rollouts, &labels, board);
        assert_eq!((of("x"), of("y"), of("")), (Some(1), Some(3), None));
        labels.insert("site", "a").unwrap();
        assert_eq!(number(&rollouts, &labels, "x"), Some(2));
        rollouts[2].stopped = true;
        assert_eq!(number(&rollouts, &labels, "x"), None, "what came before it does not come back");
    }

    #[test]
    fn a_node_gets_what_its_standing_allows() {
        let reason = || "r".to_owned();
        for (standing, wanted, expected) in [
            (Standing::Active, Some(2), Some(2)),
            (Standing::Pending, Some(2), None),
            (Standing::Quarantined { reason: reason() }, Some(2), None),
            (Standing::Quarantined { reason: reason() }, Some(1), Some(1)),
            (Standing::Revoked { reason: reason() }, Some(2), Some(1)),
        ] {
            assert_eq!(allowed_image(&standing, Some(1), wanted), expected, "{standing}");
        }
    }

    #[test]
    fn a_step_is_what_the_node_says_of_this_version() {
        let report = |running: &str, phase| OsReport {
            board: "x".to_owned(),
            slot: "a".to_owned(),
            version: version(running),
            phase,
            trouble: None,
            changes: Vec::new(),
        };
        let step = |report: &OsReport| image_step(&version("2"), true, Some(report));
        assert_eq!(step(&report("2", OsPhase::Confirmed)), Step::Done);
        assert_eq!(step(&report("3", OsPhase::Confirmed)), Step::Done, "newer is far enough");
        assert_eq!(step(&report("2", OsPhase::Trial { waits: String::new() })), Step::Waiting(Waiting::Trying));
        let fetching = OsPhase::Fetching { version: version("2"), bytes: 1, total: 9 };
        assert_eq!(step(&report("1", fetching)), Step::Waiting(Waiting::Fetching { bytes: 1, total: 9 }));
        let back = |target: &str| OsPhase::RolledBack { version: version(target), reason: "no".to_owned() };
        assert_eq!(step(&report("1", back("2"))), Step::Failed { reason: "no".to_owned() });
        assert_eq!(step(&report("1", back("1.5"))), Step::Waiting(Waiting::Unanswered), "another version's failure");
        assert_eq!(image_step(&version("2"), false, None), Step::Waiting(Waiting::Offline));
    }
}
