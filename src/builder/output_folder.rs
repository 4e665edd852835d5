//! A folder that the user asked for: written beside its place and moved there when it is whole. A web server may be serving
//! the old one meanwhile; it is exchanged in one step, where the filesystem can do that. Nothing is ever removed but files
//! that a build makes: whatever else lies there is somebody's.

use crate::error::{Advise as _, Status, usage};
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a folder goes.
#[derive(Clone, Debug)]
pub struct OutputFolder {
    path: PathBuf,
    parent: PathBuf,
    made: Made,
}

/// The names of the files that a build makes.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// All of them.
    pub names: &'static [&'static str],
    /// Those that together stand in no folder but a build's: others have a kernel and a README as well.
    pub marks: &'static [&'static str],
}

impl OutputFolder {
    /// Checks that a folder can be written to `path`: there is none, it is empty, or it is an earlier build's and nothing else
    /// is in it.
    ///
    /// # Errors
    /// There is something else, which would be lost; the folder around it is not there.
    pub fn new(path: &Path, made: Made) -> Result<Self> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs_err::canonicalize(parent)
            .context("looking for the output's folder")
            .hint("make the folder around it first, or name another: -o DIR")
            .status(Status::Usage)?;
        let name =
            path.file_name().ok_or_else(|| usage("the output has no name", "name a folder: -o netboot"))?;
        let folder = Self { path: parent.join(name), parent, made };
        folder.check()?;
        Ok(folder)
    }

    /// Is there nothing that would be lost?
    fn check(&self) -> Result<()> {
        let shown = self.path.display();
        let hint = "name another folder (-o DIR), or move that away";
        match fs_err::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(usage(format!("{shown} exists and is no folder"), hint)),
        }
        let mut found = Vec::new();
        for entry in fs_err::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = self.made.names.iter().find(|ours| name == **ours);
            let Some(ours) = ours.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) else {
                let name = name.to_string_lossy();
                return Err(usage(
                    format!("{shown} has {name}, which no build made and which would be lost"),
                    hint,
                ));
            };
            found.push(*ours);
        }
        let missing = self.made.marks.iter().find(|mark| !found.contains(mark));
        match (found.first(), missing) {
            (Some(first), Some(missing)) => Err(usage(
                format!("{shown} has {first} and no {missing}: no build made that, and it would be lost"),
                hint,
            )),
            _ => Ok(()),
        }
    }

    /// The path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the folder by `write`, which gets an empty one beside it, then puts it in its place.
    ///
    /// # Errors
    /// What `write` says, or something came into the old folder meanwhile; that is as it was then.
    pub fn replace(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.replace_by(write, |new, old| {
            renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE)
        })
    }

    fn replace_by(
        &self,
        write: impl FnOnce(&Path) -> Result<()>,
        exchange: impl FnOnce(&Path, &Path) -> nix::Result<()>,
    ) -> Result<()> {
        let temp = tempfile::Builder::new()
            .prefix(".gdsboot-")
            .tempdir_in(&self.parent)
            .with_context(|| format!("creating a folder in {}", self.parent.display()))?;
        write(temp.path())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(temp.path(), mode)?;
        fs_err::File::open(temp.path())?.sync_all()?;
        // Building took minutes.
        self.check()?;
        if self.path.exists() {
            let old = self.put_in_place(temp.path(), exchange)?;
            // From here on the temporary folder's name may be that of the old one.
            let _ = temp.keep();
            self.remove(&old)?;
        } else {
            fs_err::rename(temp.path(), &self.path)?;
            let _ = temp.keep();
        }
        fs_err::File::open(&self.parent)?.sync_all()?;
        Ok(())
    }

    /// Puts `new` in the old one's place, and tells where that is now.
    fn put_in_place(
        &self,
        new: &Path,
        exchange: impl FnOnce(&Path, &Path) -> nix::Result<()>,
    ) -> Result<PathBuf> {
        let shown = self.path.display();
        match exchange(new, &self.path) {
            Ok(()) => Ok(new.to_owned()),
            // NFS and others cannot exchange (rename(2)); for a moment there is none.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                let old = new.with_extension("old");
                fs_err::rename(&self.path, &old)?;
                if let Err(error) = fs_err::rename(new, &self.path) {
                    fs_err::rename(&old, &self.path).with_context(|| format!("putting back {shown}"))?;
                    return Err(error.into());
                }
                Ok(old)
            }
            Err(error) => Err(error).with_context(|| format!("replacing {shown}")),
        }
    }

    /// Removes what a build made from an old folder, and that, where nothing else is in it.
    fn remove(&self, old: &Path) -> Result<()> {
        let files = self.made.names.iter().map(|name| fs_err::remove_file(old.join(name)));
        let files = files.map(|removed| match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        });
        files
            .collect::<std::io::Result<()>>()
            .and_then(|()| fs_err::remove_dir(old))
            .with_context(|| format!("removing the old {}", self.path.display()))
            .hint(format!("the new one is in its place; look at what is left in {}", old.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::status_of;

    const MADE: Made = Made { names: &["mark", "new"], marks: &["mark"] };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fill(names: &'static [&'static str]) -> impl FnOnce(&Path) -> Result<()> {
        move |to| names.iter().try_for_each(|name| Ok(fs_err::write(to.join(name), "x")?))
    }

    #[test]
    fn it_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        OutputFolder::new(&path, MADE).unwrap().replace(fill(&["mark", "new"])).unwrap();
        let again = OutputFolder::new(&path, MADE).unwrap();
        again.replace(fill(&["mark"])).unwrap();
        assert_eq!((names(&path), names(dir.path())), (vec!["mark".into()], vec!["net".into()]));
        assert!(again.replace(|_| anyhow::bail!("no")).is_err());
        assert_eq!((names(&path), names(dir.path())), (vec!["mark".to_owned()], vec!["net".to_owned()]));
    }

    #[test]
    fn a_filesystem_that_cannot_exchange_takes_two_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        let folder = OutputFolder::new(&path, MADE).unwrap();
        folder.replace(fill(&["mark", "new"])).unwrap();
        folder.replace_by(fill(&["mark"]), |_, _| Err(Errno::EINVAL)).unwrap();
        assert_eq!((names(&path), names(dir.path())), (vec!["mark".into()], vec!["net".into()]));
        let error = folder.replace_by(fill(&["new"]), |_, _| Err(Errno::EACCES)).unwrap_err();
        assert!(format!("{error:#}").starts_with("replacing "), "{error:#}");
        assert_eq!((names(&path), names(dir.path())), (vec!["mark".to_owned()], vec!["net".to_owned()]));
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("photos")).unwrap();
        OutputFolder::new(&dir.path().join("photos"), MADE).unwrap();
        fs_err::write(dir.path().join("photos/one"), "x").unwrap();
        // An earlier build's, to which something was added; a folder with a file's name; names that others use too.
        fs_err::create_dir_all(dir.path().join("web/reports")).unwrap();
        fs_err::write(dir.path().join("web/mark"), "x").unwrap();
        fs_err::create_dir_all(dir.path().join("odd/mark")).unwrap();
        fs_err::create_dir(dir.path().join("kernels")).unwrap();
        fs_err::write(dir.path().join("kernels/new"), "x").unwrap();
        for (bad, why) in [
            ("photos", "has one, which"),
            ("photos/one", "is no folder"),
            ("none/net", "looking for"),
            ("web", "has reports, which"),
            ("odd", "has mark, which"),
            ("kernels", "has new and no mark"),
        ] {
            let error = OutputFolder::new(&dir.path().join(bad), MADE).unwrap_err();
            assert_eq!(status_of(&error), Status::Usage, "{bad}");
            assert!(error.to_string().contains(why), "{error:#}");
        }
    }

    #[test]
    fn what_comes_while_it_is_built_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        let folder = OutputFolder::new(&path, MADE).unwrap();
        folder.replace(fill(&["mark"])).unwrap();
        let report = path.join("report.json");
        let late = |to: &Path| {
            fs_err::write(&report, "x")?;
            fill(&["new"])(to)
        };
        assert!(folder.replace(late).unwrap_err().to_string().contains("has report.json, which"));
        assert_eq!(
            (names(&path), names(dir.path())),
            (vec!["mark".into(), "report.json".into()], vec!["net".into()])
        );
        // Even in the last moment: it goes with the old folder, and that stays; also where it has a file's name.
        for (late, files) in [("report.json", &["new"]), ("new/x", &["mark"])] {
            let _ = fs_err::remove_dir_all(&path);
            folder.replace(fill(&["mark"])).unwrap();
            let exchange = |new: &Path, old: &Path| {
                fs_err::create_dir_all(path.join(late).parent().unwrap()).unwrap();
                fs_err::write(path.join(late), "x").unwrap();
                renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE)
            };
            let error = folder.replace_by(fill(files), exchange).unwrap_err();
            assert_eq!(names(&path), *files);
            let kept = names(dir.path()).into_iter().find(|name| name != "net").unwrap();
            assert!(dir.path().join(&kept).join(late).is_file());
            assert!(crate::error::hint_of(&error).unwrap().contains(&kept), "{error:#}");
            fs_err::remove_dir_all(dir.path().join(kept)).unwrap();
        }
    }
}
