//! A gateway without a machine: two slots and a boot partition as files, the real keeper of the operating system, a real node, and between
//! starts what firmware and boot loader do.
//!
//! ```text
//! esp/EFI/Linux/sedge_1.0.efi ─ boot() takes the newest with tries left, counts ─▶ slot that holds its root ─▶ sedged os, sedged
//! ```
//! Whether a real machine boots is shown elsewhere ([`crate::machine`]); here an update takes seconds.

use crate::node::{Membership, Node};
use crate::process::{Process, binary};
use crate::wait;
use anyhow::{Context as _, Result, ensure};
use sedge_bundle::{About, SigningKey, write};
use sedge_node_core::boot_entry::{BootEntry, ImageVersion, Tries};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the gateway takes.
pub const BOARD: &str = "test-files";
/// Size of a slot.
const SLOT_BYTES: u64 = 8 << 20;
/// Bytes of a root file system, and of a kernel image.
const ROOT_BYTES: usize = 3 << 20;
const KERNEL_BYTES: usize = 300_000;

/// A version's content. Most of the root is the same in all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: ImageVersion,
    kernel: Vec<u8>,
    root: Vec<u8>,
}

impl Version {
    /// The version called `text`.
    ///
    /// # Errors
    /// When that is none.
    pub fn new(text: &str) -> Result<Self> {
        let version: ImageVersion = text.parse()?;
        let own = text.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let root = [&noise(ROOT_BYTES / 2, 1), &noise(100_000, own), &noise(ROOT_BYTES / 2, 2)].map(Vec::as_slice).concat();
        let kernel = [&noise(KERNEL_BYTES, 3), text.as_bytes()].map(|part: &[u8]| part).concat();
        Ok(Self { version, kernel, root })
    }

    /// Its bundle for `board`, signed by `key`, in `directory`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn bundle(&self, directory: &Path, (board, key): (&str, SigningKey)) -> Result<PathBuf> {
        let path = directory.join(format!("{board}-{}.sedge-os", self.version));
        let about = About { board: board.to_owned(), version: self.version.clone(), minimum: None };
        write(&mut File::create(&path)?, &about, (self.kernel.as_slice(), self.root.as_slice()), &[key])?;
        Ok(path)
    }
}

/// Bytes that do not repeat.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    directory: PathBuf,
    versions: Vec<Version>,
    membership: Membership,
    /// More keys of the table `[os]`.
    keys: String,
    trial_s: u64,
    keeper: Option<Process>,
    /// The node, while it runs or between two starts.
    pub node: Option<Node>,
}

impl Gateway {
    /// A gateway that was flashed with `version` and trusts `key`; it is off.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn new(directory: &Path, membership: Membership, (version, key): (Version, &SigningKey)) -> Result<Self> {
        let directory = directory.join("gateway");
        for part in ["esp/EFI/Linux", "slots", "trust"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let (name, text) = key.public_file();
        fs::write(directory.join("trust").join(name), text)?;
        for slot in ["root-a", "root-b"] {
            File::create(directory.join("slots").join(slot))?.set_len(SLOT_BYTES)?;
        }
        File::options().write(true).open(directory.join("slots/root-a"))?.write_all_at(&version.root, 0)?;
        fs::write(directory.join(format!("esp/EFI/Linux/sedge_{}+3.efi", version.version)), &version.kernel)?;
        let (versions, keys) = (vec![version], String::new());
        Ok(Self { directory, versions, membership, keys, trial_s: 60, keeper: None, node: None })
    }

    /// With more keys of the table `[os]` in the node's configuration, and another time to show that a version works.
    #[must_use]
    pub fn with(self, keys: &str, trial_s: u64) -> Self {
        Self { keys: keys.to_owned(), trial_s, ..self }
    }

    /// Makes a version known, so that a slot with it is recognised.
    pub fn knows(&mut self, version: &Version) {
        self.versions.push(version.clone());
    }

    /// What firmware, boot loader and first program do; then the keeper starts. Answers the version.
    ///
    /// # Errors
    /// When nothing boots: the gateway would be a brick.
    pub fn boot(&mut self) -> Result<ImageVersion> {
        for _ in 0..10 {
            let entry = self.choose()?;
            let kernel = fs::read(self.linux().join(entry.to_string()))?;
            let Some(version) = self.versions.iter().find(|version| version.kernel == kernel) else { continue };
            ensure!(version.version == entry.version, "the kernel image of {} is named {entry}", version.version);
            let version = version.clone();
            if let Some(slot) = self.slot_of(&version)? {
                self.start_keeper(&version, slot)?;
                return Ok(version.version);
            }
        }
        anyhow::bail!("nothing boots: {:?}", self.kernel_images()?)
    }

    /// Starts the node of the system that runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_node(&mut self) -> Result<()> {
        match &mut self.node {
            Some(node) => node.restart(),
            None => {
                let os = format!("os = {{ socket = '{}'{} }}", self.socket().display(), self.keys);
                self.node = Some(Node::start_with(&self.directory, "gateway-1", Some(&self.membership), &os)?);
                Ok(())
            }
        }
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// When a process cannot be ended.
    pub fn power_off(&mut self) -> Result<()> {
        if let Some(keeper) = &mut self.keeper {
            keeper.kill9()?;
        }
        self.keeper = None;
        self.node.as_mut().map_or(Ok(()), Node::kill9)?;
        self.remove("restart")
    }

    /// Whether the system has asked to be restarted.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.directory.join("restart").exists()
    }

    /// Waits until the system restarts, and restarts it without its node; answers the version that runs then.
    ///
    /// # Errors
    /// When it does not.
    pub fn restarted(&mut self) -> Result<ImageVersion> {
        wait::until("the gateway restarts", || Ok(self.restarts().then_some(())))?;
        self.power_off()?;
        self.boot()
    }

    /// Names of what lies beside the kernel images, too.
    ///
    /// # Errors
    /// When the boot partition cannot be read.
    pub fn kernel_images(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            fs::read_dir(self.linux())?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The keeper's log.
    ///
    /// # Errors
    /// When it is off.
    pub fn log(&self) -> Result<String> {
        self.keeper.as_ref().context("it is off")?.log()
    }

    /// The boot loader's choice: the newest that has tries left, counted down.
    fn choose(&self) -> Result<BootEntry> {
        let entries = self.kernel_images()?.into_iter().filter_map(|name| name.parse::<BootEntry>().ok());
        let entry =
            entries.max_by_key(|entry| (!entry.is_bad(), entry.version.clone())).context("no kernel image: the gateway is a brick")?;
        let Some(Tries { left: left @ 1.., done }) = entry.tries else { return Ok(entry) };
        let counted = BootEntry { version: entry.version.clone(), tries: Some(Tries { left: left - 1, done: done + 1 }) };
        fs::rename(self.linux().join(entry.to_string()), self.linux().join(counted.to_string()))?;
        Ok(counted)
    }

    /// The slot that holds the root of a version, whole.
    fn slot_of(&self, version: &Version) -> Result<Option<&'static str>> {
        for slot in ["root-a", "root-b"] {
            let mut root = vec![0; version.root.len()];
            File::open(self.directory.join("slots").join(slot))?.read_exact_at(&mut root, 0)?;
            if root == version.root {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    fn start_keeper(&mut self, version: &Version, slot: &str) -> Result<()> {
        let at = |name: &str| self.directory.join(name);
        fs::write(at("os-release"), format!("IMAGE_ID=sedge-{BOARD}\nIMAGE_VERSION=\"{}\"\n", version.version))?;
        fs::write(at("slot"), format!("{slot} {}\n", version.root.len()))?;
        drop(fs::remove_file(self.socket()));
        // Forgotten with the machine.
        drop(fs::remove_file(at("trial-began")));
        let listener = UnixListener::bind(self.socket())?;
        let mut command = Command::new(binary("sedged")?);
        command.arg("os").arg("--boot-partition").arg(at("esp")).arg("--claim").arg(at("claim.toml")).arg("--network").arg(at("network"));
        command.arg("--devices").arg(at("slots")).arg("--slot").arg(at("slot")).arg("--os-release").arg(at("os-release"));
        command.arg("--trust").arg(at("trust")).arg("--trial-s").arg(self.trial_s.to_string()).arg("--unit").arg("no-such.service");
        command.arg("--restart").arg("touch").arg(at("restart"));
        let input = Stdio::from(OwnedFd::from(listener));
        self.keeper = Some(Process::start_on("keeper", &mut command, (&at("keeper.log"), input))?);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        if path.exists() { Ok(fs::remove_file(path)?) } else { Ok(()) }
    }

    fn linux(&self) -> PathBuf {
        self.directory.join("esp/EFI/Linux")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("os.sock")
    }
}
