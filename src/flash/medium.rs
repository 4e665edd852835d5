//! What is written to. [`Disk::open`] is the only place of `gdsboot flash` that opens something for writing.

use crate::error::{Advise as _, Status};
use anyhow::{Context as _, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
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

/// A real one. While it is open, nobody can mount the disk or make anything of it.
#[derive(Debug)]
pub struct Disk {
    file: File,
}

impl Disk {
    /// Opens a whole disk, or a file that exists.
    ///
    /// # Errors
    /// It is in use, or this user may not write to it.
    pub fn open(path: &Path) -> Result<Self> {
        // Of a block device, O_EXCL means: nobody else has claimed it (open(2)). Nothing is created.
        let is_disk = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        let flags = libc::O_CLOEXEC | if is_disk { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("opening {} for writing", path.display()))
            .status(Status::Usage)
            .hint("disks are written by root, and only while nothing of them is mounted")?;
        Ok(Self { file })
    }

    /// The device's number, or the file's inode.
    pub fn identity(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        Ok(if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.ino() })
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
        self.file.read_at(into, at)
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
