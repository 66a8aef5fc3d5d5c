//! Errors that know what to do next and which exit code is theirs.

use sedge_flash::FlashError;
use sedge_protocol::strict::Faults;
use std::borrow::Cow;

/// Exit code: what was asked could not be done.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command line is wrong.
pub(crate) const USAGE: u8 = 64;
/// Exit code: a file or a variable that the command depends on is wrong.
pub(crate) const CONFIGURATION: u8 = 78;

/// An error with advice.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The fleet or the node said no.
    #[error("{error}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// Its reason.
        error: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Nobody answered.
    #[error("no answer from {peer}")]
    Unreachable {
        /// Whom was asked.
        peer: String,
        /// What to do next.
        hint: String,
        /// What went wrong.
        #[source]
        cause: ureq::Error,
    },
    /// The answer is not what the API promises.
    #[error("{peer} gave an answer that is not understood")]
    Answer {
        /// Who was asked.
        peer: String,
        /// What went wrong.
        #[source]
        cause: ureq::Error,
    },
    /// An image did not get to its disk.
    #[error(transparent)]
    Flash(#[from] FlashError),
    /// A file or a variable is missing or wrong.
    #[error("{what}")]
    Configuration {
        /// What is wrong.
        what: String,
        /// What to do next.
        hint: String,
    },
    /// The command line is wrong in a way that its grammar cannot say.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do next.
        hint: String,
    },
}

impl Failure {
    /// A fault of configuration.
    pub(crate) fn configuration(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration { what: what.into(), hint: hint.into() }
    }

    /// A fault of usage.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: hint.into() }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref().map(Cow::Borrowed),
            Self::Unreachable { hint, .. } | Self::Configuration { hint, .. } | Self::Usage { hint, .. } => Some(hint.into()),
            Self::Answer { .. } => Some("see whether both sides have the same version: `sedge --version`, `sedge status`".into()),
            Self::Flash(error) => Some(error.advice().into()),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Unreachable { .. } | Self::Answer { .. } => FAILED,
            Self::Configuration { .. } => CONFIGURATION,
            Self::Usage { .. } => USAGE,
            Self::Flash(error) if error.is_usage() => USAGE,
            Self::Flash(_) => FAILED,
        }
    }
}

/// The advice that an error carries anywhere in its chain.
pub(crate) fn hint(error: &anyhow::Error) -> Option<Cow<'_, str>> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.hint())
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    let of = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Failure>() {
        Some(failure) => Some(failure.code()),
        None => cause.is::<Faults>().then_some(CONFIGURATION),
    };
    error.chain().find_map(of).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn advice_and_code_are_found_below_context() {
        let error = Err::<(), _>(Failure::configuration("no fleet", "sedge login")).context("publish hello").unwrap_err();
        assert_eq!((code(&error), hint(&error)), (CONFIGURATION, Some("sedge login".into())));
        let error = anyhow::anyhow!("broken");
        assert_eq!((code(&error), hint(&error)), (FAILED, None));
    }

    #[test]
    fn a_faulty_manifest_is_a_fault_of_configuration() {
        let faults = sedge_protocol::Manifest::from_toml("function.toml", "name = 'A'").unwrap_err();
        assert_eq!(code(&anyhow::Error::new(faults).context("read")), CONFIGURATION);
    }
}
