//! The toolchain for guests and for other processors, as this repository uses it: a private copy, if one is needed, stays inside `target`.

use sedge_build::Toolchain;

use crate::workspace;

/// The toolchain; `private` asks for a private copy even where the target is installed.
pub(crate) fn guests(private: bool) -> Toolchain {
    if private { of_repository().private() } else { of_repository() }
}

/// The toolchain.
pub(crate) fn of_repository() -> Toolchain {
    Toolchain::new(&workspace::target().join("toolchain")).archives(&workspace::root().join("../shared/toolchain"))
}
