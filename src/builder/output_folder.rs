//! A folder that the user asked for: written beside its place and moved there when it is whole. A web server may be serving
//! the old one meanwhile; it is exchanged in one step.

use crate::error::{Advise as _, Status, usage};
use anyhow::{Context as _, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::path::{Path, PathBuf};

/// Where a folder goes.
#[derive(Clone, Debug)]
pub struct OutputFolder {
    path: PathBuf,
    parent: PathBuf,
}

impl OutputFolder {
    /// Checks that a folder can be written to `path`: there is none, it is empty, or an earlier one that has the file `mark`.
    ///
    /// # Errors
    /// There is something else, whose contents would be lost; the folder around it is not there.
    pub fn new(path: &Path, mark: &str) -> Result<Self> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs_err::canonicalize(parent)
            .context("looking for the output's folder")
            .hint("make the folder around it first, or name another: -o DIR")
            .status(Status::Usage)?;
        let name =
            path.file_name().ok_or_else(|| usage("the output has no name", "name a folder: -o netboot"))?;
        let path = parent.join(name);
        if let Ok(meta) = fs_err::symlink_metadata(&path) {
            let is_ours =
                meta.is_dir() && (path.join(mark).is_file() || fs_err::read_dir(&path)?.next().is_none());
            if !is_ours {
                return Err(usage(
                    format!(
                        "{} exists and is no folder of an earlier build; what is in it would be lost",
                        path.display()
                    ),
                    "name another: -o DIR",
                ));
            }
        }
        Ok(Self { path, parent })
    }

    /// The path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the folder by `write`, which gets an empty one beside it, then puts it in its place.
    ///
    /// # Errors
    /// What `write` says; the old folder is as it was then.
    pub fn replace(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let shown = self.path.display();
        let temp = tempfile::Builder::new()
            .prefix(".gdsboot-")
            .tempdir_in(&self.parent)
            .with_context(|| format!("creating a folder in {}", self.parent.display()))?;
        write(temp.path())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(temp.path(), mode)?;
        fs_err::File::open(temp.path())?.sync_all()?;
        if self.path.exists() {
            // The old one takes the temporary one's name, and goes with it.
            renameat2(AT_FDCWD, temp.path(), AT_FDCWD, &self.path, RenameFlags::RENAME_EXCHANGE)
                .with_context(|| format!("replacing {shown}"))?;
            temp.close().with_context(|| format!("removing the old {shown}"))?;
        } else {
            fs_err::rename(temp.keep(), &self.path)?;
        }
        fs_err::File::open(&self.parent)?.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::status_of;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        let fill = |name: &'static str| move |to: &Path| Ok(fs_err::write(to.join(name), "x")?);
        OutputFolder::new(&path, "mark").unwrap().replace(fill("mark")).unwrap();
        let again = OutputFolder::new(&path, "mark").unwrap();
        again.replace(fill("new")).unwrap();
        assert_eq!((names(&path), names(dir.path())), (vec!["new".into()], vec!["net".into()]));
        assert!(again.replace(|_| anyhow::bail!("no")).is_err());
        assert_eq!((names(&path), names(dir.path())), (vec!["new".to_owned()], vec!["net".to_owned()]));
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("photos")).unwrap();
        OutputFolder::new(&dir.path().join("photos"), "mark").unwrap();
        fs_err::write(dir.path().join("photos/one"), "x").unwrap();
        for bad in ["photos", "photos/one", "none/net"] {
            let error = OutputFolder::new(&dir.path().join(bad), "mark").unwrap_err();
            assert_eq!(status_of(&error), Status::Usage, "{bad}");
        }
    }
}
