//! The report partition: mounted as soon as it can be, a folder per run, nothing in another run's folder ever touched.
//! A file is written beside its name and moved there when it is whole and on the disk. A cut of the power leaves what was there
//! before, or an empty file, or all of it.

use super::mounts;
use super::partition::{self, Partition};
use crate::boot_contract::{
    REPORT_PROGRAMS, REPORT_RUNS, REPORT_SETTINGS, RUN_REPORT_HTML, RUN_REPORT_JSON, RUN_REPORT_JUNIT,
    RUN_REPORT_TEXT, RUN_STARTED,
};
use crate::report::model::{Report, folder_name};
use crate::report::{html, json, junit, text};
use anyhow::Context as _;
use fs_err as fs;
use nix::errno::Errno;
use nix::mount::MsFlags;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Where it is mounted.
const MOUNTED: &str = "/run/gdsboot/report";
/// How FAT shows names depends on tables that are modules of their own; these are tried in turn. `flush` writes soon.
const OPTIONS: [&str; 3] = ["flush", "flush,iocharset=utf8", "flush,codepage=437,iocharset=iso8859-1"];
/// More settings than this are not read.
const SETTINGS_LIMIT: u64 = 1 << 20;

/// The mounted partition with this run's folder.
#[derive(Debug)]
pub struct ReportPartition {
    root: PathBuf,
    /// This run's folder, relative to the partition's root.
    run: PathBuf,
}

impl ReportPartition {
    /// Mounts `partition` and begins the run's folder on it. What takes no file does not stay mounted.
    ///
    /// # Errors
    /// It cannot be mounted, or not be written to.
    pub fn open(partition: &Partition, started: &Report) -> anyhow::Result<Self> {
        let mounted = Self::mount(partition)?;
        Self::begin(&mounted, started).inspect_err(|_| {
            let _ = mounts::unmount(&mounted);
        })
    }

    fn mount(partition: &Partition) -> anyhow::Result<PathBuf> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        // A disk that was just found may have no node yet.
        let node = partition::open(partition);
        node.with_context(|| format!("opening {}", partition.device().display()))?;
        let mut result = Ok(());
        for options in OPTIONS {
            result = mounts::device(&partition.device(), Path::new(MOUNTED), "vfat", flags, Some(options));
            if result.is_ok() {
                break;
            }
        }
        let protected = |error: &anyhow::Error| {
            matches!(error.downcast_ref::<Errno>(), Some(Errno::EACCES | Errno::EROFS))
        };
        match result {
            Ok(()) => Ok(MOUNTED.into()),
            Err(error) if protected(&error) => Err(error.context("the disk is write-protected")),
            Err(error) => Err(error),
        }
    }

    /// Makes the run's folder below the mounted `root` and writes `STARTED` into it; where that fails, there is none.
    fn begin(root: &Path, started: &Report) -> anyhow::Result<Self> {
        Self::begin_by(root, started, |partition| partition.put(RUN_STARTED, stub(started).as_bytes()))
    }

    fn begin_by(
        root: &Path,
        started: &Report,
        write: impl FnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let run = Path::new(REPORT_RUNS).join(folder_name(started.started, &started.run_id));
        match fs::create_dir(root.join(REPORT_RUNS)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        // A folder that is there already belongs to another run.
        fs::create_dir(root.join(&run))?;
        let partition = Self { root: root.to_owned(), run };
        let written = write(&partition)
            .and_then(|()| sync_folder(&root.join(REPORT_RUNS)))
            .and_then(|()| sync_folder(root));
        match written {
            Ok(()) => Ok(partition),
            Err(error) => {
                // It is not in the way of a second try then. Why it failed is told already.
                let _ = partition.take_back();
                Err(error)
            }
        }
    }

    /// This run's folder, relative to the partition's root, with `/`.
    pub fn folder(&self) -> String {
        self.run.to_string_lossy().into_owned()
    }

    /// `gdsboot.toml`, where there is one.
    pub fn settings(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match fs::File::open(self.root.join(REPORT_SETTINGS)) {
            Ok(file) => {
                file.take(SETTINGS_LIMIT)
                    .read_to_end(&mut bytes)
                    .with_context(|| format!("reading {REPORT_SETTINGS}"))?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the operator's own programs, which may not be there.
    pub fn programs(&self) -> PathBuf {
        self.root.join(REPORT_PROGRAMS)
    }

    /// Writes the report for programs and for people, in place of what this run wrote before.
    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        json::write(report, &mut bytes)?;
        self.put(RUN_REPORT_JSON, &bytes)?;
        bytes.clear();
        text::write(report, &mut bytes)?;
        // Notepad of older Windows shows lines only where they end as DOS ended them.
        let text = String::from_utf8_lossy(&bytes).replace('\n', "\r\n");
        self.put(RUN_REPORT_TEXT, text.as_bytes())
    }

    /// Writes its other forms, a page and JUnit XML. They say nothing that [`Self::write`] does not.
    pub fn write_other_forms(&self, report: &Report) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        html::write(report, &mut bytes)?;
        self.put(RUN_REPORT_HTML, &bytes)?;
        bytes.clear();
        junit::write(report.verdict, report.is_simulated(), &report.findings, &mut bytes)?;
        self.put(RUN_REPORT_JUNIT, &bytes)
    }

    /// Takes back the folder that was just begun, for a run that reports elsewhere, and unmounts.
    pub fn withdraw(&self) -> anyhow::Result<()> {
        let taken = self.take_back();
        mounts::unmount(&self.root)?;
        taken
    }

    /// Removes the stub, and the folder. What is more than the stub was not expected there, and stays.
    fn take_back(&self) -> anyhow::Result<()> {
        let folder = self.root.join(&self.run);
        for name in [RUN_STARTED.to_owned(), unfinished(RUN_STARTED)] {
            // Where it is still there, the folder is too.
            let _ = std::fs::remove_file(folder.join(name));
        }
        fs::remove_dir(&folder).with_context(|| format!("taking back {}", self.folder()))
    }

    /// Unmounts it.
    pub fn close(self) -> anyhow::Result<()> {
        mounts::unmount(&self.root)
    }

    /// Writes a file into the run's folder: whole, or not at all.
    pub fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let folder = self.root.join(&self.run);
        let unfinished = folder.join(unfinished(name));
        let name = folder.join(name);
        let write = || {
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            // Linux' vfat leaves the new name's entry as it was, or empty, until the moved file itself is synced (vfat_rename
            // in fs/fat/namei_vfat.c), and frees what the name had before; while that is open, it is not freed.
            let before = fs::File::open(&name);
            fs::rename(&unfinished, &name)?;
            file.sync_all()?;
            drop(before);
            Ok(())
        };
        write().inspect_err(|_: &std::io::Error| {
            // Half of it would take the room that a smaller file still has.
            let _ = std::fs::remove_file(&unfinished);
        })?;
        sync_folder(&folder)
    }
}

/// What a file is called until it is whole.
fn unfinished(name: &str) -> String {
    format!("{name}.new")
}

fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    Ok(fs::File::open(folder)?.sync_all()?)
}

/// What tells a hang from a run that never was.
fn stub(started: &Report) -> String {
    format!(
        "gdsboot {} began this run at {}, run id {}.\r\n\r\nIf {} beside this file is missing, or says that the run did \
         not come to its\r\nend, the machine hung, lost its power or was switched off.\r\n",
        started.gdsboot, started.started, started.run_id, RUN_REPORT_TEXT
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    #[test]
    fn a_run_writes_its_own_folder_and_touches_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let report = sample();
        let partition = ReportPartition::begin(dir.path(), &report).unwrap();
        assert_eq!(partition.folder(), "reports/20261122T105601Z-0a1b2c3d");
        let folder = dir.path().join(partition.folder());
        assert!(fs::read_to_string(folder.join("STARTED")).unwrap().contains("run id 0a1b2c3d"));
        for _ in 0..2 {
            partition.write(&report).unwrap();
            partition.write_other_forms(&report).unwrap();
        }
        assert_eq!(json::read(&fs::read(folder.join("report.json")).unwrap()).unwrap(), report);
        let text = fs::read_to_string(folder.join("report.txt")).unwrap();
        assert!(text.starts_with("gdsboot report") && text.lines().count() > 50 && text.contains("\r\n"));
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["STARTED", "junit.xml", "report.html", "report.json", "report.txt"]);
        let error = ReportPartition::begin(dir.path(), &report).unwrap_err();
        assert!(format!("{error:#}").contains("exists"), "{error:#}");
    }

    #[test]
    fn what_cannot_be_written_leaves_no_half() {
        let dir = tempfile::tempdir().unwrap();
        let partition = ReportPartition::begin(dir.path(), &sample()).unwrap();
        let folder = dir.path().join(partition.folder());
        // A folder with something in it is in the way.
        fs::create_dir_all(folder.join("report.txt/x")).unwrap();
        partition.put(RUN_REPORT_TEXT, b"text").unwrap_err();
        fs::remove_dir_all(folder.join("report.txt")).unwrap();
        fs::create_dir_all(folder.join("report.html/x")).unwrap();
        partition.write(&sample()).unwrap();
        partition.write_other_forms(&sample()).unwrap_err();
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["STARTED", "report.html", "report.json", "report.txt"]);
    }

    #[test]
    fn settings_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let partition = ReportPartition::begin(dir.path(), &sample()).unwrap();
        assert_eq!(partition.settings().unwrap(), None);
        fs::write(dir.path().join("gdsboot.toml"), "after = 'hold'").unwrap();
        assert_eq!(partition.settings().unwrap().unwrap(), b"after = 'hold'");
    }

    #[test]
    fn what_was_begun_is_taken_back_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let report = sample();
        let partition = ReportPartition::begin(dir.path(), &report).unwrap();
        let folder = dir.path().join(partition.folder());
        partition.take_back().unwrap();
        assert!(!folder.exists() && dir.path().join("reports").exists());
        let partition = ReportPartition::begin(dir.path(), &report).unwrap();
        partition.put(RUN_REPORT_TEXT, b"more").unwrap();
        let error = partition.take_back().unwrap_err();
        assert!(error.to_string().contains("taking back reports/"), "{error:#}");
        assert_eq!(fs::read(folder.join("report.txt")).unwrap(), b"more");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let report = sample();
        let full = |partition: &ReportPartition| {
            fs::write(dir.path().join(partition.folder()).join("STARTED.new"), "")?;
            anyhow::bail!("no space left")
        };
        let error = ReportPartition::begin_by(dir.path(), &report, full).unwrap_err();
        assert_eq!(error.to_string(), "no space left");
        assert_eq!(fs::read_dir(dir.path().join("reports")).unwrap().count(), 0);
        // What was another run's folder stays.
        let other = ReportPartition::begin(dir.path(), &report).unwrap();
        ReportPartition::begin(dir.path(), &report).unwrap_err();
        assert!(dir.path().join(other.folder()).join("STARTED").exists());
    }
}
