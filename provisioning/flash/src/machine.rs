//! What this machine's disks are used for, as a snapshot: read here, judged in [`crate::refusal`].

use rustix::fs::{major, minor};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The number that the kernel knows a block device by.
pub(crate) type Number = (u32, u32);

/// Everything that speaks for or against writing to a disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Machine {
    /// Disks, partitions and what is made of them, by the kernel's name.
    pub(crate) blocks: BTreeMap<String, Block>,
    /// What is mounted.
    pub(crate) mounts: Vec<Mount>,
    /// What swap lies on.
    pub(crate) swaps: Vec<Number>,
}

/// A disk, a partition, or what is made of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Block {
    pub(crate) number: Number,
    /// The disk, when it is a partition.
    pub(crate) disk: Option<String>,
    /// What is made of it: encryption, volumes, arrays.
    pub(crate) holders: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) read_only: bool,
    pub(crate) sector_bytes: u64,
    /// What it is called by its maker.
    pub(crate) model: String,
}

/// A file system in use.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    /// The devices that it is known to lie on.
    pub(crate) numbers: Vec<Number>,
    /// Where it is seen.
    pub(crate) point: String,
}

/// A disk that may be written to, as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name, `sdb`.
    pub name: String,
    /// What its maker calls it; empty when nobody says.
    pub model: String,
    /// Its size.
    pub bytes: u64,
    pub(crate) number: Number,
}

/// The number of the device that `path` is; none when it is something else.
pub(crate) fn number_of(path: &Path) -> io::Result<Option<Number>> {
    let metadata = fs::metadata(path)?;
    Ok(metadata.file_type().is_block_device().then(|| split(metadata.rdev())))
}

/// A device number in its two parts.
pub(crate) fn split(device: u64) -> Number {
    (major(device), minor(device))
}

impl Machine {
    /// Reads the snapshot.
    pub(crate) fn read() -> io::Result<Self> {
        let blocks = blocks(Path::new("/sys/class/block"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(mount).map(resolve).collect();
        // A kernel without swap has no such file.
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        let swaps = swaps.lines().skip(1).filter_map(|line| device_of(&unescape(line.split_whitespace().next()?))).collect();
        Ok(Self { blocks, mounts, swaps })
    }

    /// The kernel's name of the device with this number.
    pub(crate) fn name(&self, number: Number) -> Option<&str> {
        self.blocks.iter().find(|(_, block)| block.number == number).map(|(name, _)| name.as_str())
    }
}

/// All block devices below `class`.
fn blocks(class: &Path) -> io::Result<BTreeMap<String, Block>> {
    let mut blocks = BTreeMap::new();
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that is pulled out at this moment is one less.
        if let Some(block) = fs::canonicalize(entry.path()).ok().and_then(|path| block(&path)) {
            blocks.insert(name, block);
        }
    }
    Ok(blocks)
}

fn block(path: &Path) -> Option<Block> {
    let word = |file: &str| fs::read_to_string(path.join(file)).ok().map(|text| text.trim().to_owned());
    let number = |file: &str| word(file).and_then(|text| text.parse::<u64>().ok());
    let (major, minor) = word("dev").and_then(|dev| dev.split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())))?;
    let disk = path.join("partition").exists().then(|| path.parent()?.file_name()?.to_str().map(str::to_owned)).flatten();
    let holders = fs::read_dir(path.join("holders")).into_iter().flatten().flatten();
    Some(Block {
        number: (major.parse().ok()?, minor.parse().ok()?),
        disk,
        holders: holders.map(|holder| holder.file_name().to_string_lossy().into_owned()).collect(),
        // In units of 512 bytes, whatever the sectors of the disk are.
        bytes: number("size")?.saturating_mul(512),
        read_only: number("ro").is_some_and(|flag| flag != 0),
        sector_bytes: number("queue/logical_block_size").unwrap_or(512),
        model: model([word("device/vendor"), word("device/model").or_else(|| word("device/name")), word("loop/backing_file")]),
    })
}

/// What the parts say together, without what an adapter says when it knows nothing.
fn model(parts: [Option<String>; 3]) -> String {
    let meaningful = |part: &String| !part.is_empty() && part != "ATA" && !part.starts_with("0x");
    parts.into_iter().flatten().filter(meaningful).collect::<Vec<_>>().join(" ")
}

/// A line of mountinfo, before anything is looked up.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: Option<Number>,
    point: String,
    source: String,
    /// Directories that an overlay lies on.
    layers: Vec<String>,
}

fn mount(line: &str) -> Option<Line> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let number = before.next()?.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let point = unescape(before.nth(1)?);
    let mut after = after.split(' ');
    let (kind, source, options) = (after.next()?, unescape(after.next()?), after.next().unwrap_or_default());
    let layers = match kind {
        "overlay" => options.split(',').filter_map(layer).flat_map(|layers| layers.split(':')).map(unescape).collect(),
        _ => Vec::new(),
    };
    Some(Line { number, point, source, layers })
}

fn layer(option: &str) -> Option<&str> {
    ["lowerdir=", "upperdir=", "lowerdir+=", "datadir+="].into_iter().find_map(|key| option.strip_prefix(key))
}

/// Looks up what a mount lies on: file systems of several disks and overlays have numbers of their own.
fn resolve(line: Line) -> Mount {
    let source = line.source.starts_with('/').then(|| device_of(&line.source)).flatten();
    let layers = line.layers.iter().filter_map(|layer| device_of(layer));
    Mount { numbers: line.number.into_iter().chain(source).chain(layers).collect(), point: line.point }
}

/// The device that `path` is, or else lies on.
fn device_of(path: &str) -> Option<Number> {
    let metadata = fs::metadata(PathBuf::from(path)).ok()?;
    Some(split(if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() }))
}

/// Spaces and the like are written as `\040` in the kernel's tables.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let code = digits.and_then(|digits| u8::try_from(digits.iter().fold(0_u32, |code, digit| code * 8 + u32::from(digit - b'0'))).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_taken_apart() {
        let plain = mount("27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard").unwrap();
        let expected = Line { number: Some((254, 1)), point: "/".to_owned(), source: "/dev/vda1".to_owned(), layers: Vec::new() };
        assert_eq!(plain, expected);
        let stick = mount(r"90 27 8:17 /a /media/my\040stick rw - vfat /dev/sdb1 rw").unwrap();
        assert_eq!((stick.point.as_str(), stick.number), ("/media/my stick", Some((8, 17))));
        let overlay = mount("1 0 0:40 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d,lowerdir+=/e").unwrap();
        assert_eq!(overlay.layers, ["/a", "/b", "/c", "/e"]);
        for line in ["", "27 1 254:1 / /", "27 1 - ext4 /dev/vda1"] {
            assert_eq!(mount(line), None, "{line}");
        }
    }

    #[test]
    fn escapes_of_the_kernel_are_undone() {
        for (text, expected) in [(r"a\040b", "a b"), (r"\134", "\\"), (r"a\04", r"a\04"), (r"\777x", r"\777x"), ("", "")] {
            assert_eq!(unescape(text), expected);
        }
    }

    #[test]
    fn devices_are_read_from_a_tree_of_sysfs() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (file, text) in [
            ("devices/sdb/dev", "8:16\n"),
            ("devices/sdb/size", "2048\n"),
            ("devices/sdb/ro", "1\n"),
            ("devices/sdb/queue/logical_block_size", "4096\n"),
            ("devices/sdb/device/vendor", "SanDisk \n"),
            ("devices/sdb/device/model", "Ultra\n"),
            ("devices/sdb/sdb1/dev", "8:17\n"),
            ("devices/sdb/sdb1/size", "1024\n"),
            ("devices/sdb/sdb1/partition", "1\n"),
            ("devices/sdb/sdb1/holders/dm-0/x", ""),
        ] {
            write(file, text);
        }
        fs::create_dir(tree.path().join("class")).unwrap();
        for (name, to) in [("sdb", "../devices/sdb"), ("sdb1", "../devices/sdb/sdb1"), ("gone", "../devices/gone")] {
            std::os::unix::fs::symlink(to, tree.path().join("class").join(name)).unwrap();
        }
        let blocks = blocks(&tree.path().join("class")).unwrap();
        assert_eq!(blocks.len(), 2);
        let (disk, part) = (&blocks["sdb"], &blocks["sdb1"]);
        assert_eq!((disk.number, disk.bytes, disk.read_only, disk.sector_bytes), ((8, 16), 1 << 20, true, 4096));
        assert_eq!((disk.model.as_str(), &disk.disk, disk.holders.len()), ("SanDisk Ultra", &None, 0));
        assert_eq!((part.disk.as_deref(), part.holders.as_slice()), (Some("sdb"), &["dm-0".to_owned()][..]));
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.mounts.iter().any(|mount| mount.point == "/"));
    }
}
