//! A file tree in memory: path -> metadata and where the bytes are.
//!
//! Paths are relative, without `.` or `..`, and real: a package that ships `lib/modules/x` into a tree where `lib` is a
//! link to `usr/lib` puts `usr/lib/modules/x` there, as dpkg does. Links are resolved inside the tree alone, so no path,
//! however it was spelled, can name something outside of it.

use super::content::Content;
use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A merged file tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// One entry of a tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-user-id and the like: `0o7777` at most.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file. Hard links are files that share their content.
    File(Content),
    /// A symbolic link and its target, as written.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Links followed in one path before it counts as a loop; the kernel's own limit (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node whose path comes from an archive; returns the path it really has.
    ///
    /// Parents that are missing are made as `0755 root:root`. A folder over a link to a folder leaves the link, as dpkg
    /// does. Anything else over something of another kind is an error, except that a file replaces a file.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<String> {
        let real = self.resolve_parent(path)?;
        if real.is_empty() {
            ensure!(matches!(node.kind, Kind::Directory), "{path:?} is the root and not a folder");
            return Ok(real);
        }
        self.make_parents(&real)?;
        if let Some(old) = self.nodes.get(&real) {
            match (&old.kind, &node.kind) {
                (Kind::Symlink(a), Kind::Symlink(b)) if a == b => return Ok(real),
                (Kind::Symlink(_), Kind::Directory) => {
                    let target = self.resolve(&real)?;
                    self.make_parents(&target)?;
                    if !target.is_empty() {
                        let made = self.nodes.entry(target.clone()).or_insert(node);
                        ensure!(
                            matches!(made.kind, Kind::Directory),
                            "{path} is a folder here and a link to a file there"
                        );
                    }
                    return Ok(target);
                }
                (Kind::Directory, Kind::Directory)
                | (Kind::File(_) | Kind::Symlink(_), Kind::File(_) | Kind::Symlink(_)) => {}
                (Kind::Directory, _) if !self.has_children(&real) => {}
                _ => bail!("{path} is of two kinds: {} and {}", old.kind.name(), node.kind.name()),
            }
        }
        self.nodes.insert(real.clone(), node);
        Ok(real)
    }

    /// Adds a file `0644 root:root`.
    pub fn insert_file(&mut self, path: &str, content: impl Into<Content>) -> Result<()> {
        self.insert(path, Node { kind: Kind::File(content.into()), mode: 0o644, uid: 0, gid: 0 }).map(drop)
    }

    /// Adds a file `0755 root:root`.
    pub fn insert_program(&mut self, path: &str, content: impl Into<Content>) -> Result<()> {
        self.insert(path, Node { kind: Kind::File(content.into()), mode: 0o755, uid: 0, gid: 0 }).map(drop)
    }

    /// Adds a folder `0755 root:root`, unless there is one.
    pub fn insert_directory(&mut self, path: &str) -> Result<()> {
        if self.get(path).is_some_and(|n| matches!(n.kind, Kind::Directory)) {
            return Ok(());
        }
        self.insert(path, Node::directory()).map(drop)
    }

    /// Adds a symbolic link.
    pub fn insert_link(&mut self, path: &str, target: impl Into<String>) -> Result<()> {
        let kind = Kind::Symlink(target.into());
        self.insert(path, Node { kind, mode: 0o777, uid: 0, gid: 0 }).map(drop)
    }

    /// The node at exactly this path (links are not followed).
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at exactly this path, to be changed.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// The file at a path, links followed.
    pub fn file(&self, path: &str) -> Result<&Content> {
        let real = self.resolve(path)?;
        match self.nodes.get(&real).map(|n| &n.kind) {
            Some(Kind::File(content)) => Ok(content),
            Some(other) => bail!("{path} is a {} and not a file", other.name()),
            None => bail!("there is no {path}"),
        }
    }

    /// All entries, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// All entries below a folder (which must be given by its real path).
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let prefix = format!("{folder}/");
        let from = (std::ops::Bound::Included(prefix.clone()), std::ops::Bound::Unbounded);
        let entries = self.nodes.range::<String, _>(from);
        entries
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Removes one entry and all that is below it.
    pub fn remove(&mut self, path: &str) {
        self.nodes.remove(path);
        let below: Vec<_> = self.below(path).map(|(p, _)| p.to_owned()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// Keeps what `keep` says, and the folders that lead to it.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Node) -> bool) {
        self.nodes.retain(|path, node| keep(path, node));
        let paths: Vec<String> = self.nodes.keys().cloned().collect();
        for path in paths {
            let mut end = path.len();
            while let Some(slash) = path[..end].rfind('/') {
                self.nodes.entry(path[..slash].to_owned()).or_insert_with(Node::directory);
                end = slash;
            }
        }
    }

    /// Where a path leads when every link in it is followed inside the tree. The last part need not exist.
    pub fn resolve(&self, path: &str) -> Result<String> {
        self.walk(path, true)
    }

    /// Like [`Self::resolve`], but the last part is not followed.
    pub fn resolve_parent(&self, path: &str) -> Result<String> {
        self.walk(path, false)
    }

    fn walk(&self, path: &str, follow_last: bool) -> Result<String> {
        let mut todo: Vec<String> = parts(path)?;
        todo.reverse();
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                ensure!(real.pop().is_some(), "{path:?} leads out of the tree");
                continue;
            }
            real.push(part);
            if todo.is_empty() && !follow_last {
                break;
            }
            if let Some(Node { kind: Kind::Symlink(target), .. }) = self.nodes.get(&real.join("/")) {
                links += 1;
                ensure!(links <= MAX_LINKS, "{path:?} goes through more than {MAX_LINKS} symbolic links");
                real.pop();
                if target.starts_with('/') {
                    real.clear();
                }
                todo.extend(link_parts(target).rev());
            }
        }
        Ok(real.join("/"))
    }

    fn make_parents(&mut self, real: &str) -> Result<()> {
        for (slash, _) in real.match_indices('/') {
            let parent = &real[..slash];
            match self.nodes.get(parent).map(|n| &n.kind) {
                Some(Kind::Directory) => {}
                Some(other) => bail!("{real} lies below {parent}, which is a {}", other.name()),
                None => {
                    self.nodes.insert(parent.to_owned(), Node::directory());
                }
            }
        }
        Ok(())
    }

    fn has_children(&self, real: &str) -> bool {
        self.below(real).next().is_some()
    }

    /// Writes the tree out, below a folder that exists and is empty. Owners and devices are not made: what runs in such
    /// a root sees one user.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        let mut writable_later = Vec::new();
        for (path, node) in &self.nodes {
            let to = folder.join(path);
            match &node.kind {
                Kind::Directory => {
                    fs_err::create_dir(&to)?;
                    // A folder that its owner may not write to would refuse its own content.
                    if node.mode & 0o700 != 0o700 {
                        writable_later.push(to);
                    }
                }
                Kind::File(content) => {
                    let mode = node.mode & 0o777 | 0o200;
                    let mut options = std::fs::OpenOptions::new();
                    let file = options.write(true).create_new(true).mode(mode).open(&to);
                    let mut file = file.with_context(|| format!("creating {}", to.display()))?;
                    copy(content, &mut file).with_context(|| format!("writing {}", to.display()))?;
                }
                Kind::Symlink(target) => std::os::unix::fs::symlink(target, &to)
                    .with_context(|| format!("creating the link {}", to.display()))?,
                Kind::CharDevice { .. } => {}
            }
        }
        Ok(())
    }

    /// The tree as a tar stream: sorted, numeric owners, every time set to `epoch` (seconds since 1970 UTC).
    pub fn write_tar(&self, out: impl Write, epoch: u64) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, node) in &self.nodes {
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.uid.into());
            header.set_gid(node.gid.into());
            header.set_mtime(epoch);
            header.set_size(0);
            let write = match &node.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())
                }
                Kind::File(content) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(content.len());
                    tar.append_data(&mut header, path, content.reader())
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, path, target)
                }
                Kind::CharDevice { major, minor } => {
                    header.set_entry_type(tar::EntryType::Char);
                    header.set_device_major(*major)?;
                    header.set_device_minor(*minor)?;
                    tar.append_data(&mut header, path, io::empty())
                }
            };
            write.with_context(|| format!("writing {path} into a tar stream"))?;
        }
        tar.into_inner().context("ending a tar stream")?.flush().context("ending a tar stream")
    }

    /// One line per entry (`mode uid gid kind path ...`), with a hash for each file: what two builds are compared by.
    pub fn listing(&self) -> Result<Vec<(String, String)>> {
        let mut lines = Vec::with_capacity(self.nodes.len());
        for (path, node) in &self.nodes {
            let what = match &node.kind {
                Kind::Directory => "folder".to_owned(),
                Kind::Symlink(target) => format!("link {target}"),
                Kind::CharDevice { major, minor } => format!("device {major}:{minor}"),
                Kind::File(content) => {
                    let mut hash = Sha256::new();
                    copy(content, &mut HashWriter(&mut hash)).with_context(|| format!("hashing {path}"))?;
                    format!("file {}", hex::encode(hash.finalize()))
                }
            };
            lines.push((path.clone(), format!("{:04o} {}:{} {what}", node.mode, node.uid, node.gid)));
        }
        Ok(lines)
    }
}

impl Node {
    /// A folder `0755 root:root`.
    pub fn directory() -> Self {
        Self { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0 }
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Directory => "folder",
            Self::File(_) => "file",
            Self::Symlink(_) => "symbolic link",
            Self::CharDevice { .. } => "device",
        }
    }
}

/// Copies content by the kernel's own means where it can.
fn copy(content: &Content, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut reader = content.reader();
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => out.write_all(&buffer[..n])?,
        }
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The parts of an archive member's path. A leading `./` is how tar writes it; a leading `/` or any `..` is refused.
fn parts(path: &str) -> Result<Vec<String>> {
    ensure!(!path.starts_with('/'), "the absolute path {path:?} is refused");
    ensure!(!path.contains('\0'), "{path:?} holds a NUL byte");
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => bail!("the path {path:?} contains \"..\""),
            _ => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

/// The parts of a link's target, where `..` is allowed.
fn link_parts(target: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    target.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: &str) -> Node {
        Node { kind: Kind::File(bytes.as_bytes().to_vec().into()), mode: 0o644, uid: 0, gid: 0 }
    }

    fn merged() -> Tree {
        let mut tree = Tree::new();
        tree.insert_directory("usr/lib").unwrap();
        tree.insert_link("lib", "usr/lib").unwrap();
        tree
    }

    #[test]
    fn paths_below_a_merged_folder_become_real() {
        let mut tree = merged();
        assert_eq!(tree.insert("./lib/modules/x.ko", file("x")).unwrap(), "usr/lib/modules/x.ko");
        // base-files ships the same link again, and packages ship ./lib as a folder.
        tree.insert_link("./lib", "usr/lib").unwrap();
        assert_eq!(tree.insert("./lib/", Node::directory()).unwrap(), "usr/lib");
        assert!(matches!(tree.get("lib").unwrap().kind, Kind::Symlink(_)));
        assert_eq!(tree.file("lib/modules/x.ko").unwrap().read().unwrap(), b"x");
    }

    #[test]
    fn nothing_leads_out() {
        let mut tree = merged();
        assert!(tree.insert("../etc/passwd", file("")).is_err());
        assert!(tree.insert("/etc/passwd", file("")).is_err());
        assert!(tree.insert("usr/../../etc", file("")).is_err());
        tree.insert_link("usr/evil", "../../../etc").unwrap();
        let error = tree.insert("usr/evil/passwd", file("")).unwrap_err();
        assert!(error.to_string().contains("leads out of the tree"), "{error}");
        // An absolute target means the tree's own root.
        tree.insert_link("etc-link", "/etc").unwrap();
        assert_eq!(tree.insert("etc-link/passwd", file("")).unwrap(), "etc/passwd");
    }

    #[test]
    fn loops_end() {
        let mut tree = Tree::new();
        tree.insert_link("a", "b").unwrap();
        tree.insert_link("b", "a").unwrap();
        assert!(tree.insert("a/x", file("")).unwrap_err().to_string().contains("symbolic links"));
    }

    #[test]
    fn kinds_do_not_change_silently() {
        let mut tree = Tree::new();
        tree.insert("d/x", file("")).unwrap();
        assert!(tree.insert("d", file("")).is_err());
        assert!(tree.insert("d/x/y", file("")).is_err());
    }

    #[test]
    fn a_tree_written_out_and_as_tar_is_the_same() {
        let mut tree = merged();
        tree.insert_program("usr/bin/tool", b"#!".to_vec()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        tree.write_to(dir.path()).unwrap();
        assert_eq!(fs_err::read(dir.path().join("usr/bin/tool")).unwrap(), b"#!");
        let mut bytes = Vec::new();
        tree.write_tar(&mut bytes, 7).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.path().unwrap().display().to_string(), e.header().mtime().unwrap()))
            .collect();
        let expected = ["lib", "usr/", "usr/bin/", "usr/bin/tool", "usr/lib/"];
        assert_eq!(names, expected.map(|n| (n.to_owned(), 7)));
    }

    #[test]
    fn retain_keeps_the_way() {
        let mut tree = Tree::new();
        tree.insert("a/b/c", file("1")).unwrap();
        tree.insert("a/b/d", file("2")).unwrap();
        tree.retain(|path, _| path == "a/b/c");
        assert_eq!(tree.iter().map(|(p, _)| p).collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
    }

    proptest! {
        /// Whatever is inserted, every stored path is plain and its parents are folders.
        #[test]
        fn paths_stay_inside(steps in prop::collection::vec(("[a-c./]{0,8}", prop::option::of("[a-c./]{0,8}")), 0..30)) {
            let mut tree = Tree::new();
            for (path, target) in steps {
                let kind = target.map_or(Kind::File(Vec::new().into()), Kind::Symlink);
                let _ = tree.insert(&path, Node { kind, mode: 0, uid: 0, gid: 0 });
            }
            for (path, _) in tree.iter() {
                prop_assert!(path.split('/').all(|p| !p.is_empty() && p != "." && p != ".."));
                for (slash, _) in path.match_indices('/') {
                    prop_assert!(matches!(tree.get(&path[..slash]).unwrap().kind, Kind::Directory));
                }
            }
        }
    }
}
