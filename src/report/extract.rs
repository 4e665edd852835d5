//! Copies runs out of their sources, each into a folder of its own. Nothing that exists is overwritten, and what was begun and
//! not finished does not bear a run's name.

use super::runs::Listed;
use super::source::Source;
use crate::error::{Advise as _, Status, hinted};
use anyhow::{Context as _, Result, ensure};
use fs_err::File;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

/// More than any file of a run has.
const MAX_FILE: u32 = 256 << 20;

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extracted {
    /// It was copied here: so many files.
    Copied(PathBuf, usize),
    /// The same files are here already.
    AlreadyThere(PathBuf),
}

/// The names of the folders that runs get: those of their own folders; by time and id where they had none, or where several
/// would have one name.
pub fn names(runs: &[&Listed<'_>]) -> Vec<String> {
    let names: Vec<String> = runs.iter().map(|listed| folder_name(listed)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let name = |(listed, name): (&&Listed<'_>, &String)| match listed.head() {
        Some(head) if counts[name.as_str()] > 1 => super::model::folder_name(head.started, &head.run_id),
        _ => name.clone(),
    };
    runs.iter().zip(&names).map(name).collect()
}

/// Copies a run into a new folder `name` in `into`.
///
/// # Errors
/// There is another folder of that name, a file's name would lead out of it, or a file cannot be read or written.
pub fn extract_as(name: &str, listed: &Listed<'_>, into: &Path) -> Result<Extracted> {
    let context = || format!("extracting {}", listed.place());
    ensure!(is_plain(name), "{}: {name:?} is no name for a folder", context());
    let to = into.join(name);
    let files = listed.source.files(&listed.run)?;
    if let Some(bad) = files.iter().find(|file| !file.split('/').all(is_plain)) {
        return Err(hinted(
            format!("{}: it has a file {bad:?}, which is no name to write a file under", context()),
            "look at the report partition with other tools: gdsboot wrote no such file",
        ));
    }
    if to.symlink_metadata().is_ok() {
        return if same(listed, &files, &to)? {
            Ok(Extracted::AlreadyThere(to))
        } else {
            Err(other_there(&context(), &to))
        };
    }
    let temp = tempfile::Builder::new()
        .prefix(".gdsboot-")
        .tempdir_in(into)
        .with_context(|| format!("making a folder in {}", into.display()))?;
    for file in &files {
        crate::interrupt::check()?;
        copy(listed.source, listed, file, temp.path()).with_context(context)?;
    }
    // As any folder that the user makes: temporary ones are the user's alone.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(temp.path(), mode)?;
    File::open(temp.path())?.sync_all()?;
    match renameat2(AT_FDCWD, temp.path(), AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE) {
        Err(nix::errno::Errno::EEXIST) => return Err(other_there(&context(), &to)),
        // Filesystems that do not know the flag: a rename onto a folder that is not empty fails as well.
        Err(nix::errno::Errno::EINVAL) => fs_err::rename(temp.path(), &to)?,
        renamed => renamed.with_context(|| format!("moving {} into its place", to.display()))?,
    }
    // It has another name now.
    let _ = temp.keep();
    File::open(into)?.sync_all()?;
    Ok(Extracted::Copied(to, files.len()))
}

fn other_there(context: &str, to: &Path) -> anyhow::Error {
    let error = Err::<(), _>(hinted(
        format!("{context}: {} is there, and is not the same; it was left as it is", to.display()),
        "move it away, or name another folder: -o DIR",
    ));
    error.status(Status::Unavailable).unwrap_err()
}

fn folder_name(listed: &Listed<'_>) -> String {
    match listed.head().filter(|_| listed.run.is_loose()) {
        Some(head) => super::model::folder_name(head.started, &head.run_id),
        None => listed.run.last().trim_end_matches(".json").to_owned(),
    }
}

/// Is it a name that stays in its folder, and that a terminal and other systems take?
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && name.len() <= 255
        && !name.contains(|letter: char| letter.is_control() || letter == '\\')
        && !name.starts_with(".gdsboot-")
}

fn copy(source: &Source, listed: &Listed<'_>, file: &str, into: &Path) -> Result<()> {
    let bytes = source.read(&listed.run, file, MAX_FILE)?.with_context(|| format!("{file} is gone"))?;
    let path = into.join(file);
    let folder = path.parent().unwrap_or(into);
    fs_err::create_dir_all(folder)?;
    // Two names that differ in case only are two files here, and one name twice is an error.
    let mut out = File::create_new(&path)?;
    out.write_all(&bytes)?;
    out.sync_all()?;
    Ok(File::open(folder)?.sync_all()?)
}

/// Does a folder hold these files and no others?
fn same(listed: &Listed<'_>, files: &[String], folder: &Path) -> Result<bool> {
    let mut there = 0;
    for entry in walk(folder)? {
        there += 1;
        let Some(file) = entry.strip_prefix(folder).ok().and_then(Path::to_str) else { return Ok(false) };
        let is_wanted = files.iter().any(|wanted| wanted == file);
        if !is_wanted
            || listed.source.read(&listed.run, file, MAX_FILE)?.as_deref() != Some(&fs_err::read(&entry)?)
        {
            return Ok(false);
        }
    }
    Ok(there == files.len())
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}
