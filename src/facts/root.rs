//! Where facts are read: the live machine, or a folder that mirrors the absolute paths of another one.
//!
//! In a folder, symbolic links are followed as that machine would follow them: absolute ones and `..` start at and
//! stay inside the folder, so that a captured tree from elsewhere cannot make us read this machine's files. Only
//! regular files are read there: a FIFO in a capture must not hang the reader.
//!
//! A capture names what its user was not allowed to read (`run/gdsboot/denied`, one path per line), so that it stays
//! denied and does not become absent.

use super::Fact;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

/// No file that a reader takes whole is larger than this; a longer one is malformed.
const LIMIT: u64 = 16 << 20;
/// How many symbolic links one path may lead through, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Where a capture keeps the paths that its user could not read.
pub const DENIED: &str = "/run/gdsboot/denied";

/// A machine to read.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
    live: bool,
    denied: Arc<BTreeSet<String>>,
    /// What was asked for, for a capture.
    asked: Option<Arc<Mutex<BTreeSet<String>>>>,
}

impl Root {
    /// The machine that this runs on.
    pub fn live() -> Self {
        Self { dir: "/".into(), live: true, denied: Arc::default(), asked: None }
    }

    /// The machine that this runs on; what readers ask for can be had from [`Root::asked`].
    pub fn recording() -> Self {
        Self { asked: Some(Arc::default()), ..Self::live() }
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.as_ref().and_then(|asked| asked.lock().ok());
        asked.map(|asked| asked.iter().cloned().collect()).unwrap_or_default()
    }

    /// A folder that mirrors another machine; `/` is the machine that this runs on.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let live = dir == Path::new("/");
        let mut root = Self { dir, live, denied: Arc::default(), asked: None };
        if !live {
            let denied = root.text(DENIED);
            let denied = denied.value().map(String::as_str).unwrap_or_default();
            root.denied = Arc::new(denied.lines().map(str::to_owned).collect());
        }
        root
    }

    /// Is it the machine that this runs on? Only then may anything be asked that is not a file.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// May programs of this machine be asked? A capture runs them itself.
    pub fn may_ask(&self) -> bool {
        self.live && self.asked.is_none()
    }

    /// Where `path` (absolute on the machine) stands here.
    pub fn locate(&self, path: &str) -> io::Result<PathBuf> {
        if let Some(mut asked) = self.asked.as_ref().and_then(|asked| asked.lock().ok()) {
            asked.insert(path.to_owned());
        }
        if self.denied.contains(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.live {
            return Ok(PathBuf::from(path));
        }
        let here = resolve(&self.dir, Path::new(path))?;
        let real = here.strip_prefix(&self.dir).ok().and_then(Path::to_str);
        if real.is_some_and(|real| self.denied.contains(&format!("/{real}"))) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(here)
    }

    /// Opens a file for reading.
    pub fn open(&self, path: &str) -> io::Result<std::fs::File> {
        let here = self.locate(path)?;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(here)?;
        if !self.live && !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &str) -> Fact<Vec<u8>> {
        self.bytes_up_to(path, LIMIT)
    }

    /// The bytes of a file that may be longer than others.
    pub fn bytes_up_to(&self, path: &str, limit: u64) -> Fact<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() as u64 > limit => {
                Fact::Malformed { from: path.into(), why: format!("longer than {limit} bytes") }
            }
            Ok(_) => Fact::known(path, bytes),
            Err(error) => Fact::from_error(path, &error),
        }
    }

    /// A file's text without the white space around it.
    pub fn text(&self, path: &str) -> Fact<String> {
        self.bytes(path).parse(|bytes| match String::from_utf8(bytes) {
            Ok(text) => Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()),
            Err(_) => Err("not UTF-8"),
        })
    }

    /// A file's text, parsed.
    pub fn parse<T>(&self, path: &str, parser: impl FnOnce(&str) -> Result<T, String>) -> Fact<T> {
        self.text(path).parse(|text| parser(&text))
    }

    /// The names in a folder, sorted; names that are not UTF-8 are left out.
    pub fn list(&self, path: &str) -> Fact<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(self.locate(path)?)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        };
        match read() {
            Ok(names) => Fact::known(path, names),
            Err(error) => Fact::from_error(path, &error),
        }
    }

    /// The last component of what a symbolic link says: sysfs names drivers and groups in this way.
    pub fn link_name(&self, path: &str) -> Fact<String> {
        let read = || -> io::Result<PathBuf> {
            // The link itself must not be followed, its folder must be.
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let folder = self.locate(folder)?;
            self.locate(path)?;
            std::fs::read_link(folder.join(name))
        };
        match read() {
            Ok(target) => Fact::known(path, target).parse(|target| {
                let name = target.file_name().and_then(|name| name.to_str()).map(str::to_owned);
                name.ok_or_else(|| format!("the link leads to {}", target.display()))
            }),
            Err(error) => Fact::from_error(path, &error),
        }
    }

    /// All that a symbolic link says; sysfs names a device's place in the machine in this way. Missing where there is no
    /// link, which is how a capture that followed links looks.
    pub fn link_target(&self, path: &str) -> Fact<String> {
        let read = || -> io::Result<PathBuf> {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            std::fs::read_link(self.locate(folder)?.join(name))
        };
        match read() {
            Ok(target) => Fact::known(path, target).parse(|target| {
                target.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", target.display()))
            }),
            // It exists and is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Fact::Missing { from: path.into() },
            Err(error) => Fact::from_error(path, &error),
        }
    }

    /// Does `path` exist?
    pub fn exists(&self, path: &str) -> bool {
        self.locate(path).is_ok_and(|here| here.exists())
    }
}

/// Follows `path` below `root` as a machine whose `/` is `root` would. The result may not exist.
fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut links = 0;
    let mut at = PathBuf::new();
    let mut todo: Vec<OsString> = Vec::new();
    push(&mut todo, path);
    while let Some(part) = todo.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let here = root.join(&next);
        match std::fs::symlink_metadata(&here) {
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = std::fs::read_link(&here)?;
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                push(&mut todo, &target);
            }
            // What does not exist is for the caller's open to say.
            _ => at = next,
        }
    }
    Ok(root.join(at))
}

/// Puts `path`'s components on the stack, first one on top.
fn push(todo: &mut Vec<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => todo.push(name.to_owned()),
            Component::ParentDir => todo.push("..".into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_a_captured_machine_stay_inside_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("machine");
        fs_err::create_dir_all(root.join("sys/a")).unwrap();
        fs_err::write(dir.path().join("secret"), "outside").unwrap();
        fs_err::write(root.join("secret"), "inside\n").unwrap();
        symlink("../../../../secret", root.join("sys/a/up")).unwrap();
        symlink("/secret", root.join("sys/a/absolute")).unwrap();
        symlink("loop", root.join("sys/a/loop")).unwrap();
        let root = Root::at(root);
        assert_eq!(root.text("/sys/a/up"), Fact::known("/sys/a/up", "inside".into()));
        assert_eq!(root.text("/sys/a/absolute"), Fact::known("/sys/a/absolute", "inside".into()));
        assert!(matches!(root.text("/sys/a/loop"), Fact::Failed { .. }));
        assert_eq!(root.link_name("/sys/a/up"), Fact::known("/sys/a/up", "secret".into()));
        assert_eq!(root.link_target("/sys/a/up").value().unwrap(), "../../../../secret");
        assert_eq!(root.link_target("/secret"), Fact::Missing { from: "/secret".into() });
    }

    #[test]
    fn missing_malformed_and_unreadable_are_three_things() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("latin1"), b"caf\xe9").unwrap();
        fs_err::create_dir(dir.path().join("folder")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = Root::at(dir.path());
        assert_eq!(root.text("/none"), Fact::Missing { from: "/none".into() });
        assert!(matches!(root.text("/latin1"), Fact::Malformed { .. }));
        assert!(matches!(root.text("/folder"), Fact::Failed { .. }));
        assert!(matches!(root.text("/fifo"), Fact::Failed { .. }));
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(Fact::<()>::from_error("/x", &denied), Fact::Denied { from: "/x".into() });
    }

    #[test]
    fn folders_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs_err::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(Root::at(dir.path()).list("/").value().unwrap(), &["a", "b", "c"]);
    }
}
