//! The names of the kernel images on the boot partition, which are all that the boot loader and the node tell each other.
//!
//! ```text
//! sedge_2.1.0+3.efi ── tried ──▶ sedge_2.1.0+2-1.efi … +0-3.efi: never taken again while another is there
//!        └─ the system of it is healthy ──▶ sedge_2.1.0.efi: good, not counted any more
//! ```
//! The boot loader counts; it takes the newest version that has tries left. This is the boot assessment of the Boot Loader Specification.

pub use sedge_protocol::image::ImageVersion;
use std::fmt;
use std::str::FromStr;

/// How a version is being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// How often it may still begin.
    pub left: u32,
    /// How often it has begun.
    pub done: u32,
}

/// A kernel image of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// Its version.
    pub version: ImageVersion,
    /// None once it is known to be good.
    pub tries: Option<Tries>,
}

impl BootEntry {
    /// Whether the boot loader passes it by.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }

    /// The same, known to be good.
    #[must_use]
    pub fn blessed(&self) -> Self {
        Self { version: self.version.clone(), tries: None }
    }
}

/// A number as it is printed: without sign and without a zero before it, so that a state has one name.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// A file that is no kernel image of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a kernel image")]
pub struct NotOurs;

impl FromStr for BootEntry {
    type Err = NotOurs;

    /// Reads a file's name.
    fn from_str(name: &str) -> Result<Self, NotOurs> {
        let stem = name.strip_prefix("sedge_").and_then(|rest| rest.strip_suffix(".efi")).ok_or(NotOurs)?;
        let (version, tries) = match stem.split_once('+') {
            None => (stem, None),
            Some((version, tries)) => {
                let (left, done) = tries.split_once('-').unwrap_or((tries, "0"));
                let tries = Tries { left: number(left).ok_or(NotOurs)?, done: number(done).ok_or(NotOurs)? };
                (version, Some(tries))
            }
        };
        Ok(Self { version: version.parse().map_err(|_| NotOurs)?, tries })
    }
}

/// The file's name.
impl fmt::Display for BootEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tries {
            None => write!(f, "sedge_{}.efi", self.version),
            Some(Tries { left, done: 0 }) => write!(f, "sedge_{}+{left}.efi", self.version),
            Some(Tries { left, done }) => write!(f, "sedge_{}+{left}-{done}.efi", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_boot_loader() {
        for (name, version, tries) in [
            ("sedge_1.2.3.efi", "1.2.3", None),
            ("sedge_1.2.3+3.efi", "1.2.3", Some((3, 0))),
            ("sedge_10+2-1.efi", "10", Some((2, 1))),
            ("sedge_1.0.0.9+0-3.efi", "1.0.0.9", Some((0, 3))),
        ] {
            let entry: BootEntry = name.parse().unwrap();
            let expected = BootEntry { version: version.parse().unwrap(), tries: tries.map(|(left, done)| Tries { left, done }) };
            assert_eq!(entry, expected);
            assert_eq!(entry.to_string(), name);
            assert_eq!(entry.is_bad(), name.contains("+0"));
            assert_eq!(entry.blessed().to_string(), format!("sedge_{version}.efi"));
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        for name in [
            "sedge_.efi",
            "sedge_1.efi.tmp",
            "other_1.efi",
            "sedge_1+.efi",
            "sedge_1+3-.efi",
            "sedge_1+-3.efi",
            "sedge_1+03.efi",
            "sedge_1.2.3.4.5.efi",
            "sedge_a.efi",
            "sedge_+3.efi",
            "sedge_1..2.efi",
        ] {
            assert_eq!(name.parse::<BootEntry>(), Err(NotOurs), "{name}");
        }
    }
}
