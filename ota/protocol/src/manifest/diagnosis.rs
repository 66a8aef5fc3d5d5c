//! What helps the author of a function to find out why it fails.

use crate::strict::Section;
use serde::{Deserialize, Serialize};

/// What is kept of a trap beside its backtrace in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnosis {
    /// Whether the memory of an instance that trapped is written to a file of the node.
    pub core_dump: bool,
}

impl Diagnosis {
    pub(super) fn read(section: Section<'_>) -> Self {
        let diagnosis = Self { core_dump: section.boolean("core_dump").unwrap_or_default() };
        section.finish();
        diagnosis
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::Manifest;

    #[test]
    fn a_core_dump_is_asked_for_in_the_manifest() {
        let read = |text: &str| Manifest::from_toml("f", &format!("name = 'a'\n{text}")).map(|(manifest, _)| manifest.debug.core_dump);
        assert_eq!((read(""), read("[debug]\ncore_dump = true")), (Ok(false), Ok(true)));
        assert!(read("[debug]\ncoredump = true").unwrap_err().to_string().contains("did you mean `core_dump`?"));
        assert!(read("[debug]\ncore_dump = 'yes'").is_err());
    }
}
