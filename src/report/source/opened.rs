//! A source that was opened, and the runs in it.

use super::disk::Disk;
use super::image::{self, Image};
use super::{folder, qcow2};
use crate::boot_contract::{REPORT_LABEL, REPORT_RUNS, RUN_REPORT_JSON};
use crate::error::{Advise as _, Status, usage};
use crate::interrupt;
use crate::progress::bytes;
use crate::report::fat::{Entry, Fat, ReadAt, Window};
use crate::report::gpt::{NoTable, Table};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};

/// Folders in a run's folder.
const MAX_DEPTH: u32 = 8;
/// More files and folders than any run has. On a damaged filesystem folders may be in themselves, in many ways.
const MAX_FILES: usize = 10_000;
/// What to name instead of a disk that is not gdsboot's.
const NAME_ANOTHER: &str = "name an image, the whole stick that `gdsboot flash` wrote, its report partition, a folder with reports, or a \
     report.json";

/// Something that holds reports.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A disk with a partition table.
    Image(Image<Disk>),
    /// A report partition without the disk around it.
    Volume(Disk),
    /// A folder of this machine.
    Folder,
    /// One report.
    File,
}

/// Where a run is in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRef {
    /// Its folder's name, or the path of its file, as in the source.
    pub name: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A folder in [`REPORT_RUNS`] on a FAT filesystem.
    Fat,
    Folder(PathBuf),
    /// A report without a folder of its own.
    Loose(PathBuf),
}

/// The runs of a source.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of their names, which begin with the time where gdsboot gave them.
    pub runs: Vec<RunRef>,
    /// Parts of the source that could not be listed.
    pub problems: Vec<anyhow::Error>,
}

impl RunRef {
    pub(super) fn folder(name: String, path: &Path) -> Self {
        Self { name, place: Place::Folder(path.to_owned()) }
    }

    pub(super) fn loose(name: String, path: &Path) -> Self {
        Self { name, place: Place::Loose(path.to_owned()) }
    }

    /// Is it a file that nothing but its ending says to be a report?
    pub fn is_loose(&self) -> bool {
        matches!(self.place, Place::Loose(_))
    }

    /// The last part of its name, which begins with the time where gdsboot gave it.
    pub fn last(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

impl Source {
    /// Opens what is at `path`.
    ///
    /// # Errors
    /// [`Status::Usage`] where it is nothing that holds reports: what it holds instead is said. It is truncated or damaged,
    /// or this user may not read it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let opened = |kind| Ok(Self { path: path.to_owned(), kind });
        let meta = std::fs::metadata(path)
            .with_context(|| format!("opening {shown}"))
            .status(Status::Usage)
            .hint(NAME_ANOTHER)?;
        if meta.is_dir() {
            return opened(Kind::Folder);
        }
        let kind = meta.file_type();
        if !kind.is_file() && !std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
            return Err(usage(format!("{shown} is neither a file, a disk nor a folder"), NAME_ANOTHER));
        }
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if is_json && kind.is_file() {
            return opened(Kind::File);
        }
        let disk = Disk::open(path)?;
        match disk.table() {
            Ok(table) => {
                if table.named(REPORT_LABEL).next().is_none() {
                    return Err(foreign(path, &table));
                }
                let size = disk.size();
                let image = Image::of(path, disk, size, table);
                image.report_partition()?;
                opened(Kind::Image(image))
            }
            Err(error) if error.is::<NoTable>() => {
                if let Err(why) = Fat::open(Window { file: &disk, start: 0, len: disk.size() }, disk.size()) {
                    return Err(unknown(path, &disk, &why));
                }
                opened(Kind::Volume(disk))
            }
            Err(error) => {
                let error: Result<Self> = Err(error).with_context(|| format!("reading {shown}"));
                error.status(Status::Usage).hint("copy it again, or name the stick that it was copied from")
            }
        }
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The runs in it.
    ///
    /// # Errors
    /// Nothing of it can be listed.
    pub fn runs(&self) -> Result<Listing> {
        let all = |runs: Vec<RunRef>| Listing { runs, problems: Vec::new() };
        match &self.kind {
            Kind::Image(_) | Kind::Volume(_) => {
                #[expect(clippy::redundant_closure, reason = "the function itself is of one lifetime alone")]
                let names = self.on_disk(|fat| image::run_folders(fat));
                let names = names.with_context(|| format!("listing the runs of {}", self.path.display()))?;
                Ok(all(names.into_iter().map(|name| RunRef { name, place: Place::Fat }).collect()))
            }
            Kind::Folder => folder::runs(&self.path),
            Kind::File => {
                let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
                Ok(all(vec![RunRef::loose(name.unwrap_or_default(), &self.path)]))
            }
        }
    }

    /// The file `name` of a run, where it has one; more than `limit` bytes are an error.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, run: &RunRef, name: &str, limit: u32) -> Result<Option<Vec<u8>>> {
        let path = format!("{REPORT_RUNS}/{}/{name}", run.name);
        match (&run.place, &self.kind) {
            (Place::Folder(folder), _) => folder::read_in(folder, name, limit),
            (Place::Loose(file), Kind::File) if name == RUN_REPORT_JSON => {
                // The operator named it, so that it may be a link.
                folder::read(&fs_err::canonicalize(file)?, limit)
            }
            (Place::Loose(file), _) if name == RUN_REPORT_JSON => folder::read(file, limit),
            (Place::Loose(_), _) => Ok(None),
            (Place::Fat, _) => self.on_disk(|fat| fat.read(&path, limit)),
        }
        .with_context(|| format!("reading {} of {}", self.words(run), self.path.display()))
    }

    /// The files of a run, by their paths in its folder.
    ///
    /// # Errors
    /// Its folder is damaged or cannot be read.
    pub fn files(&self, run: &RunRef) -> Result<Vec<String>> {
        let path = format!("{REPORT_RUNS}/{}", run.name);
        match &run.place {
            Place::Folder(folder) => folder::files(folder),
            Place::Loose(_) => Ok(vec![RUN_REPORT_JSON.into()]),
            Place::Fat => self.on_disk(|fat| fat_files(fat, &path)),
        }
        .with_context(|| format!("listing {} of {}", self.words(run), self.path.display()))
    }

    /// What `read` finds on the disk's filesystem; nothing where the source is no disk.
    fn on_disk<T: Default>(&self, read: impl FnOnce(&Fat<Window<'_, Disk>>) -> Result<T>) -> Result<T> {
        let fat = match &self.kind {
            Kind::Image(image) => image.report_partition().and_then(|found| image.filesystem(found)),
            Kind::Volume(disk) => Fat::open(Window { file: disk, start: 0, len: disk.size() }, disk.size()),
            Kind::Folder | Kind::File => return Ok(T::default()),
        };
        fat.and_then(|fat| read(&fat)).or_else(|error| {
            let hint = what_helps(&error);
            Err(error).hint(hint)
        })
    }

    /// A run in a line: the source alone where it is one report.
    pub fn words(&self, run: &RunRef) -> String {
        if run.is_loose() { run.name.clone() } else { format!("the run {}", run.name) }
    }

    /// A run's place, for people and for tables: `stick.img#20261122T110000Z-bbbbbbbb`, or a path.
    pub fn place(&self, run: &RunRef) -> String {
        match &run.place {
            Place::Fat => format!("{}#{}", self.path.display(), run.name),
            Place::Folder(path) | Place::Loose(path) => path.display().to_string(),
        }
    }
}

/// What helps where a disk's filesystem cannot be read.
fn what_helps(error: &anyhow::Error) -> &'static str {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        None => "its filesystem is damaged; `fsck.fat -a` on a copy of it may mend that",
        Some(std::io::ErrorKind::InvalidData) => qcow2::DAMAGED,
        Some(std::io::ErrorKind::UnexpectedEof) => {
            "it is cut off: copy it again, or name the stick that it was copied from"
        }
        Some(_) => {
            "it cannot be read there: save what can be with `ddrescue DISK COPY.img`, and name that copy"
        }
    }
}

/// The files below a folder. Folders that name each other end at [`MAX_DEPTH`] and [`MAX_FILES`].
fn fat_files<D: ReadAt>(fat: &Fat<D>, folder: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), MAX_DEPTH)];
    let mut visited = 0;
    while let Some((below, depth)) = folders.pop() {
        interrupt::check()?;
        visited += 1;
        ensure!(depth > 0, "{folder}/{below}: folders are in folders too deeply");
        for Entry { name, is_dir, .. } in fat.list(&format!("{folder}/{below}"))? {
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if is_dir { folders.push((path, depth - 1)) } else { files.push(path) }
        }
        ensure!(files.len() + folders.len() + visited < MAX_FILES, "{folder} has too many files");
    }
    files.sort();
    Ok(files)
}

/// A disk with a partition table that is somebody else's.
fn foreign(path: &Path, table: &Table) -> anyhow::Error {
    let partitions = table.partitions.iter().map(|partition| {
        let name = if partition.name.is_empty() { "no name" } else { &partition.name };
        let name = crate::report::layout::clean(name);
        format!("{} {name} ({}, {})", partition.number, partition.type_name(), bytes(partition.size))
    });
    let partitions: Vec<String> = partitions.collect();
    let has = if partitions.is_empty() { "it is empty".into() } else { partitions.join("; ") };
    usage(
        format!("{} has no report partition {REPORT_LABEL} in its partition table: {has}", path.display()),
        NAME_ANOTHER,
    )
}

/// A disk without a partition table that is no FAT filesystem either.
fn unknown(path: &Path, disk: &Disk, why: &anyhow::Error) -> anyhow::Error {
    let mut head = [0; 512];
    let looks_fat = disk.read_exact_at(&mut head, 0).is_ok()
        && (head[54..].starts_with(b"FAT") || head[82..].starts_with(b"FAT"));
    if looks_fat {
        return usage(
            format!("reading {}: its FAT filesystem is damaged or cut off: {why}", path.display()),
            "copy it again, or name the stick that it was copied from",
        );
    }
    let content = disk.content();
    usage(
        format!("{} has neither a GUID partition table nor a FAT filesystem: {content}", path.display()),
        NAME_ANOTHER,
    )
}

#[cfg(test)]
#[path = "opened_tests.rs"]
mod tests;
