//! What bytes of a disk come from: a file, a block device or a qcow2 image, opened for reading and nothing else.

use super::qcow2::Qcow2;
use crate::bench::scratch::signatures::{self, Ends};
use crate::error::{Advise as _, Status, hinted};
use crate::report::fat::ReadAt;
use crate::report::gpt::Table;
use crate::report::kind::Kind;
use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Group};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// How much of each end of a disk is looked at to say what it is.
const END: u64 = 1 << 20;

/// The bytes of a disk.
#[derive(Debug)]
pub enum Disk {
    /// As they are in a file or on a block device.
    Raw {
        /// The file or device.
        file: File,
        /// Bytes.
        size: u64,
    },
    /// In a qcow2 image.
    Qcow2(Qcow2<File>),
}

impl Disk {
    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    /// It cannot be opened, with the hint that helps; it is a qcow2 image that cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).map_err(|error| may_not(path, error))?;
        Self::of(file).with_context(|| format!("reading {shown}")).status(Status::Usage)
    }

    /// What is in an open file or device.
    ///
    /// # Errors
    /// It is a qcow2 image that cannot be read.
    pub fn of(mut file: File) -> Result<Self> {
        let size = file.seek(SeekFrom::End(0)).context("finding its size")?;
        if Kind::of(&file) == Kind::Qcow2 {
            return Qcow2::open(file, size).map(Self::Qcow2);
        }
        Ok(Self::Raw { file, size })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Raw { size, .. } => *size,
            Self::Qcow2(image) => image.size(),
        }
    }

    /// Its partition table.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn table(&self) -> Result<Table> {
        Table::read(&mut Cursor { disk: self, at: 0 })
    }

    /// What stands at its ends, in words: `ext4, LUKS`; `nothing` where both are blank.
    pub fn content(&self) -> String {
        let part = |from: u64, to: u64| {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
            self.read_exact_at(&mut bytes, from).map(|()| bytes).unwrap_or_default()
        };
        let bytes = self.size();
        let first = part(0, bytes.min(END));
        let last = part(bytes.saturating_sub(END), bytes);
        let mut names: Vec<String> = Vec::new();
        for found in signatures::find(&Ends { first: &first, last: &last, bytes }) {
            if !names.contains(&found.name) {
                names.push(found.name);
            }
        }
        match names.is_empty() {
            false => names.join(", "),
            true if first.iter().chain(&last).all(|byte| *byte == 0) => "nothing".into(),
            true => "something that has no name here".into(),
        }
    }
}

impl ReadAt for Disk {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Raw { file, .. } => ReadAt::read_exact_at(file, buf, offset),
            Self::Qcow2(image) => image.read_exact_at(buf, offset),
        }
    }
}

/// Why a file or device could not be opened, and who may open it.
fn may_not(path: &Path, error: io::Error) -> anyhow::Error {
    let shown = path.display();
    let said = format!("opening {shown}: {error}");
    let meta = std::fs::metadata(path).ok();
    let Some(meta) = meta.filter(|_| error.kind() == io::ErrorKind::PermissionDenied) else {
        let open = Err::<(), _>(error).context(format!("opening {shown}"));
        let open = open.hint("name an image, a stick, a folder with reports, or a report.json");
        return open.status(Status::Usage).unwrap_err();
    };
    if !meta.file_type().is_block_device() {
        return hinted(said, format!("you may not read it: `ls -l {shown}` says who may"));
    }
    let group = Group::from_gid(Gid::from_raw(meta.gid())).ok().flatten();
    let group = group.map_or_else(|| meta.gid().to_string(), |group| group.name);
    hinted(said, who_may_read(meta.mode(), &group))
}

/// Who may read a block device of this mode and group, and how to be one of them.
fn who_may_read(mode: u32, group: &str) -> String {
    let join = match mode & 0o040 != 0 && group != "root" {
        true => format!(
            "its group {group} may read it: join that (`sudo usermod -aG {group} $USER`, then log in again), or run"
        ),
        false => "root alone may read it: run".into(),
    };
    format!("{join} this with sudo; or mount the stick and name the folder")
}

/// A disk as a stream.
struct Cursor<'a> {
    disk: &'a Disk,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.disk.size().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = left.min(buf.len());
        self.disk.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hint_of, one_line, status_of};

    #[test]
    fn who_may_not_read_is_told_who_may() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let error = may_not(Path::new("/proc/version"), denied());
        assert_eq!(one_line(&error), "opening /proc/version: permission denied");
        assert_eq!(status_of(&error), Status::Unavailable);
        assert!(hint_of(&error).unwrap().contains("`ls -l /proc/version`"));
        let group = who_may_read(0o060_660, "disk");
        assert!(
            group.starts_with("its group disk may read it: join that (`sudo usermod -aG disk $USER`"),
            "{group}"
        );
        // Whoever joined such a group could still not read it, or could do anything.
        for (mode, group) in [(0o060_600, "disk"), (0o060_600, "root"), (0o060_660, "root")] {
            let hint = who_may_read(mode, group);
            assert_eq!(
                hint, "root alone may read it: run this with sudo; or mount the stick and name the folder",
                "{mode:o} {group}"
            );
        }
    }

    #[test]
    fn a_stream_of_a_disk_ends_where_the_disk_does() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let disk = Disk::Raw { file, size: 10 };
        let mut cursor = Cursor { disk: &disk, at: 0 };
        assert_eq!(cursor.seek(SeekFrom::End(-4)).unwrap(), 6);
        let mut buf = [1; 8];
        assert_eq!(cursor.read(&mut buf).unwrap(), 4);
        assert_eq!(cursor.read(&mut buf).unwrap(), 0);
        assert_eq!(cursor.seek(SeekFrom::Current(5)).unwrap(), 15);
        assert_eq!(cursor.read(&mut buf).unwrap(), 0);
        assert!(cursor.seek(SeekFrom::End(-11)).is_err());
    }
}
