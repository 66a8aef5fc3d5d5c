//! The head of a bundle: what it brings, who says so, and where its chunks lie.
//!
//! ```text
//! "sedge-os" │ length u32 │ manifest (CBOR) │ length u32 │ signatures (CBOR) │ chunks …
//! ```

use crate::chunk::CHUNK_BYTES_MAX;
use crate::trust::{Signature, Trust, VerifyError};
use sedge_protocol::Digest;
use sedge_protocol::image::ImageVersion;
use sedge_protocol::limits::CBOR_DEPTH_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) const MAGIC: &[u8; 8] = b"sedge-os";
/// Longest head, bytes: 20,000 chunks, which is an image of half a gigabyte.
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// Most signatures.
const SIGNATURES_MAX: usize = 16;
/// Bytes of a chunk's record in the manifest: digest, length, packed length.
const RECORD_BYTES: usize = 40;
/// Longest name of a board.
const BOARD_BYTES_MAX: usize = 63;

/// What a bundle brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is for, such as `gateway-x86-64`.
    pub board: String,
    /// Its version.
    pub version: ImageVersion,
    /// The oldest version that can be followed by it; any when absent.
    pub minimum: Option<ImageVersion>,
    /// The kernel image.
    pub kernel: Part,
    /// The root file system with its hash tree.
    pub root: Part,
    /// Every chunk once, in the order in which they lie in the file.
    pub chunks: Vec<Chunk>,
}

/// A file that the bundle brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its length, bytes.
    pub size: u64,
    /// Of the whole.
    pub digest: Digest,
    /// What it is made of: places in [`Manifest::chunks`].
    pub chunks: Vec<u32>,
}

/// One chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Of its content.
    pub digest: Digest,
    /// Its length, bytes.
    pub bytes: u32,
    /// Its length in the file, bytes; the same when it is not packed.
    pub packed: u32,
    /// Where it begins in the file, bytes.
    pub offset: u64,
}

/// The manifest as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Raw {
    format: u32,
    board: String,
    version: ImageVersion,
    minimum: Option<ImageVersion>,
    kernel: Part,
    root: Part,
    #[serde(with = "bytes")]
    chunks: Vec<u8>,
}

/// Byte strings of CBOR, which are half as long as lists of numbers.
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_owned())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Why bytes are not the head of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Something else, or cut.
    #[error("not a bundle of an operating system, or only a part of one")]
    NotABundle,
    /// Longer than [`HEAD_BYTES_MAX`].
    #[error("the head has {0} bytes; {HEAD_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Of a kind that is not known yet.
    #[error("the bundle has format {0}, which this version does not know: update through a version between")]
    Format(u32),
    /// It contradicts itself.
    #[error("the manifest cannot be used: {0}")]
    Manifest(String),
    /// It is not trusted.
    #[error(transparent)]
    Trust(#[from] VerifyError),
}

/// A head whose manifest has not been read: nothing in it is believed.
#[derive(Debug, Clone)]
pub struct Head {
    manifest: Vec<u8>,
    signatures: Vec<Signature>,
    bytes: usize,
}

/// A manifest that nobody has vouched for: enough to show it, not to install it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven(pub Manifest);

impl Head {
    /// Takes a head apart.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let manifest_end = section(bytes, MAGIC.len())?.ok_or(HeadError::NotABundle)?;
        let end = section(bytes, manifest_end)?.ok_or(HeadError::NotABundle)?;
        let manifest = bytes.get(MAGIC.len() + 4..manifest_end).ok_or(HeadError::NotABundle)?.to_owned();
        let signatures: Vec<Signature> = decode(bytes.get(manifest_end + 4..end).ok_or(HeadError::NotABundle)?)?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(HeadError::Manifest(format!("{} signatures", signatures.len())));
        }
        Ok(Self { manifest, signatures, bytes: end })
    }

    /// The manifest, if one of the trusted keys has signed it. The one place that decides who is trusted.
    ///
    /// # Errors
    /// When nobody trusted has signed it, or it cannot be used.
    pub fn verify(&self, trust: &Trust) -> Result<Manifest, HeadError> {
        trust.check(&self.manifest, &self.signatures)?;
        self.read()
    }

    /// The manifest, whoever has written it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn unproven(&self) -> Result<Unproven, HeadError> {
        self.read().map(Unproven)
    }

    /// Length of the head, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Names of the keys that have signed, or say so.
    pub fn signers(&self) -> impl Iterator<Item = Digest> + '_ {
        self.signatures.iter().map(|signature| signature.key)
    }

    fn read(&self) -> Result<Manifest, HeadError> {
        let raw: Raw = decode(&self.manifest)?;
        if raw.format != 1 {
            return Err(HeadError::Format(raw.format));
        }
        let chunks = records(&raw.chunks, self.bytes as u64)?;
        let board_fits = (1..=BOARD_BYTES_MAX).contains(&raw.board.len()) && raw.board.bytes().all(|byte| byte.is_ascii_graphic());
        if !board_fits {
            return Err(HeadError::Manifest("the name of the board".to_owned()));
        }
        for (name, part) in [("kernel", &raw.kernel), ("root", &raw.root)] {
            check_part(part, &chunks).map_err(|fault| HeadError::Manifest(format!("{name}: {fault}")))?;
        }
        let Raw { board, version, minimum, kernel, root, .. } = raw;
        Ok(Manifest { board, version, minimum, kernel, root, chunks })
    }
}

impl Manifest {
    /// Length of the whole file, bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.offset + u64::from(chunk.packed))
    }

    /// The chunks of a part with where they belong in it, bytes.
    pub fn places<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = (u64, u32, &'a Chunk)> {
        let mut at = 0;
        part.chunks.iter().filter_map(move |number| {
            let chunk = self.chunks.get(*number as usize)?;
            at += u64::from(chunk.bytes);
            Some((at - u64::from(chunk.bytes), *number, chunk))
        })
    }

    /// The head's bytes with the signatures that `sign` makes of the manifest.
    pub(crate) fn encode(&self, sign: impl FnOnce(&[u8]) -> Vec<Signature>) -> Result<Vec<u8>, HeadError> {
        let record = |chunk: &Chunk| [chunk.digest.as_bytes().as_slice(), &chunk.bytes.to_be_bytes(), &chunk.packed.to_be_bytes()].concat();
        let raw = Raw {
            format: 1,
            board: self.board.clone(),
            version: self.version.clone(),
            minimum: self.minimum.clone(),
            kernel: self.kernel.clone(),
            root: self.root.clone(),
            chunks: self.chunks.iter().flat_map(record).collect(),
        };
        let manifest = encode(&raw)?;
        let signatures = encode(&sign(&manifest))?;
        let mut head = MAGIC.to_vec();
        for part in [&manifest, &signatures] {
            let length = u32::try_from(part.len()).map_err(|_| HeadError::TooLong(part.len()))?;
            head.extend(length.to_be_bytes());
            head.extend(part);
        }
        if head.len() > HEAD_BYTES_MAX { Err(HeadError::TooLong(head.len())) } else { Ok(head) }
    }
}

/// Where the section that begins at `at` with its length ends; none when its length is not there yet.
fn section(bytes: &[u8], at: usize) -> Result<Option<usize>, HeadError> {
    let magic = MAGIC.len().min(bytes.len());
    if bytes[..magic] != MAGIC[..magic] {
        return Err(HeadError::NotABundle);
    }
    let Some(length) = bytes.get(at..at + 4) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
    let end = at + 4 + length;
    if end > HEAD_BYTES_MAX { Err(HeadError::TooLong(end)) } else { Ok(Some(end)) }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HeadError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|cause| HeadError::Manifest(cause.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(HeadError::Manifest(format!("{} bytes after its end", rest.len()))) }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, HeadError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|cause| HeadError::Manifest(cause.to_string()))?;
    Ok(bytes)
}

fn records(bytes: &[u8], begin: u64) -> Result<Vec<Chunk>, HeadError> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        return Err(HeadError::Manifest("the list of chunks is cut".to_owned()));
    }
    let mut offset = begin;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    let chunk = |record: &[u8; RECORD_BYTES]| {
        let (bytes, packed) = (number(&record[32..36]), number(&record[36..]));
        if bytes == 0 || packed == 0 || bytes as usize > CHUNK_BYTES_MAX || packed > bytes {
            return Err(HeadError::Manifest(format!("a chunk of {bytes} bytes, packed {packed}")));
        }
        offset += u64::from(packed);
        let digest = Digest::from_bytes(record[..32].try_into().unwrap_or_default());
        Ok(Chunk { digest, bytes, packed, offset: offset - u64::from(packed) })
    };
    records.iter().map(chunk).collect()
}

fn check_part(part: &Part, chunks: &[Chunk]) -> Result<(), String> {
    let mut size = 0_u64;
    for number in &part.chunks {
        let chunk = chunks.get(*number as usize).ok_or_else(|| format!("there is no chunk {number}"))?;
        size += u64::from(chunk.bytes);
    }
    if size == part.size && size > 0 { Ok(()) } else { Err(format!("it has {size} bytes in chunks and {} in all", part.size)) }
}
