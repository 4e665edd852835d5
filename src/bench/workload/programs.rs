//! The operator's programs, brought from where nothing may be executed to where it may.

use crate::error::{Advise as _, hinted};
use anyhow::{Context as _, ensure};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How deep folders may be.
const DEEPEST: u32 = 8;
/// How many files and folders there may be.
const MOST: usize = 10_000;

/// Copies a folder with all that is in it to `into`, which is made by this: whole or not at all, and everything in it may be
/// executed.
///
/// # Errors
/// `from` cannot be read, or holds something that is neither a file nor a folder; `into` exists, or there is no room for it.
pub fn copy(from: &Path, into: &Path) -> anyhow::Result<()> {
    let copy = || -> anyhow::Result<()> {
        ensure!(!into.try_exists()?, "{} exists", into.display());
        let parent = into.parent().context("it has no folder above it")?;
        let items = list(from)?;
        let needed: u64 = items.iter().map(|item| item.bytes).sum();
        let free = nix::sys::statvfs::statvfs(parent)?;
        let room = free.blocks_available().saturating_mul(free.fragment_size());
        if needed > room / 2 {
            // The image keeps its temporary files in memory.
            let what = format!("{needed} bytes are more than half of the {room} that are free there");
            return Err(hinted(what, "give the machine more memory, or remove programs that are not needed"));
        }
        let made = tempfile::Builder::new().prefix(".programs-").tempdir_in(parent)?;
        for Item { path, is_folder, .. } in &items {
            let target = made.path().join(path);
            if *is_folder {
                fs_err::create_dir(&target)?;
            } else {
                fs_err::copy(from.join(path), &target)?;
            }
            fs_err::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
        }
        fs_err::set_permissions(made.path(), std::fs::Permissions::from_mode(0o755))?;
        fs_err::rename(made.path(), into)?;
        // It has another name now, and nothing is to be removed.
        let _ = made.keep();
        Ok(())
    };
    copy()
        .with_context(|| format!("copying {} to {}", from.display(), into.display()))
        .hint("look at the folder on another machine: a file in it may be damaged")
}

struct Item {
    /// Below the folder.
    path: PathBuf,
    is_folder: bool,
    bytes: u64,
}

/// What is in a folder, each folder before what is in it.
fn list(from: &Path) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut todo = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        ensure!(depth < DEEPEST, "{} is {DEEPEST} folders deep", folder.display());
        for entry in fs_err::read_dir(from.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let metadata = entry.metadata()?;
            let (is_folder, is_file) = (metadata.is_dir(), metadata.is_file());
            ensure!(is_folder || is_file, "{} is neither a file nor a folder", path.display());
            if is_folder {
                todo.push((path.clone(), depth + 1));
            }
            items.push(Item { path, is_folder, bytes: if is_file { metadata.len() } else { 0 } });
            ensure!(items.len() <= MOST, "there are more than {MOST} files");
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::one_line;

    #[test]
    fn programs_are_copied_with_their_folders_and_may_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("workloads");
        fs_err::create_dir_all(from.join("a/b")).unwrap();
        fs_err::write(from.join("x.sh"), "x").unwrap();
        fs_err::write(from.join("a/b/data"), "data").unwrap();
        let into = dir.path().join("programs");
        copy(&from, &into).unwrap();
        assert_eq!(fs_err::read_to_string(into.join("a/b/data")).unwrap(), "data");
        for path in ["", "x.sh", "a", "a/b/data"] {
            let mode = fs_err::metadata(into.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{path}");
        }
        // What is there is never mixed with what comes.
        let error = one_line(&copy(&from, &into).unwrap_err());
        assert!(error.contains("exists"), "{error}");
    }

    #[test]
    fn where_one_file_cannot_be_copied_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("workloads");
        fs_err::create_dir(&from).unwrap();
        fs_err::write(from.join("a"), "a").unwrap();
        let into = dir.path().join("programs");
        let refused = |word: &str| {
            let error = one_line(&copy(&from, &into).unwrap_err());
            assert!(error.contains(word), "{error}");
            assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
        };
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        refused("link is neither a file nor a folder");
        fs_err::remove_file(from.join("link")).unwrap();
        // More than any filesystem has room for, without taking any.
        let file = fs_err::File::create(from.join("huge")).unwrap();
        file.set_len(1 << 43).unwrap();
        refused("more than half of");
        fs_err::remove_file(from.join("huge")).unwrap();
        fs_err::create_dir_all(from.join("1/2/3/4/5/6/7/8/9")).unwrap();
        refused("8 folders deep");
        fs_err::remove_dir_all(&from).unwrap();
        assert!(copy(&from, &into).is_err());
    }
}
