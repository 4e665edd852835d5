//! The file that the user asked for: checked before work begins, replaced by a rename when it is whole.

use crate::error::{Advise as _, Status, hinted, usage};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Where an image goes.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
    folder: PathBuf,
}

/// What an output was when it was written; as long as the file is still that, building it again would change nothing.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    key: String,
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
}

impl Output {
    /// Checks that an image can be written to `path`.
    ///
    /// # Errors
    /// A device (that is `flash`'s work), a folder, a folder that does not exist or cannot be written to.
    pub fn new(path: &Path) -> Result<Self> {
        if let Ok(meta) = fs_err::metadata(path) {
            let kind = meta.file_type();
            if kind.is_block_device() || kind.is_char_device() {
                return Err(usage(
                    format!("{} is a device, and build writes files only", path.display()),
                    "build a file, then copy it to the stick; nothing was written",
                ));
            }
            if !kind.is_file() {
                return Err(usage(
                    format!("{} is not a regular file", path.display()),
                    "name a file: -o gdsboot.img",
                ));
            }
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = fs_err::canonicalize(folder)
            .context("looking for the output's folder")
            .hint("make the folder first, or name another file: -o FILE")
            .status(Status::Usage)?;
        let name =
            path.file_name().ok_or_else(|| usage("the output has no file name", "name a file: -o FILE"))?;
        // Tried for real: permissions do not tell of read-only filesystems, nor of root's rights.
        tempfile::NamedTempFile::new_in(&folder).map_err(|e| {
            hinted(format!("cannot write in {}: {e}", folder.display()), "name another file: -o FILE")
        })?;
        Ok(Self { path: folder.join(name), folder })
    }

    /// The path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder it lies in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file beside the output that has no name, and so is gone with gdsboot.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn scratch(&self) -> Result<std::fs::File> {
        tempfile::tempfile_in(&self.folder)
            .with_context(|| format!("creating a file in {}", self.folder.display()))
    }

    /// Is the file there what a build with this key wrote?
    pub fn is_current(&self, stamps: &Path, key: &str) -> bool {
        let recorded: Option<Stamp> =
            fs_err::read(self.stamp_path(stamps)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        recorded.is_some() && recorded == self.stamp(key)
    }

    /// Writes the file by `write`, which gets a temporary file in the same folder, then moves it into its place.
    ///
    /// # Errors
    /// `write` fails, or the folder takes no file.
    pub fn write(&self, write: impl FnOnce(&std::fs::File) -> Result<()>) -> Result<()> {
        let temp = self.whole(write)?;
        temp.persist(&self.path).with_context(|| format!("writing {}", self.path.display()))?;
        Ok(())
    }

    /// The same, and remembers what was written, for [`Output::is_current`].
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn replace(
        &self,
        stamps: &Path,
        key: &str,
        write: impl FnOnce(&std::fs::File) -> Result<()>,
    ) -> Result<()> {
        self.write(write)?;
        if let Some(stamp) = self.stamp(key) {
            fs_err::create_dir_all(stamps)?;
            let bytes = serde_json::to_vec(&stamp).context("recording the output")?;
            fs_err::write(self.stamp_path(stamps), bytes)?;
        }
        Ok(())
    }

    /// Writes the file as [`Self::replace`] does, where there is none yet.
    ///
    /// # Errors
    /// There is one: it stays as it is.
    pub fn create(&self, write: impl FnOnce(&std::fs::File) -> Result<()>) -> Result<()> {
        let shown = self.path.display();
        let exists =
            || usage(format!("{shown} exists, and what is in it would be lost"), "name another: -o FILE");
        if fs_err::symlink_metadata(&self.path).is_ok() {
            return Err(exists());
        }
        let temp = self.whole(write)?;
        match temp.persist_noclobber(&self.path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
            Err(error) => Err(error).with_context(|| format!("writing {shown}")),
        }
    }

    /// A temporary file beside the output, written and on the disk.
    fn whole(&self, write: impl FnOnce(&std::fs::File) -> Result<()>) -> Result<tempfile::NamedTempFile> {
        let temp = tempfile::Builder::new()
            .prefix(".gdsboot-")
            .tempfile_in(&self.folder)
            .with_context(|| format!("creating a file in {}", self.folder.display()))?;
        write(temp.as_file())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temp.as_file().set_permissions(mode).with_context(|| format!("writing {}", self.path.display()))?;
        temp.as_file().sync_data().with_context(|| format!("writing {}", self.path.display()))?;
        Ok(temp)
    }

    fn stamp(&self, key: &str) -> Option<Stamp> {
        let meta = fs_err::metadata(&self.path).ok()?;
        Some(Stamp {
            key: key.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        })
    }

    fn stamp_path(&self, stamps: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        stamps.join(hex::encode(&Sha256::digest(self.path.as_os_str().as_bytes())[..16]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::status_of;
    use std::io::Write as _;

    #[test]
    fn devices_folders_and_missing_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [Path::new("/dev/null"), dir.path(), &dir.path().join("no/such/x.img")] {
            assert_eq!(status_of(&Output::new(bad).unwrap_err()), Status::Usage, "{}", bad.display());
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, stamps) = (dir.path().join("x.img"), dir.path().join("stamps"));
        fs_err::write(&path, "old").unwrap();
        let output = Output::new(&path).unwrap();
        let failed = output.replace(&stamps, "k", |mut file| {
            file.write_all(b"half")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_created_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(&dir.path().join("x.img")).unwrap();
        output.create(|mut file| Ok(file.write_all(b"first")?)).unwrap();
        let error = output.create(|_| unreachable!("it exists")).unwrap_err();
        assert_eq!(status_of(&error), Status::Usage);
        assert_eq!(fs_err::read(output.path()).unwrap(), b"first");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_output_is_current_until_anything_about_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, stamps) = (dir.path().join("x.img"), dir.path().join("stamps"));
        let output = Output::new(&path).unwrap();
        output.replace(&stamps, "k", |mut file| Ok(file.write_all(b"new")?)).unwrap();
        assert!(output.is_current(&stamps, "k"));
        assert!(!output.is_current(&stamps, "other"));
        fs_err::write(&path, "booted").unwrap();
        assert!(!output.is_current(&stamps, "k"));
    }
}
