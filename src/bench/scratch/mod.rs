//! Where a benchmark may write. Level 0 never does: a device or a file is opened for reading alone. Level 1 makes a
//! temporary file in a folder that the operator named. Level 2 writes to a whole disk that the operator named by its
//! serial number and that is blank, level 3 to one that holds data which the operator gave up in so many words. This is
//! the only file of the benchmark that opens or makes anything for writing.

pub mod candidate;
pub mod signatures;

use crate::bench::storage::Buffers;
use crate::error::{Advise as _, Status, usage};
use crate::facts::Root;
use anyhow::{Context as _, ensure};
use candidate::{Disk, Request};
use nix::fcntl::{FallocateFlags, fallocate};
use signatures::{CHUNK, Probe};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file or device, open without the page cache.
#[derive(Debug)]
pub struct Target {
    /// It.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// Can it be written to? Never where this did not make it.
    pub writable: bool,
}

/// Level 0: a block device or a regular file, for reading alone.
///
/// # Errors
/// It is not there, is neither, may not be read by this user, or its filesystem has no O_DIRECT.
pub fn for_reading(path: &Path) -> anyhow::Result<Target> {
    let open = || -> anyhow::Result<Target> {
        let kind = std::fs::metadata(path)?.file_type();
        ensure!(kind.is_file() || kind.is_block_device(), "neither a block device nor a file");
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Target { file, bytes, writable: false })
    };
    open()
        .with_context(|| format!("opening {} for reading with O_DIRECT", path.display()))
        .hint("name a namespace such as /dev/nvme0n1, or a file on XFS or ext4; devices are read by root")
        .status(Status::Usage)
}

/// Level 1: a file of `bytes` without a name, on the filesystem of `folder`. It is gone when it is closed, also where this
/// program is killed. Its blocks are allocated, and hold nothing until they are written.
///
/// # Errors
/// The folder is not there, may not be written to, or has no room; its filesystem has no O_DIRECT or no unnamed files.
pub fn temporary(folder: &Path, bytes: u64) -> anyhow::Result<Target> {
    let make = || -> anyhow::Result<Target> {
        let free = nix::sys::statvfs::statvfs(folder)?;
        let room = free.blocks_available().saturating_mul(free.fragment_size());
        // Whoever else writes there needs some of it.
        ensure!(bytes <= room / 2, "{bytes} bytes are more than half of the {room} that are free");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE | libc::O_DIRECT | libc::O_CLOEXEC)
            .open(folder)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes.try_into()?)?;
        Ok(Target { file, bytes, writable: true })
    };
    make()
        .with_context(|| format!("making a temporary file of {bytes} bytes in {}", folder.display()))
        .hint("name a folder on XFS or ext4 with twice as much room")
        .status(Status::Usage)
}

/// How many seconds pass before data is given up.
pub const COUNTDOWN: u32 = 10;

/// Called once for each second before data is given up: the disk, what is on it, and the seconds that are left. An error
/// stops it all, and nothing was opened for writing.
pub type Countdown<'a> = &'a mut dyn FnMut(&Disk, &Probe, u32) -> anyhow::Result<()>;

/// A disk that is open for writing. While `file` is open, nobody can mount the disk or make anything of it.
#[derive(Debug)]
pub struct Claimed {
    /// It.
    pub file: File,
    /// What is known of it.
    pub disk: Disk,
    /// What it held when it was opened.
    pub probe: Probe,
}

impl Claimed {
    /// Looks at it again, at the places that `seed` chooses.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(&self, seed: u64) -> anyhow::Result<Probe> {
        probe(&self.file, &self.disk, seed)
    }
}

/// Level 2, or level 3 where the request consents to wiping: the whole disk with that serial number. Nothing is written.
///
/// All is asked twice, and the second time of the disk that is open, so that it is the disk that was looked at.
///
/// # Errors
/// Anything is not as it should be, or could not be found out.
pub fn disk(
    machine: &dyn Machine,
    request: &Request<'_>,
    countdown: Countdown<'_>,
) -> anyhow::Result<Claimed> {
    let disks = machine.disks()?;
    let disk = candidate::choose(&disks, request)?;
    let probe = look(&machine.open(&disk.name, false)?, disk, request.seed)?;
    candidate::accept(disk, &probe, request)?;
    if request.gives_up_data() {
        for left in (1..=COUNTDOWN).rev() {
            countdown(disk, &probe, left)?;
            machine.wait();
        }
    }
    let opened = machine.open(&disk.name, true)?;
    let disks = machine.disks()?;
    let again = candidate::choose(&disks, request)?;
    let is_same = again == disk && look(&opened, again, request.seed)? == probe;
    if !is_same {
        return Err(changed(disk));
    }
    Ok(Claimed { file: opened.file, disk: disk.clone(), probe })
}

/// The disk that was claimed `before` and got a filesystem with the identifier `uuid`, once more, so that it can be made
/// blank. The same is asked as before, except that it holds nothing: it has to hold that filesystem.
///
/// # Errors
/// It is another disk, or in use, or somebody put something else there.
pub fn disk_again(
    machine: &dyn Machine,
    request: &Request<'_>,
    before: &Disk,
    uuid: &[u8; 16],
) -> anyhow::Result<Claimed> {
    let is_same = || -> anyhow::Result<bool> { Ok(candidate::choose(&machine.disks()?, request)? == before) };
    if !is_same()? {
        return Err(changed(before));
    }
    let opened = machine.open(&before.name, true)?;
    let probe = look(&opened, before, request.seed)?;
    let mut buffers = Buffers::new(1, CHUNK as usize)?;
    opened.file.read_exact_at(buffers.get_mut(0), 0).with_context(|| format!("reading {}", before.name))?;
    if !is_same()? || signatures::xfs_uuid(buffers.get_mut(0)) != Some(uuid) {
        return Err(changed(before));
    }
    Ok(Claimed { file: opened.file, disk: before.clone(), probe })
}

fn changed(disk: &Disk) -> anyhow::Error {
    let what = format!(
        "{} ({}) changed while it was being looked at",
        disk.name,
        disk.serial.as_deref().unwrap_or_default()
    );
    usage(what, "find out who changed it, and begin again")
}

/// Probes what is open, which has to be `disk`.
fn look(opened: &Opened, disk: &Disk, seed: u64) -> anyhow::Result<Probe> {
    let Opened { file, number, bytes } = opened;
    if (number, *bytes) != (&disk.number, disk.bytes) {
        let Disk { name, number: expected, bytes: size, .. } = disk;
        let what = format!("/dev/{name} is device {number} of {bytes} bytes, not {expected} of {size}");
        return Err(usage(what, "find out who changed it, and begin again"));
    }
    probe(file, disk, seed)
}

fn probe(file: &File, disk: &Disk, seed: u64) -> anyhow::Result<Probe> {
    // O_DIRECT asks for aligned memory.
    let mut buffers = Buffers::new(1, CHUNK as usize)?;
    Probe::of(disk.bytes, disk.block, seed, |offset, into| {
        let buffer = buffers.get_mut(0).get_mut(..into.len()).ok_or(std::io::ErrorKind::InvalidInput)?;
        file.read_exact_at(buffer, offset)?;
        into.copy_from_slice(buffer);
        Ok(())
    })
    .with_context(|| format!("reading {}", disk.name))
    .hint("what cannot be read may hold anything: use another disk, and see the kernel's log for this one")
}

/// An open disk, as its descriptor says.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub file: File,
    /// `major:minor`.
    pub number: String,
    /// Its size.
    pub bytes: u64,
}

/// What is asked of a machine, so that tests can change it in between.
pub trait Machine {
    /// All disks of which one may be chosen.
    ///
    /// # Errors
    /// Something could not be read that may say that a disk is in use.
    fn disks(&self) -> anyhow::Result<Vec<Disk>>;
    /// The device node of a disk or partition.
    ///
    /// # Errors
    /// It is not below this machine's root.
    fn node(&self, name: &str) -> anyhow::Result<PathBuf>;
    /// Opens a disk by its name: for reading alone, or for both and for nobody else.
    ///
    /// # Errors
    /// It is not there, may not be opened, or somebody uses it.
    fn open(&self, name: &str, exclusive: bool) -> anyhow::Result<Opened>;
    /// Lets a second pass.
    fn wait(&self);
}

/// The machine that this runs on.
#[derive(Debug)]
pub struct Live {
    root: Root,
}

impl Live {
    /// Its files are below `root`.
    pub fn new(root: Root) -> Self {
        Self { root }
    }
}

impl Machine for Live {
    fn disks(&self) -> anyhow::Result<Vec<Disk>> {
        candidate::read_all(&self.root)
            .context("finding out which disks are in use")
            .hint("run as root where /proc and /sys are mounted; what cannot be seen may be in use")
    }

    fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.root.locate(&format!("/dev/{name}"))?)
    }

    fn open(&self, name: &str, exclusive: bool) -> anyhow::Result<Opened> {
        let path = self.node(name)?;
        let flags = libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags);
        if exclusive {
            // Of a block device: fails where the kernel or another such opener uses it or a partition of it.
            options.write(true).custom_flags(flags | libc::O_EXCL);
        }
        let mut file = options
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
            .hint("run as root; `Device or resource busy` is a disk that somebody uses")?;
        let metadata = file.metadata()?;
        ensure!(metadata.file_type().is_block_device(), "{} is no block device", path.display());
        let number = candidate::number(metadata.rdev());
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Opened { file, number, bytes })
    }

    fn wait(&self) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
