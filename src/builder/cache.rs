//! Where gdsboot keeps what it can make again: the pool, unpacked roots, compiled modules, the root's squashfs.
//!
//! Every entry is named by the hash of its inputs and appears by a rename, so it is either whole or absent. Whoever makes
//! an entry holds its lock; whoever wants the same one waits and then finds it.

use crate::error::Advise as _;
use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens (and makes) the cache: the folder named, else `$GDSBOOT_CACHE`, `$XDG_CACHE_HOME/gdsboot`,
    /// `~/.cache/gdsboot`.
    pub fn open(named: Option<&Path>) -> Result<Self> {
        let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = named
            .map(Path::to_owned)
            .or_else(|| from("GDSBOOT_CACHE"))
            .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("gdsboot")))
            .or_else(|| from("HOME").map(|p| p.join(".cache/gdsboot")))
            .context("no cache folder is known")
            .hint("name one: --cache DIR, or the variable GDSBOOT_CACHE")?;
        for part in ["pool", "work", "locks", "logs"] {
            fs_err::create_dir_all(folder.join(part))
                .context("making the cache folder")
                .hint("choose another: --cache DIR, or the variable GDSBOOT_CACHE")?;
        }
        let cache = Self { folder: fs_err::canonicalize(folder)? };
        cache.remove_abandoned();
        Ok(cache)
    }

    /// The cache folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pool's folder.
    pub fn pool(&self) -> PathBuf {
        self.folder.join("pool")
    }

    /// Where logs of failed work are kept.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A temporary folder on the cache's filesystem; removed when dropped.
    pub fn work(&self) -> Result<Work> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", std::process::id()))
            .tempdir_in(self.folder.join("work"))
            .with_context(|| format!("making a temporary folder in {}", self.folder.display()))?;
        Ok(Work { folder })
    }

    /// The entry `kind/key`, made by `make` (which fills the path that it is given: a file or a folder) if it is not
    /// there yet.
    pub fn entry(
        &self,
        kind: &str,
        key: &str,
        progress: &Progress,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.folder.join(kind).join(key);
        if path.exists() {
            return Ok(path);
        }
        fs_err::create_dir_all(self.folder.join(kind))?;
        let _lock = self.lock(&format!("{kind}-{key}"), progress)?;
        if path.exists() {
            return Ok(path);
        }
        let work = self.work()?;
        let made = work.path().join("entry");
        make(&made)?;
        fs_err::rename(&made, &path)?;
        Ok(path)
    }

    /// Is the entry there?
    pub fn has(&self, kind: &str, key: &str) -> bool {
        self.folder.join(kind).join(key).exists()
    }

    /// Waits for the lock of this name, telling the user that it waits.
    pub fn lock(&self, name: &str, progress: &Progress) -> Result<CacheLock> {
        let path = self.folder.join("locks").join(name);
        let mut told = false;
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(&path)?.into_file();
        loop {
            interrupt::check()?;
            match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(CacheLock { _lock: lock }),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => {
                    file = back;
                    if !std::mem::replace(&mut told, true) {
                        progress
                            .note(format!("waiting for another gdsboot that makes the same thing ({name})"));
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err((_, error)) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
        }
    }

    /// Removes temporary folders whose process is gone (killed in the middle).
    fn remove_abandoned(&self) {
        let Ok(entries) = fs_err::read_dir(self.folder.join("work")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.split('-').next().unwrap_or_default();
            if pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists() {
                remove_all(&entry.path());
            }
        }
    }

    /// Removes everything but the pool; for measurements from a cold start.
    pub fn clear_all_but_pool(&self) -> Result<()> {
        for entry in fs_err::read_dir(&self.folder)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_str(), Some("pool" | "work" | "locks")) {
                remove_all(&entry.path());
            }
        }
        Ok(())
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct CacheLock {
    _lock: nix::fcntl::Flock<std::fs::File>,
}

/// A temporary folder; removed when dropped, read-only folders in it included.
#[derive(Debug)]
pub struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        remove_all(self.folder.path());
    }
}

/// Removes a tree; folders without write permission (packages ship such) are opened first. What cannot be removed stays:
/// it is only a cache.
fn remove_all(path: &Path) {
    if fs_err::remove_dir_all(path).is_ok() || !path.exists() {
        return;
    }
    if path.is_dir() {
        make_writable(path);
        let _ = fs_err::remove_dir_all(path);
    } else {
        let _ = fs_err::remove_file(path);
    }
}

fn make_writable(folder: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let _ = fs_err::set_permissions(folder, mode);
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once_and_never_half() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        let progress = Progress::none();
        let failed = cache.entry("kind", "key", &progress, |path| {
            fs_err::write(path, "half")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        assert!(!dir.path().join("kind/key").exists());
        let made = cache.entry("kind", "key", &progress, |path| Ok(fs_err::write(path, "whole")?)).unwrap();
        assert_eq!(fs_err::read_to_string(&made).unwrap(), "whole");
        cache.entry("kind", "key", &progress, |_| anyhow::bail!("made twice")).unwrap();
        assert_eq!(fs_err::read_dir(dir.path().join("work")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        // No process has this id: it is above the kernel's limit (PID_MAX_LIMIT, include/linux/threads.h).
        let left = dir.path().join("work/4194305-x/sub");
        fs_err::create_dir_all(&left).unwrap();
        fs_err::set_permissions(&left, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
        Cache::open(Some(dir.path())).unwrap();
        assert!(!dir.path().join("work/4194305-x").exists());
    }
}
