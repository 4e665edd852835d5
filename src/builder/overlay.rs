//! Overlays: what is added to an image on request. A name is a group of packages of the profile; a path (with a `/`) is a
//! folder whose files are laid over the root, at the same paths, owned by root.

use super::content::Content;
use super::tree::{Kind, Node, Tree};
use crate::error::{Advise as _, Status};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A file of a folder.
#[derive(Clone, Debug)]
struct Entry {
    /// Its path in the root.
    path: String,
    node: Node,
}

/// A folder, read.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its own name, for the manifest.
    pub name: String,
    entries: Vec<Entry>,
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Overlays {
    /// Groups of packages.
    pub names: Vec<String>,
    /// Folders of files.
    pub folders: Vec<Folder>,
}

impl Overlays {
    /// Sorts words into names and folders, and reads the folders.
    ///
    /// # Errors
    /// A folder is not there, or holds something that is neither a file, a folder nor a link.
    pub fn new(words: &[String]) -> Result<Self> {
        let (folders, names): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| word.contains('/'));
        let folders = folders.into_iter().map(|word| Folder::read(Path::new(word))).collect::<Result<_>>()?;
        Ok(Self { names: names.into_iter().cloned().collect(), folders })
    }

    /// All of them, as the manifest names them.
    pub fn words(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.folders.iter().map(|folder| folder.name.clone())).collect()
    }

    /// Has one of the folders this file or link?
    pub fn bring(&self, path: &str) -> bool {
        let mut entries = self.folders.iter().flat_map(|folder| &folder.entries);
        entries.any(|entry| entry.path == path && !matches!(entry.node.kind, Kind::Directory))
    }

    /// Identifies what is in the folders.
    ///
    /// # Errors
    /// A file can no longer be read.
    pub fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for Entry { path, node } in self.folders.iter().flat_map(|folder| &folder.entries) {
            hash.update(format!("{path}\0{:o}\0", node.mode));
            match &node.kind {
                Kind::Symlink(target) => hash.update(format!("link {target}\0")),
                Kind::File(content) => {
                    hash.update(Sha256::digest(content.read().with_context(|| format!("reading {path}"))?))
                }
                Kind::Directory | Kind::CharDevice { .. } => hash.update("folder\0"),
            }
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Lays the folders over a root, the first one first.
    ///
    /// # Errors
    /// A file would lie where the root has a folder, or the other way round.
    pub fn lay(&self, tree: &mut Tree) -> Result<()> {
        for folder in &self.folders {
            for Entry { path, node } in &folder.entries {
                let is_folder = matches!(node.kind, Kind::Directory);
                if is_folder && tree.resolve(path).is_ok_and(|real| tree.get(&real).is_some()) {
                    continue;
                }
                tree.insert(path, node.clone())
                    .with_context(|| format!("laying the overlay {} over the root", folder.name))?;
            }
        }
        Ok(())
    }
}

impl Folder {
    fn read(folder: &Path) -> Result<Self> {
        let mut entries = Vec::new();
        let read = add(folder, folder, &mut entries).and_then(|()| match entries.is_empty() {
            true => bail!("it is empty"),
            false => Ok(()),
        });
        read.with_context(|| format!("reading the overlay {}", folder.display()))
            .hint("name a folder that mirrors the root: usr/bin/program in it becomes /usr/bin/program")
            .status(Status::Usage)?;
        let name =
            folder.file_name().map_or_else(|| "overlay".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, entries })
    }
}

fn add(top: &Path, folder: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let mut inside: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    // Nothing may depend on the order in which a filesystem has them.
    inside.sort();
    for path in inside {
        let metadata = std::fs::symlink_metadata(&path)?;
        let name =
            path.strip_prefix(top)?.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
        let kind = if metadata.is_symlink() {
            let target = std::fs::read_link(&path)?;
            Kind::Symlink(target.to_str().with_context(|| format!("{name} leads to no UTF-8"))?.to_owned())
        } else if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_file() {
            Kind::File(Content::of_file(&path)?)
        } else {
            bail!("{name} is neither a file, a folder nor a link")
        };
        // Whose umask made the folder is no part of the image.
        let mode = match &kind {
            Kind::Symlink(_) => 0o777,
            Kind::File(_) if metadata.permissions().mode() & 0o111 == 0 => 0o644,
            _ => 0o755,
        };
        let is_folder = matches!(kind, Kind::Directory);
        entries.push(Entry { path: name.to_owned(), node: Node { kind, mode, uid: 0, gid: 0 } });
        if is_folder {
            add(top, &path, entries)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hint_of, one_line};

    fn overlays(words: &[&str]) -> Result<Overlays> {
        Overlays::new(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_folder_is_laid_over_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mine");
        fs_err::create_dir_all(folder.join("lib/x")).unwrap();
        fs_err::write(folder.join("lib/x/new"), "new").unwrap();
        fs_err::write(folder.join("lib/run"), "#!/bin/sh\n").unwrap();
        fs_err::set_permissions(folder.join("lib/run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("x/new", folder.join("lib/link")).unwrap();
        let path = folder.to_str().unwrap();
        let overlays = overlays(&["debug", path]).unwrap();
        assert_eq!((overlays.names.as_slice(), overlays.words().len()), (&["debug".to_owned()][..], 2));
        assert_eq!(overlays.words()[1], "mine");
        let mut tree = Tree::new();
        tree.insert_directory("usr/lib").unwrap();
        tree.insert_link("lib", "usr/lib").unwrap();
        tree.insert_file("usr/lib/link", b"old".to_vec()).unwrap();
        overlays.lay(&mut tree).unwrap();
        // Where the root's own links lead.
        assert_eq!(tree.file("usr/lib/x/new").unwrap().read().unwrap(), b"new");
        assert_eq!(tree.get("usr/lib/run").unwrap().mode, 0o755);
        assert!(
            matches!(&tree.get("usr/lib/link").unwrap().kind, Kind::Symlink(target) if target == "x/new")
        );
        assert!(matches!(tree.get("lib").unwrap().kind, Kind::Symlink(_)));
    }

    #[test]
    fn the_key_is_that_of_the_content() {
        let make = |text: &str, mode: u32| {
            let dir = tempfile::tempdir().unwrap();
            fs_err::write(dir.path().join("a"), text).unwrap();
            fs_err::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(mode)).unwrap();
            overlays(&[dir.path().to_str().unwrap()]).unwrap().key().unwrap()
        };
        assert_eq!(make("x", 0o600), make("x", 0o644));
        assert_ne!(make("x", 0o600), make("y", 0o600));
        assert_ne!(make("x", 0o600), make("x", 0o755));
    }

    #[test]
    fn folders_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().to_str().unwrap();
        let pipe = dir.path().join("with/pipe");
        fs_err::create_dir(dir.path().join("with")).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs_err::create_dir(dir.path().join("empty")).unwrap();
        for (word, why) in [
            (format!("{empty}/missing"), "No such file"),
            (format!("{empty}/empty"), "it is empty"),
            (format!("{empty}/with"), "pipe is neither a file"),
        ] {
            let error = overlays(&[&word]).unwrap_err();
            assert!(one_line(&error).contains(why), "{error:#}");
            assert!(hint_of(&error).unwrap().contains("mirrors the root"));
        }
        let mut tree = Tree::new();
        tree.insert_file("a/b", b"x".to_vec()).unwrap();
        fs_err::write(dir.path().join("empty/a"), "file").unwrap();
        let overlays = overlays(&[&format!("{empty}/empty")]).unwrap();
        assert!(one_line(&overlays.lay(&mut tree).unwrap_err()).contains("laying the overlay empty"));
    }
}
