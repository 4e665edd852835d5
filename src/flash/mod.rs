//! Writes an image to a stick, so that a stick that was not written to its end never boots: the first MiB, without which no
//! firmware finds anything, is zeroed first and written last, after all else was read back and compared.
//!
//! | file | what it is about |
//! |---|---|
//! | `target.rs` | which disk or file is meant, and whether it may be written to |
//! | `frame.rs` | what differs from the image: the partition table for the stick's size, the larger report partition |
//! | `medium.rs` | the one place that opens something for writing, and the only bytes that go there |
//! | `copy.rs` | writes pieces to a medium, and compares them |

mod copy;
mod frame;
mod medium;
pub mod target;

use crate::boot_contract::REPORT_RUNS;
use crate::builder::content::Content;
use crate::builder::fat::FatFile;
use crate::error::{Advise as _, hinted};
use crate::facts::Root;
use crate::progress::Progress;
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use copy::{Piece, compare, write};
use frame::Frame;
use medium::{Disk, Medium};
use std::path::{Path, PathBuf};
use std::time::Instant;
use target::Target;

/// What the user wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// May a disk be written to that cannot be pulled out?
    pub allow_fixed: bool,
    /// The word that names the disk, where the user said it beforehand.
    pub yes_serial: Option<String>,
    /// Where the reports that are on it are saved until they are carried over; without it they are lost.
    pub keep_reports: Option<PathBuf>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Written {
    /// Bytes that were written.
    pub bytes: u64,
    /// How long writing them took, until the medium had them.
    pub writing_seconds: f64,
    /// How long reading them back took.
    pub comparing_seconds: f64,
    /// Bytes of the report partition.
    pub report_bytes: u64,
    /// Reports that were carried over.
    pub kept: usize,
}

/// Asks the user for the word that names a disk: what is said, the answer.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<String>;

/// Writes the image at `image` to the disk or file at `device`.
///
/// # Errors
/// The image is none, the device must not be written to, the user does not name it, or it fails. Once writing has begun, the
/// error says that the stick does not boot, and where the reports are that it held.
pub fn flash(
    image: &Path,
    device: &Path,
    options: &Options,
    ask: Ask<'_>,
    progress: &Progress,
) -> Result<Written> {
    flash_on(&Root::live(), image, device, options, ask, progress)
}

/// The same on a machine that may be a test's.
fn flash_on(
    root: &Root,
    image: &Path,
    device: &Path,
    options: &Options,
    ask: Ask<'_>,
    progress: &Progress,
) -> Result<Written> {
    let image = Image::open(image)?;
    let target = Target::look(root, device)?;
    target.check(image.size(), options.allow_fixed)?;
    let old = frame::runs_on(device);
    if let Some(word) = target.word() {
        let lost = match (&old, &options.keep_reports) {
            (Ok(runs), None) if !runs.is_empty() => {
                format!(" and with it {} of gdsboot; --keep-reports carries them over", count(runs.len()))
            }
            _ => String::new(),
        };
        let said = match &options.yes_serial {
            Some(said) => said.clone(),
            None => ask(&format!("{target}\nAll that is on it is lost{lost}. To go on, type {word}: "))?,
        };
        target.is_meant(said.trim())?;
    }
    let kept = match &options.keep_reports {
        Some(folder) => Kept::save(&old?, device, folder)?,
        None => Kept::default(),
    };
    let frame = Frame::new(&image, target.bytes(), &kept.files)?;
    // The disk is looked at once more, now that nobody else can take it.
    let mut disk = Disk::open(device)?;
    target.is_still(root, &disk)?;
    let done = carry_out(&mut disk, &frame, progress).map_err(|error| {
        let mut hint = "it holds a part of the image and does not boot; write it again".to_owned();
        if let Some(folder) = &kept.folder {
            hint = format!("{hint}. The reports that were on it are in {}", folder.display());
        }
        hinted(format!("writing {}: {}", device.display(), crate::error::one_line(&error)), hint)
    })?;
    let written = Written { report_bytes: frame.report_bytes, kept: kept.runs, ..done };
    kept.discard();
    Ok(written)
}

fn count(runs: usize) -> String {
    format!("{runs} {}", if runs == 1 { "run" } else { "runs" })
}

/// Writes everything in the order that keeps a stick that was not finished from booting.
fn carry_out(medium: &mut dyn Medium, frame: &Frame<'_>, progress: &Progress) -> Result<Written> {
    let (middle, ends) = frame.pieces();
    let blank = frame.blank();
    let bytes = middle.iter().chain(&ends).map(|piece| piece.bytes).sum();
    let mut written =
        Written { bytes, writing_seconds: 0.0, comparing_seconds: 0.0, report_bytes: 0, kept: 0 };
    let mut timed = |pieces: &[Piece<'_>], medium: &mut dyn Medium, name: [&str; 2]| -> Result<()> {
        let begun = Instant::now();
        write(medium, pieces, &copy::stage(progress, name[0], pieces))?;
        written.writing_seconds += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        compare(medium, pieces, &copy::stage(progress, name[1], pieces))?;
        written.comparing_seconds += begun.elapsed().as_secs_f64();
        Ok(())
    };
    let quiet = Progress::none();
    write(medium, &blank, &copy::stage(&quiet, "", &blank)).context("taking away what would boot")?;
    timed(&middle, medium, ["writing", "comparing"])?;
    if let Err(error) = timed(&ends, medium, ["writing what boots", "comparing it"]) {
        // Some of it may have arrived. Where the medium takes nothing any more, there is nothing left to do.
        let _ = write(medium, &blank, &copy::stage(&quiet, "", &blank));
        return Err(error);
    }
    Ok(written)
}

/// Reports that were on a stick, saved until it is written.
#[derive(Debug, Default)]
struct Kept {
    folder: Option<PathBuf>,
    files: Vec<FatFile>,
    runs: usize,
}

impl Kept {
    /// Copies the runs into a new folder below `within`.
    fn save(runs: &[String], device: &Path, within: &Path) -> Result<Self> {
        if runs.is_empty() {
            return Ok(Self::default());
        }
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let free =
            (1..1000).map(|n| within.join(format!("gdsboot-reports-of-{name}-{n}"))).find(|p| !p.exists());
        let folder = free.context("finding a name for a folder for the reports")?;
        let mut files = Vec::new();
        frame::each_file(device, REPORT_RUNS, &mut |path, bytes| {
            let place = folder.join(path);
            fs_err::create_dir_all(place.parent().unwrap_or(&folder))?;
            let file = fs_err::File::create_new(&place)?;
            std::io::Write::write_all(&mut &file, &bytes)?;
            file.sync_all()?;
            files.push(FatFile { path: path.to_owned(), content: Content::of_file(&place)? });
            Ok(())
        })
        .with_context(|| format!("saving the reports that are on {}", device.display()))
        .hint("without --keep-reports they are lost")?;
        Ok(Self { folder: Some(folder), files, runs: runs.len() })
    }

    /// They are on the stick now.
    fn discard(self) {
        if let Some(folder) = self.folder {
            let _ = fs_err::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests;
