//! A blank disk, or one whose data was given up, as scratch space: claimed, given a filesystem, mounted, and made blank
//! again. Which disk that may be is decided in [`crate::bench::scratch`], and nowhere else is one opened for writing.
//!
//! The claim is held until the whole filesystem is on the disk: it is made in memory, as a file with holes, and its bytes
//! are copied through the descriptor that holds the claim. No program ever gets the disk's name to write to. From the
//! first byte that is written on, every way out of here leaves the disk blank or says that it is not.

use super::blank;
use super::mounts;
use crate::bench::results::Level;
use crate::bench::scratch::candidate::{Disk, Request, number};
use crate::bench::scratch::signatures::{END, Probe};
use crate::bench::scratch::{self, Claimed, Countdown, Machine};
use crate::error::{Advise as _, hinted, one_line, usage};
use crate::program;
use anyhow::{Context as _, ensure};
use nix::mount::{MntFlags, MsFlags, umount2};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// What a filesystem is mounted with that nobody runs programs from.
pub const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
/// The size of a temporary file where nobody asks for another one, if there is room for it.
pub const USUAL_SIZE: u64 = 4 << 30;
/// XFS' log: the smallest that mkfs.xfs makes (xfsprogs: mkfs/xfs_mkfs.c, `validate_supported`).
const LOG: u64 = 64 << 20;
/// The smallest XFS that mkfs.xfs makes.
const SMALLEST: u64 = 300 << 20;
/// What people see who find a disk whose run lost its power: 12 characters at most.
const LABEL: &str = "gdsboot-tmp";
/// Making a filesystem in memory takes a second, on an emulated machine some more.
const MKFS_LIMIT: Duration = Duration::from_secs(120);
/// How often a disk that is busy is tried again: udev looks at it for a moment when it was written to.
const TRIES: u32 = 10;
const MIB: u64 = 1 << 20;

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The disk's whole serial number.
    pub serial: String,
    /// `I-UNDERSTAND-<serial>`, where its data is given up.
    pub wipe: Option<String>,
    /// Disks and partitions that are kept: [`Request::keep`].
    pub keep: Vec<String>,
    /// Chooses where the disk is looked at.
    pub seed: u64,
    /// The size of the temporary file; without it 4 GiB or a third of the disk, whichever is less.
    pub size: Option<u64>,
}

impl Wanted {
    fn request(&self) -> Request<'_> {
        Request { serial: &self.serial, wipe: self.wipe.as_deref(), keep: &self.keep, seed: self.seed }
    }
}

/// How much of a disk is used, in bytes: a filesystem from its start on, and a file in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    filesystem: u64,
    file: u64,
}

impl Layout {
    /// The filesystem is no larger than the file needs, because all of it is written twice: zeros before, zeros after. The
    /// end of the disk stays as it is.
    fn of(disk: &Disk, wanted: Option<u64>) -> anyhow::Result<Self> {
        let Disk { name, bytes, .. } = disk;
        let room = bytes.saturating_sub(END) / MIB * MIB;
        if room < SMALLEST {
            let what = format!("{name} has {} MiB: too small for an XFS", bytes / MIB);
            return Err(usage(what, format!("use a disk of {} MiB at least", (SMALLEST + END) / MIB)));
        }
        // XFS keeps some of itself back, and a temporary file takes no more than half of what is free.
        let most = room.saturating_sub(2 * LOG + room / 32) / 2 / MIB * MIB;
        let file = wanted.unwrap_or(USUAL_SIZE.min(room / 3)).min(wanted.unwrap_or(most)) / MIB * MIB;
        if file > most {
            let what = format!("{name} has no room for a temporary file of {} MiB", file / MIB);
            return Err(usage(what, format!("set scratch_size to {}M or less", most / MIB)));
        }
        Ok(Self { filesystem: room.min(2 * file + file / 8 + (1 << 30)), file })
    }
}

/// A disk of which a part is scratch space. It is given back by [`Self::close`].
#[derive(Debug)]
pub struct ScratchDisk {
    /// Where it is mounted.
    pub folder: PathBuf,
    /// The disk, as it was when it was claimed.
    pub disk: Disk,
    /// How large the temporary file on it is to be.
    pub file_bytes: u64,
    /// May it be written to because it was blank, or because its data was given up?
    pub level: Level,
    wanted: Wanted,
    layout: Layout,
    uuid: Uuid,
    /// What every byte was, where it was blank.
    byte: u8,
    /// Open for reading: as long as it is, no other disk can get this one's number.
    _held: File,
}

impl ScratchDisk {
    /// Claims the disk, makes a filesystem on it and mounts that at `folder`.
    ///
    /// # Errors
    /// The disk may not be written to, which leaves it untouched; or something failed, which leaves it blank or says that
    /// it is not.
    pub fn make(
        machine: &dyn Machine,
        wanted: Wanted,
        folder: &Path,
        countdown: Countdown<'_>,
    ) -> anyhow::Result<Self> {
        let request = wanted.request();
        let claimed = scratch::disk(machine, &request, countdown)?;
        let level = if request.gives_up_data() { Level::Wiped } else { Level::Blank };
        let layout = Layout::of(&claimed.disk, wanted.size)?;
        let uuid = random_uuid()?;
        let image = filesystem(&claimed.disk, layout, uuid, &folder.with_extension("img"))?;
        let held = machine.open(&claimed.disk.name, false)?;
        let disk = claimed.disk.clone();
        ensure!(held.number == disk.number, "{} became device {}", disk.name, held.number);
        let byte = if level == Level::Wiped { 0 } else { first_byte(&claimed)? };
        let made = Self {
            folder: folder.to_owned(),
            disk,
            file_bytes: layout.file,
            level,
            wanted,
            layout,
            uuid,
            byte,
            _held: held.file,
        };
        // From here on, it is written to.
        if let Err(error) = made.put(&claimed, &image) {
            return Err(made.undone(error, made.make_blank(&claimed)));
        }
        drop((claimed, image));
        if let Err(error) = made.mount(machine) {
            return Err(made.undone(error, made.take_back(machine)));
        }
        Ok(made)
    }

    /// Puts the filesystem onto the disk that is claimed.
    fn put(&self, claimed: &Claimed, image: &File) -> anyhow::Result<()> {
        let Disk { name, bytes, .. } = &self.disk;
        let file = &claimed.file;
        let put = || -> anyhow::Result<()> {
            if self.level == Level::Wiped {
                // Every signature that has a name stands within END of either end.
                blank::discard(file, *bytes)?;
                blank::fill(file, 0..END.min(*bytes), 0)?;
                blank::fill(file, bytes.saturating_sub(END)..*bytes, 0)?;
            }
            blank::fill(file, 0..self.layout.filesystem, 0)?;
            if self.level == Level::Wiped {
                let left = claimed.look(self.wanted.seed)?.signatures;
                ensure!(left.is_empty(), "it still holds {left:?} after it was overwritten");
            }
            blank::copy(image, self.layout.filesystem, file)
        };
        put()
            .with_context(|| format!("making a filesystem on {name} ({})", self.wanted.serial))
            .hint("see the kernel's log for the disk's errors")
    }

    fn mount(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        // Whoever is being started has a copy of the claim for a moment.
        repeat(machine, || {
            mounts::device(&machine.node(&self.disk.name)?, &self.folder, "xfs", FLAGS, None)
        })?;
        let mounted = number(fs_err::metadata(&self.folder)?.dev());
        if mounted != self.disk.number {
            // Whatever this is, it is not ours.
            umount2(&self.folder, MntFlags::empty()).context("unmounting it")?;
            let Disk { name, number, .. } = &self.disk;
            return Err(usage(
                format!("{name} is device {mounted} by now, not {number}"),
                "find out who changed it",
            ));
        }
        Ok(())
    }

    /// Unmounts it and makes the disk blank; what came of that, in a sentence.
    ///
    /// # Errors
    /// Something still uses it, or it is not blank. The error says what to do.
    pub fn close(&self, machine: &dyn Machine) -> anyhow::Result<String> {
        let unmount = || {
            umount2(&self.folder, MntFlags::empty())
                .with_context(|| format!("unmounting {}", self.folder.display()))
        };
        repeat(machine, unmount)
            .and_then(|()| self.take_back(machine))
            .map_err(|error| self.not_blank(&error))
    }

    /// Claims the unmounted disk once more, and makes it blank.
    fn take_back(&self, machine: &dyn Machine) -> anyhow::Result<String> {
        let again = || {
            scratch::disk_again(machine, &self.wanted.request(), &self.disk, self.uuid.as_bytes())
                .context("taking it back")
        };
        self.make_blank(&repeat(machine, again)?)
    }

    fn make_blank(&self, claimed: &Claimed) -> anyhow::Result<String> {
        blank::fill(&claimed.file, 0..self.layout.filesystem, self.byte)?;
        claimed.file.sync_all().context("having the drive keep that")?;
        let probe = claimed.look(self.wanted.seed)?;
        let Disk { name, .. } = &self.disk;
        let (serial, mib) = (&self.wanted.serial, self.layout.filesystem / MIB);
        match probe {
            Probe { data: None, .. } => {
                Ok(format!("{name} ({serial}) is blank: the {mib} MiB that were used are overwritten"))
            }
            Probe { data: Some(at), .. } if self.level == Level::Wiped && at >= self.layout.filesystem => {
                Ok(format!(
                    "{name} ({serial}) is blank at both ends and in the {mib} MiB that were used; what it held elsewhere was \
                     given up, and the drive did not discard it: there is some at byte {at}. To lose that too: \
                     blkdiscard -z /dev/{name}"
                ))
            }
            Probe { data: Some(at), .. } => {
                Err(anyhow::anyhow!("byte {at} reads back as something else than was written"))
            }
        }
    }

    /// The error of one who could not make it, after it was tried to make the disk blank.
    fn undone(&self, error: anyhow::Error, blank: anyhow::Result<String>) -> anyhow::Error {
        match blank {
            Ok(words) => error.context(words),
            Err(second) => error.context(one_line(&self.not_blank(&second))),
        }
    }

    fn not_blank(&self, error: &anyhow::Error) -> anyhow::Error {
        let Disk { name, .. } = &self.disk;
        let hint = format!("make it blank yourself when nothing uses it: blkdiscard -z /dev/{name}");
        let what = format!(
            "{name} ({}) may still hold the filesystem {LABEL} of this run: {}; {hint}",
            self.wanted.serial,
            one_line(error)
        );
        hinted(what, hint)
    }
}

/// Does it again for some seconds while somebody uses the disk.
pub fn repeat<T>(machine: &dyn Machine, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 1..TRIES {
        match work() {
            Err(error) if is_busy(&error) => machine.wait(),
            other => return other,
        }
    }
    work()
}

/// The kernel says so, or [`scratch`] found who it is.
fn is_busy(error: &anyhow::Error) -> bool {
    let text = one_line(error);
    text.contains("Device or resource busy") || text.contains(": in use: ")
}

/// A file with holes at `path` that holds an XFS. It has no name any more.
fn filesystem(disk: &Disk, layout: Layout, uuid: Uuid, path: &Path) -> anyhow::Result<File> {
    let make = || -> anyhow::Result<File> {
        path.parent().map_or(Ok(()), fs_err::create_dir_all)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(layout.filesystem)?;
        let (uuid, block, log) =
            (format!("uuid={uuid}"), format!("size={}", disk.block), format!("size={LOG}"));
        let name = path.to_str().context("a path that is no text")?;
        let args = ["-q", "-K", "-L", LABEL, "-m", &uuid, "-s", &block, "-l", &log, name];
        program::run_ok("mkfs.xfs", &args, MKFS_LIMIT)?;
        Ok(file)
    };
    let made = make();
    // Memory is given back when the file is closed.
    let removed = std::fs::remove_file(path);
    let file = made
        .context("making an XFS in memory")
        .hint("the image needs xfsprogs, and some 100 MiB of memory must be free")?;
    removed.with_context(|| format!("removing {}", path.display()))?;
    Ok(file)
}

fn first_byte(claimed: &Claimed) -> anyhow::Result<u8> {
    let mut buffers = crate::bench::storage::Buffers::new(1, 4096)?;
    claimed.file.read_exact_at(buffers.get_mut(0), 0)?;
    Ok(buffers.get_mut(0)[0])
}

fn random_uuid() -> anyhow::Result<Uuid> {
    let path = "/proc/sys/kernel/random/uuid";
    let mut text = String::new();
    fs_err::File::open(path)?.read_to_string(&mut text)?;
    Uuid::parse_str(text.trim()).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests;
