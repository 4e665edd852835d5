//! Which drive a device or a file is on: its model, its place on the bus, and whether anything was ever written where it is
//! read.

use super::results::{Drive, Level};
use super::scratch::{self, Target};
use super::storage::Buffers;
use super::transfer::offsets::random;
use crate::facts::Facts;
use crate::facts::block::BlockDevice;
use crate::facts::nvme::NvmeController;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How many places are looked at to see whether a drive is blank, and how much of each.
const PLACES: u64 = 64;
const PLACE: usize = 4096;
/// What transfers have to be multiples of where nobody says it: what every drive takes.
const BLOCK: u32 = 4096;

/// A drive that is open.
#[derive(Debug)]
pub struct Opened {
    /// What is known of it.
    pub drive: Drive,
    /// The kernel's name of its controller, where it is one NVMe drive: `nvme0`.
    pub controller: Option<String>,
    /// The file or device.
    pub target: Target,
    /// The folder that a temporary file was made in.
    pub folder: Option<PathBuf>,
}

impl Opened {
    /// Finds out on which drive `target` is. `name` is what people call it.
    pub fn new(facts: &Facts, name: &str, level: Level, target: Target) -> Self {
        let number = target.file.metadata().ok().map(|metadata| {
            let is_device = metadata.file_type().is_block_device();
            number(if is_device { metadata.rdev() } else { metadata.dev() })
        });
        let block = number.and_then(|number| whole_disk(facts, &number));
        let controller = block.and_then(|block| controller(facts, &block.name));
        let text = |fact: Option<&String>| fact.cloned();
        let bytes = block.and_then(|block| block.logical_block_bytes.value()).copied();
        let drive = Drive {
            name: name.to_owned(),
            model: controller.and_then(|nvme| text(nvme.model.value())),
            pci: controller
                .and_then(|nvme| text(nvme.address.value()))
                .filter(|address| address.contains(':')),
            bytes: target.bytes,
            block: bytes.unwrap_or(BLOCK),
            level,
            blank: (!target.writable).then(|| blank(&target)).flatten(),
        };
        Self { drive, controller: controller.map(|nvme| nvme.name.clone()), target, folder: None }
    }

    /// Makes a temporary file of `bytes` in `folder`, and finds out on which drive it is.
    ///
    /// # Errors
    /// See [`scratch::temporary`].
    pub fn temporary(
        facts: &Facts,
        name: &str,
        level: Level,
        folder: &Path,
        bytes: u64,
    ) -> anyhow::Result<Self> {
        let target = scratch::temporary(folder, bytes)?;
        Ok(Self { folder: Some(folder.to_owned()), ..Self::new(facts, name, level, target) })
    }

    /// Can it still be read? The error says why not.
    ///
    /// # Errors
    /// Its first block cannot be read.
    pub fn is_alive(&self) -> std::io::Result<()> {
        let mut buffers = Buffers::new(1, PLACE)?;
        match self.target.file.read_at(buffers.get_mut(0), 0)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// As sysfs writes it.
fn number(device: u64) -> String {
    format!("{}:{}", libc::major(device), libc::minor(device))
}

/// The one disk below a device: what is made of several is no drive.
fn whole_disk<'a>(facts: &'a Facts, number: &str) -> Option<&'a BlockDevice> {
    let all = facts.block.value()?;
    let mut device = all.iter().find(|device| device.is(Some(number), ""))?;
    for _ in 0..all.len() {
        let [below] = device.slaves.as_slice() else { break };
        device = all.iter().find(|device| device.is(None, below))?;
    }
    device.slaves.is_empty().then_some(device)
}

fn controller<'a>(facts: &'a Facts, namespace: &str) -> Option<&'a NvmeController> {
    let all = facts.nvme.value()?;
    all.iter().find(|nvme| nvme.namespaces.iter().any(|known| known.name == namespace))
}

/// The part of the places that hold one and the same byte throughout; `None` where they cannot be read.
fn blank(target: &Target) -> Option<f64> {
    let blocks = target.bytes / PLACE as u64;
    let mut buffers = Buffers::new(1, PLACE).ok()?;
    let (mut state, mut uniform) = (blocks, 0_u32);
    for _ in 0..PLACES.min(blocks) {
        let block = (u128::from(random(&mut state)) * u128::from(blocks)) >> 64;
        let buffer = buffers.get_mut(0);
        target.file.read_exact_at(buffer, block as u64 * PLACE as u64).ok()?;
        uniform += u32::from(buffer.iter().all(|byte| *byte == buffer[0]));
    }
    (blocks > 0).then(|| f64::from(uniform) / PLACES.min(blocks) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Root;

    /// A machine whose NVMe drive has the number that this temporary folder's filesystem has.
    fn machine(device: u64) -> (tempfile::TempDir, Facts) {
        let dir = tempfile::tempdir().unwrap();
        let number = format!("{}\n", number(device));
        for (path, text) in [
            ("sys/class/nvme/nvme3/model", "A Drive\n"),
            ("sys/class/nvme/nvme3/address", "0000:05:00.0\n"),
            ("sys/class/nvme/nvme3/nvme3n1/x", ""),
            ("sys/block/nvme3n1/dev", "259:9\n"),
            ("sys/block/nvme3n1/size", "2048\n"),
            ("sys/block/nvme3n1/queue/logical_block_size", "512\n"),
            ("sys/block/nvme3n1/nvme3n1p1/partition", "1\n"),
            ("sys/block/nvme3n1/nvme3n1p1/dev", "259:10\n"),
            ("sys/block/dm-0/dev", &number),
            ("sys/block/dm-0/slaves/nvme3n1p1/x", ""),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let facts = Facts::read(&Root::at(dir.path()));
        (dir, facts)
    }

    #[test]
    fn a_file_s_drive_is_found_below_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut bytes = vec![0; 1 << 20];
        bytes[..1 << 19].iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n % 251) as u8);
        fs_err::write(&path, &bytes).unwrap();
        let (_machine, facts) = machine(fs_err::metadata(&path).unwrap().dev());
        // Not every filesystem has O_DIRECT.
        let Ok(target) = scratch::for_reading(&path) else { return };
        let opened = Opened::new(&facts, "x", Level::ReadOnly, target);
        assert_eq!(opened.drive.model.as_deref(), Some("A Drive"));
        assert_eq!((opened.drive.pci.as_deref(), opened.drive.block), (Some("0000:05:00.0"), 512));
        assert_eq!(opened.controller.as_deref(), Some("nvme3"));
        let blank = opened.drive.blank.unwrap();
        assert!((0.2..0.8).contains(&blank), "{blank}");
        opened.is_alive().unwrap();
    }

    #[test]
    fn what_nobody_knows_is_not_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(target) = scratch::temporary(dir.path(), 1 << 20) else { return };
        let opened = Opened::new(&Facts::default(), "x", Level::TemporaryFile, target);
        let expected = Drive {
            name: "x".into(),
            bytes: 1 << 20,
            block: 4096,
            level: Level::TemporaryFile,
            ..Drive::default()
        };
        assert_eq!((opened.drive, opened.controller), (expected, None));
    }
}
