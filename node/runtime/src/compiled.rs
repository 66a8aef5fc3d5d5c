//! Compiled code on disk, so that a restart does not compile again.
//!
//! ```text
//!  <cache>/<digest of the Wasm>-<engine hash>[-<form>].cwasm  =  compiled code ‖ SHA-256 of it ‖ magic
//! ```
//! Compiled code is run as it is, so it is loaded only when its own checksum and the engine's stamp fit; anything
//! else (short, foreign, damaged) is compiled anew and replaced. The directory must be writable by the daemon alone.

use crate::compiler::CompileError;
use crate::form::Form;
use sedge_protocol::Digest;
use sha2::{Digest as _, Sha256};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, process};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

const MAGIC: &[u8; 8] = b"sedgecw1";
const TRAILER_BYTES: usize = 32 + MAGIC.len();

/// What is to be compiled.
pub(crate) struct Artifact<'a> {
    /// Where it lies.
    pub(crate) path: &'a Path,
    pub(crate) digest: Digest,
    pub(crate) form: Form,
    pub(crate) bytes: &'a [u8],
}

/// A directory of compiled code.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
    engine_hash: u64,
}

/// Code that can be kept compiled: components and core modules.
pub(crate) trait Code: Sized {
    /// Compiles Wasm.
    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self>;
    /// The compiled form.
    fn serialize(&self) -> wasmtime::Result<Vec<u8>>;
    /// Loads the file, which begins with a compiled form that [`serialize`](Self::serialize) made.
    fn load(engine: &Engine, file: &Verified) -> wasmtime::Result<Self>;
    /// Loads code that came out of a process of our own just now.
    fn restore(engine: &Engine, made: &Made) -> wasmtime::Result<Self>;
}

/// Compiled code that a workshop answered.
pub(crate) struct Made(Vec<u8>);

/// The path of a cache file whose checksum was found right.
pub(crate) struct Verified(PathBuf);

impl Cache {
    /// Opens or creates the directory.
    pub(crate) fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir, engine_hash: hasher.finish() })
    }

    /// The code of `artifact`, from the cache or compiled: by `make`, a process of its own, or here without one. A cache that cannot be
    /// written costs time, not service.
    pub(crate) fn code<C: Code>(
        &self,
        engine: &Engine,
        artifact: &Artifact<'_>,
        make: Option<&impl Fn(&Artifact<'_>) -> Result<Vec<u8>, CompileError>>,
    ) -> wasmtime::Result<C> {
        let path = self.dir.join(format!("{}-{:016x}{}.cwasm", artifact.digest.hex(), self.engine_hash, artifact.form.suffix()));
        if let Some(verified) = verify(&path) {
            match C::load(engine, &verified) {
                Ok(code) => return Ok(code),
                Err(cause) => log::warn!(path:% = path.display(), cause:%; "compiled code not usable, compiling again"),
            }
        }
        let Some(make) = make else {
            let code = C::compile(engine, &artifact.form.wasm(artifact.bytes)?)?;
            keep(&path, code.serialize().map_err(io::Error::other));
            return Ok(code);
        };
        let made = Made(make(artifact)?);
        keep(&path, Ok(&made.0));
        // Out of the file it shares its pages with the file, and costs no memory of its own.
        match verify(&path) {
            Some(verified) => C::load(engine, &verified),
            None => C::restore(engine, &made),
        }
    }

    /// Removes the compiled code of an artifact, for every engine.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        let prefix = format!("{}-", digest.hex());
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn verify(path: &Path) -> Option<Verified> {
    let bytes = fs::read(path).ok()?;
    let (code, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
    let fits = trailer[32..] == *MAGIC && trailer[..32] == *Sha256::digest(code);
    if !fits {
        log::warn!(path:% = path.display(); "compiled code damaged, compiling again");
    }
    fits.then(|| Verified(path.to_owned()))
}

fn keep(path: &Path, code: io::Result<impl AsRef<[u8]>>) {
    if let Err(cause) = code.and_then(|code| replace(path, code.as_ref())) {
        log::warn!(path:% = path.display(), cause:%; "compiled code not kept");
    }
}

/// Whole or not at all: temporary file, sync, rename, sync of the directory.
fn replace(path: &Path, code: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", process::id()));
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(code)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(MAGIC)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

impl Code for Component {
    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, wasm)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Self::serialize(self)
    }

    #[expect(unsafe_code, reason = "loading compiled code is unsafe in itself; this file is the only place")]
    fn load(engine: &Engine, file: &Verified) -> wasmtime::Result<Self> {
        // SAFETY: the file carries the checksum that this module wrote behind the compiler's output, it was checked
        // just now, and nobody else may write to the directory. wasmtime refuses the code of other engines.
        unsafe { Self::deserialize_file(engine, &file.0) }
    }

    #[expect(unsafe_code, reason = "loading compiled code is unsafe in itself; this file is the only place")]
    fn restore(engine: &Engine, made: &Made) -> wasmtime::Result<Self> {
        // SAFETY: the bytes are what the compiler of this program's own process wrote, whole, before it ended well. wasmtime refuses
        // the code of other engines.
        unsafe { Self::deserialize(engine, &made.0) }
    }
}

impl Code for Module {
    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, wasm)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Self::serialize(self)
    }

    #[expect(unsafe_code, reason = "loading compiled code is unsafe in itself; this file is the only place")]
    fn load(engine: &Engine, file: &Verified) -> wasmtime::Result<Self> {
        // SAFETY: as for components above.
        unsafe { Self::deserialize_file(engine, &file.0) }
    }

    #[expect(unsafe_code, reason = "loading compiled code is unsafe in itself; this file is the only place")]
    fn restore(engine: &Engine, made: &Made) -> wasmtime::Result<Self> {
        // SAFETY: as for components above.
        unsafe { Self::deserialize(engine, &made.0) }
    }
}
