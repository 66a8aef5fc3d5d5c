//! Boards that QEMU emulates: what differs from one to the next.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a machine is built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// A PC with UEFI.
    Pc,
    /// 64-bit ARM with UEFI, as servers have it.
    Arm64,
}

impl Board {
    /// Its processor, as names of images have it.
    #[must_use]
    pub const fn processor(self) -> &'static str {
        match self {
            Self::Pc => "x86-64",
            Self::Arm64 => "arm64",
        }
    }

    /// Longest wait for a boot, from power to a node in its fleet: emulated, on a machine that does other things beside.
    #[must_use]
    pub const fn patience(self) -> Duration {
        match self {
            Self::Pc => Duration::from_secs(300),
            Self::Arm64 => Duration::from_secs(900),
        }
    }

    /// The image that `cargo xtask test` has built.
    ///
    /// # Errors
    /// When there is none.
    pub fn image(self) -> Result<PathBuf> {
        match self {
            Self::Pc => built("SEDGE_TEST_IMAGE", "cargo xtask test"),
            Self::Arm64 => built("SEDGE_TEST_IMAGE_ARM64", "cargo xtask test --all"),
        }
    }

    /// The bundle of the version that the image has.
    ///
    /// # Errors
    /// When there is none.
    pub fn own_bundle(self) -> Result<PathBuf> {
        Ok(self.image()?.with_extension("").with_extension("sedge-os"))
    }

    /// The bundle of another version, of those that `cargo xtask test --all` has built.
    ///
    /// # Errors
    /// When there are none.
    pub fn bundle(self, version: &str) -> Result<PathBuf> {
        let variable = match self {
            Self::Pc => "SEDGE_TEST_BUNDLES",
            Self::Arm64 => "SEDGE_TEST_BUNDLES_ARM64",
        };
        let file = format!("sedge-test-{}-{version}.sedge-os", self.processor());
        Ok(built(variable, "cargo xtask test --all")?.join(file))
    }

    /// What emulates it, in the tool root.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Pc => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// Firmware with nothing kept, in the tool root.
    pub(crate) const fn variables(self) -> &'static str {
        match self {
            Self::Pc => "/usr/share/OVMF/OVMF_VARS_4M.fd",
            Self::Arm64 => "/usr/share/AAVMF/AAVMF_VARS.fd",
        }
    }

    /// The board itself, with its firmware, which keeps what it knows in `variables`, and on a PC can refuse to start what nobody has signed.
    pub(crate) fn add_to(self, command: &mut Command, variables: &Path, secure_boot: bool) {
        let (board, code): (&[&str], _) = match self {
            Self::Pc if secure_boot => (&["-machine", "q35,smm=on", "-cpu", "max"], "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
            Self::Pc => (&["-machine", "q35", "-cpu", "max"], "/usr/share/OVMF/OVMF_CODE_4M.fd"),
            // A watchdog that a PC has on its board is a card here. Signing of pointers as the processor does it takes emulation most of its time.
            Self::Arm64 => {
                (&["-machine", "virt", "-cpu", "max,pauth-impdef=on", "-device", "i6300esb"], "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd")
            }
        };
        command.args(board).args(["-accel", "tcg,thread=multi"]);
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        command.args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
    }
}

/// What an environment variable names; `command` sets it.
pub(crate) fn built(variable: &str, command: &str) -> Result<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).with_context(|| format!("{variable} is not set: run `{command}` as root"))
}
