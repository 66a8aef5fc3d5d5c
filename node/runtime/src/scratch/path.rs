//! Paths of programs, which never lead out of the directory they begin in.

use super::ScratchError;
use crate::limits::{SCRATCH_NAME_BYTES_MAX, SCRATCH_PATH_BYTES_MAX};

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'p> {
    /// To the directory above.
    Up,
    /// To what has this name.
    Down(&'p str),
}

/// A path that is well formed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'p> {
    text: &'p str,
    /// It ends as only the path of a directory does.
    pub(super) of_directory: bool,
}

impl<'p> Path<'p> {
    /// # Errors
    /// When it is empty, too long, begins at the root or is no text that could be a path.
    pub(super) fn new(text: &'p str) -> Result<Self, ScratchError> {
        if text.is_empty() {
            return Err(ScratchError::NoEntry);
        }
        if text.len() > SCRATCH_PATH_BYTES_MAX || text.split('/').any(|name| name.len() > SCRATCH_NAME_BYTES_MAX) {
            return Err(ScratchError::NameTooLong);
        }
        if text.contains('\0') {
            return Err(ScratchError::Invalid);
        }
        if text.starts_with('/') {
            return Err(ScratchError::NotPermitted);
        }
        let mut path = Self { text, of_directory: text.ends_with('/') };
        path.of_directory |= !path.ends_with_name();
        Ok(path)
    }

    pub(super) fn steps(self) -> impl Iterator<Item = Step<'p>> {
        self.text.split('/').filter(|name| !matches!(*name, "" | ".")).map(|name| if name == ".." { Step::Up } else { Step::Down(name) })
    }

    /// Whether it ends with a name, and so could be the path of something new.
    pub(super) fn ends_with_name(self) -> bool {
        !matches!(self.text.trim_end_matches('/').rsplit('/').next(), Some("" | "." | ".."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let steps = |text| Path::new(text).map(|path| (path.steps().collect::<Vec<_>>(), path.of_directory, path.ends_with_name()));
        assert_eq!(steps("a//./b/"), Ok((vec![Step::Down("a"), Step::Down("b")], true, true)));
        assert_eq!(steps("a/.."), Ok((vec![Step::Down("a"), Step::Up], true, false)));
        assert_eq!(steps("a/."), Ok((vec![Step::Down("a")], true, false)));
        assert_eq!(steps("..."), Ok((vec![Step::Down("...")], false, true)));
        assert_eq!(steps("."), Ok((vec![], true, false)));
        assert_eq!(steps(""), Err(ScratchError::NoEntry));
        assert_eq!(steps("/"), Err(ScratchError::NotPermitted));
        assert_eq!(steps("a\0"), Err(ScratchError::Invalid));
    }

    #[test]
    fn long_names_and_paths_are_refused() {
        let name = "n".repeat(SCRATCH_NAME_BYTES_MAX);
        assert!(Path::new(&format!("{name}/{name}")).is_ok());
        assert_eq!(Path::new(&format!("a/{name}n")).err(), Some(ScratchError::NameTooLong));
        let path = "a/".repeat(SCRATCH_PATH_BYTES_MAX / 2);
        assert!(Path::new(&path).is_ok());
        assert_eq!(Path::new(&format!("{path}a")).err(), Some(ScratchError::NameTooLong));
    }
}
