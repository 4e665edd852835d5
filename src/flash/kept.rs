//! Reports and settings that are on a stick, saved in a folder until they are on it again.

use super::frame;
use crate::builder::content::Content;
use crate::builder::fat::{FatFile, name};
use crate::builder::report_partition::README;
use crate::error::Advise as _;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What was on a report partition, saved until the stick is written.
#[derive(Debug, Default)]
pub struct Kept {
    /// Where they are.
    pub folder: Option<PathBuf>,
    /// What goes onto the stick again.
    pub files: Vec<FatFile>,
    /// How many runs are among them.
    pub runs: usize,
    /// Where those are that FAT as gdsboot writes it has no name for.
    pub not_carried: Vec<PathBuf>,
}

impl Kept {
    /// Copies what is on the report partition of `disk` into a new folder below `within`, but for the image's README.
    ///
    /// # Errors
    /// Something cannot be read or saved; the folder is gone then.
    pub fn save(disk: &File, device: &Path, within: &Path, progress: &Progress) -> Result<Self> {
        let mut kept = Self::default();
        let save = |kept: &mut Self| -> Result<()> {
            let Some(report) = frame::report_of(disk)? else { return Ok(()) };
            kept.runs = frame::runs_on(disk)?.len();
            let folder = new_folder(device, within)?;
            progress.note(format!("saving the reports that are on it in {}", folder.display()));
            kept.folder = Some(folder.clone());
            // Each saved file stays open until it is on the stick.
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
            frame::each_file(disk, &report, &mut |path, bytes| {
                if path.eq_ignore_ascii_case(README) {
                    return Ok(());
                }
                let place = folder.join(path);
                fs_err::create_dir_all(place.parent().unwrap_or(&folder))?;
                let file = fs_err::File::create_new(&place)?;
                std::io::Write::write_all(&mut &file, &bytes)?;
                file.sync_all()?;
                match path.split('/').all(|part| name::check(part).is_ok()) {
                    true => {
                        kept.files.push(FatFile { path: path.to_owned(), content: Content::of_file(&place)? })
                    }
                    false => kept.not_carried.push(place),
                }
                Ok(())
            })?;
            // The names too outlive a loss of power.
            nix::unistd::sync();
            Ok(())
        };
        match save(&mut kept) {
            Ok(()) => Ok(kept),
            Err(error) => {
                kept.discard();
                Err(error)
                    .with_context(|| format!("saving the reports that are on {}", device.display()))
                    .hint("nothing was written to it")
            }
        }
    }

    /// All of it is still on the stick.
    pub fn discard(self) {
        if let Some(folder) = self.folder {
            let _ = fs_err::remove_dir_all(folder);
        }
    }

    /// It is on the stick again; where something is not, the folder stays.
    pub fn carried(self) {
        if self.not_carried.is_empty() {
            self.discard();
        }
    }
}

/// A folder that nobody else has.
fn new_folder(device: &Path, within: &Path) -> Result<PathBuf> {
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 1..1000 {
        let folder = within.join(format!("gdsboot-reports-of-{name}-{number}"));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", folder.display())),
        }
    }
    anyhow::bail!("{} has too many folders of reports", within.display())
}
