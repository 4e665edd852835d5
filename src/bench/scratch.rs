//! Where a benchmark may write. Level 0 never does: a device or a file is opened for reading alone. Level 1 makes a
//! temporary file in a folder that the operator named. This is the only file of the benchmark that opens or makes
//! anything for writing.

use crate::error::{Advise as _, Status};
use anyhow::{Context as _, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn reading_never_makes_and_never_writes() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(for_reading(&missing).is_err() && !missing.exists());
        for path in [dir.path(), Path::new("/dev/null"), Path::new("/proc/self/mem")] {
            assert!(for_reading(path).is_err(), "{}", path.display());
        }
        let path = dir.path().join("data");
        fs_err::write(&path, [1; 4096]).unwrap();
        // Not every filesystem has O_DIRECT.
        if let Ok(target) = for_reading(&path) {
            assert_eq!((target.bytes, target.writable), (4096, false));
            assert!(target.file.write_at(&[2; 4096], 0).is_err());
        }
        assert_eq!(fs_err::read(&path).unwrap(), [1; 4096]);
    }

    #[test]
    fn a_temporary_file_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        if let Ok(target) = temporary(dir.path(), 1 << 20) {
            assert_eq!((target.bytes, target.writable), (1 << 20, true));
            assert_eq!(target.file.metadata().unwrap().len(), 1 << 20);
        }
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        let error = temporary(dir.path(), u64::MAX).unwrap_err();
        assert!(crate::error::one_line(&error).contains("are more than half"), "{error:?}");
        assert!(temporary(Path::new("/nonexistent"), 1).is_err());
    }
}
