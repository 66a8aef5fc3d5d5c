//! Any of the ways in which an image does not get to its disk.

use crate::{ImageError, PlaceError, WriteError};

/// What went wrong, for those who do all steps and treat their errors alike.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// With the image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// With the place that it was to go to.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// On the way.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl FlashError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Image(error) => error.advice().to_owned(),
            Self::Place(error) => error.advice(),
            Self::Write(error) => error.advice().to_owned(),
        }
    }

    /// Whether the command names the wrong thing, rather than the thing being in the wrong state.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Place(error) => error.is_usage(),
            Self::Image(_) | Self::Write(_) => false,
        }
    }
}
