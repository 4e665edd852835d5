//! Runs in a folder of this machine: a mounted stick, a run's own folder, a tree of either, and loose `*.json` files as an
//! HTTP server keeps what was sent to it, in any mixture. Symbolic links inside of it are not followed: none can lead round
//! in a circle, or out.

use super::{Listing, RunRef};
use crate::boot_contract::{
    REPORT_PROGRAMS, REPORT_RUNS, REPORT_SETTINGS, RUN_CAPTURE, RUN_REPORT_HTML, RUN_REPORT_JSON,
    RUN_REPORT_TEXT, RUN_STARTED,
};
use crate::interrupt;
use anyhow::{Context as _, Result, ensure};
use fs_err::DirEntry;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Collections have years, sites and machines above each other; nothing sensible is deeper than this.
const MAX_DEPTH: u32 = 16;

/// A folder is a run's where one of these stands in it.
const MARKS: [&str; 5] = [RUN_STARTED, RUN_REPORT_JSON, RUN_REPORT_TEXT, RUN_REPORT_HTML, RUN_CAPTURE];

/// Is it one of [`MARKS`]? A stick's filesystem tells no cases apart, and a copy of it may have others.
fn is_mark(name: &OsStr) -> bool {
    MARKS.iter().any(|mark| name.eq_ignore_ascii_case(mark))
}

/// All runs below `root`, in the order of their paths. A folder that cannot be listed is a problem, and the others are
/// listed all the same.
///
/// # Errors
/// `root` cannot be listed, or the user wants to stop.
pub fn runs(root: &Path) -> Result<Listing> {
    let mut found = Listing::default();
    walk(root, "", MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, name: &str, depth: u32, found: &mut Listing) -> Result<()> {
    ensure!(depth > 0, "{}: folders are in folders too deeply", folder.display());
    let mut entries: Vec<DirEntry> = fs_err::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(DirEntry::file_name);
    let has = |name: &str| entries.iter().any(|entry| entry.file_name().eq_ignore_ascii_case(name));
    let is_run = MARKS.into_iter().any(has);
    // A stick, or a copy of one: the operator's programs there may have JSON of their own.
    let is_stick = has(REPORT_RUNS) || has(REPORT_SETTINGS);
    if is_run {
        // The folder that was named has no name of its own in here.
        let name = if name.is_empty() { own_name(folder) } else { name.to_owned() };
        found.runs.push(RunRef::folder(name, folder));
    }
    for entry in entries {
        // A name that is no text belongs to nothing that gdsboot wrote.
        let Ok(last) = entry.file_name().into_string() else { continue };
        // Beside a run lie its own files, and perhaps other runs.
        let is_program_s = (is_run || is_stick) && last.eq_ignore_ascii_case(REPORT_PROGRAMS);
        let Ok(kind) = entry.file_type() else { continue };
        if is_program_s || is_run && is_mark(last.as_ref()) {
            continue;
        }
        let below = if name.is_empty() { last.clone() } else { format!("{name}/{last}") };
        if kind.is_dir() {
            interrupt::check()?;
            if let Err(error) = walk(&entry.path(), &below, depth - 1, found) {
                found.problems.push(error);
            }
        } else if kind.is_file() && last.to_ascii_lowercase().ends_with(".json") && !last.starts_with('.') {
            found.runs.push(RunRef::loose(below, &entry.path()));
        }
    }
    Ok(())
}

/// What a folder is called where it lies.
fn own_name(folder: &Path) -> String {
    let real = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    real.file_name().map_or_else(|| ".".into(), |name| name.to_string_lossy().into_owned())
}

/// The bytes of the file `name` in a run's folder, where there is one: the same name in other cases where there is none of
/// just that.
///
/// # Errors
/// As [`read`].
pub fn read_in(folder: &Path, name: &str, limit: u32) -> Result<Option<Vec<u8>>> {
    if let Some(bytes) = read(&folder.join(name), limit)? {
        return Ok(Some(bytes));
    }
    let entries = fs_err::read_dir(folder).map_or_else(|_| Vec::new(), |entries| entries.flatten().collect());
    match entries.iter().find(|entry| entry.file_name().eq_ignore_ascii_case(name)) {
        Some(entry) => read(&entry.path(), limit),
        None => Ok(None),
    }
}

/// The bytes of the file at `path`, where there is one; more than `limit` of them are an error.
///
/// # Errors
/// It is no regular file, too large, or cannot be read.
pub fn read(path: &Path, limit: u32) -> Result<Option<Vec<u8>>> {
    let shown = path.display();
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        meta => meta.with_context(|| format!("reading {shown}"))?,
    };
    ensure!(meta.is_file(), "{shown} is not a regular file");
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(u64::from(limit)))?);
    let file = File::open(path).with_context(|| format!("reading {shown}"))?;
    file.take(u64::from(limit) + 1).read_to_end(&mut bytes).with_context(|| format!("reading {shown}"))?;
    ensure!(bytes.len() <= limit as usize, "{shown} has more than {limit} bytes");
    Ok(Some(bytes))
}

/// The files below a run's folder, by their paths in it; without other runs.
///
/// # Errors
/// A folder cannot be listed, or folders are nested too deeply.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new(), MAX_DEPTH)];
    while let Some((folder, name, depth)) = folders.pop() {
        ensure!(depth > 0, "{}: folders are in folders too deeply", folder.display());
        interrupt::check()?;
        let entries: Vec<DirEntry> = fs_err::read_dir(&folder)?.collect::<io::Result<_>>()?;
        // A program may call what it writes a report.
        let is_a_program_s =
            name.split('/').next().is_some_and(|top| top.eq_ignore_ascii_case(REPORT_PROGRAMS));
        let may_be_a_run = !name.is_empty() && !is_a_program_s;
        let is_other_run = may_be_a_run && entries.iter().any(|entry| is_mark(&entry.file_name()));
        if is_other_run {
            continue;
        }
        for entry in entries {
            let Ok(last) = entry.file_name().into_string() else { continue };
            let below = if name.is_empty() { last } else { format!("{name}/{last}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((entry.path(), below, depth - 1));
            } else if kind.is_file() {
                files.push(below);
            }
        }
    }
    files.sort();
    Ok(files)
}
