//! What is written to. [`Disk::open`] is the only place of `gdsboot flash` that opens something for writing.

use crate::error::{Advise as _, Status, usage};
use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, PosixFadviseAdvice, fcntl, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A disk or a file, as far as writing goes; tests have some that fail.
pub trait Medium {
    /// Writes some of these bytes.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Reads some bytes.
    fn read_at(&mut self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Sends a range that was written on its way.
    fn begin(&mut self, range: Range<u64>) -> io::Result<()>;
    /// Waits until a range that was sent on its way has arrived.
    fn finish(&mut self, range: Range<u64>) -> io::Result<()>;
    /// Waits until everything has arrived, and forgets it: what is read from then on comes from the medium.
    fn settle(&mut self) -> io::Result<()>;
}

/// Which device or file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Is it a block device?
    pub is_disk: bool,
    /// The filesystem that it stands on; 0 for a block device, whose node may stand anywhere.
    filesystem: u64,
    /// The device's number, or the file's.
    pub number: u64,
}

impl Identity {
    /// From what stat(2) says.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        match metadata.file_type().is_block_device() {
            true => Self { is_disk: true, filesystem: 0, number: metadata.rdev() },
            false => Self { is_disk: false, filesystem: metadata.dev(), number: metadata.ino() },
        }
    }
}

/// A real one. While it is open, nobody can mount the disk or make anything of it.
#[derive(Debug)]
pub struct Disk {
    file: File,
    /// Reads past the page cache, where the filesystem can.
    direct: Option<File>,
}

impl Disk {
    /// Opens a whole disk, or a file that exists.
    ///
    /// # Errors
    /// It is in use, or this user may not write to it.
    pub fn open(path: &Path, identity: Identity) -> Result<Self> {
        let shown = path.display();
        // Of a block device, O_EXCL means: nobody else has claimed it (open(2)). Nothing is created.
        let flags = libc::O_CLOEXEC | libc::O_NOCTTY | if identity.is_disk { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("opening {shown} for writing"))
            .status(Status::Usage)
            .hint("a disk is written by root, and only while nobody uses it; a file by its owner")?;
        if Identity::of(&file.metadata()?) != identity {
            return Err(usage(format!("{shown} became something else while it was looked at"), "try again"));
        }
        if !identity.is_disk {
            // QEMU locks the images of its machines in this way.
            let all = libc::flock {
                l_type: libc::F_WRLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            if let Err(nix::Error::EAGAIN | nix::Error::EACCES) = fcntl(&file, FcntlArg::F_OFD_SETLK(&all)) {
                return Err(usage(
                    format!("not writing to {shown}: another program has locked it"),
                    "stop the virtual machine whose disk it is, or name another file",
                ));
            }
        }
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(again);
        Ok(Self { file, direct: direct.ok() })
    }

    /// What is open.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// sync_file_range(2).
    #[allow(unsafe_code, reason = "nix has no sync_file_range")]
    fn range(&self, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
        let (start, length) = (range.start as i64, (range.end - range.start) as i64);
        // SAFETY: it takes numbers alone, and the descriptor is open.
        match unsafe { libc::sync_file_range(self.file.as_raw_fd(), start, length, flags) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // Not every filesystem can; `settle` is what counts.
                error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESPIPE)) => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Medium for Disk {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.file.write_at(bytes, at)
    }

    fn read_at(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self.direct.as_ref().map(|direct| direct.read_at(into, at)) {
            Some(Ok(read)) => Ok(read),
            // Its blocks are larger than this piece, or its filesystem has no such reads.
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.direct = None;
                self.file.read_at(into, at)
            }
            Some(Err(error)) => Err(error),
            None => self.file.read_at(into, at),
        }
    }

    fn begin(&mut self, range: Range<u64>) -> io::Result<()> {
        self.range(&range, libc::SYNC_FILE_RANGE_WRITE)
    }

    fn finish(&mut self, range: Range<u64>) -> io::Result<()> {
        let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        self.range(&range, all)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        Ok(posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }
}
