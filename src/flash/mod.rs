//! Writes an image to a stick, so that a stick that was not written to its end never boots: the first MiB, without which no
//! firmware finds anything, is zeroed first and written last, after all else was read back and compared.
//!
//! | file | what it is about |
//! |---|---|
//! | `target.rs` | which disk or file is meant, and whether it may be written to |
//! | `frame.rs` | what differs from the image: the partition table for the stick's size, the larger report partition |
//! | `kept.rs` | reports and settings of the stick, saved until they are carried over |
//! | `medium.rs` | the one place that opens the stick for writing, and the only bytes that go there |
//! | `copy.rs` | writes pieces to a medium, and compares them |

mod copy;
mod frame;
mod kept;
mod medium;
pub mod target;

use crate::error::{Advise as _, Status, hinted, one_line, usage};
use crate::facts::Root;
use crate::interrupt;
use crate::progress::Progress;
use crate::report::kind::Kind;
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use copy::{Piece, compare, write};
use frame::Frame;
use kept::Kept;
use medium::{Disk, Medium};
use std::fs::File;
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
    /// Where the reports and settings that are on it are saved until they are carried over; without it they are lost.
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
    /// Runs that were carried over.
    pub kept: usize,
    /// Files that were saved and could not be carried over, because FAT as gdsboot writes it has no such names.
    pub not_carried: Vec<PathBuf>,
}

/// Asks the user for the word that names a disk: what is said, the answer.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<String>;

/// Writes the image at `image` to the disk or file at `device`, as the machine `root` shows it.
///
/// # Errors
/// The image is none, the device must not be written to, the user does not name it, or it fails. Once writing has begun, the
/// error says what the stick is now, and where the reports are that it held.
pub fn flash(
    root: &Root,
    image: &Path,
    device: &Path,
    options: &Options,
    ask: Ask<'_>,
    progress: &Progress,
) -> Result<Written> {
    let image = Image::open(image)?;
    require_raw(&image)?;
    let target = Target::look(root, device)?;
    target.check(&image, options.allow_fixed)?;
    consent(&target, device, options, ask, progress)?;
    // The disk is looked at once more, now that nobody else can take it.
    let mut disk = Disk::open(device, target.identity())?;
    target.is_still(root)?;
    let kept = match &options.keep_reports {
        Some(folder) => Kept::save(disk.file(), device, folder, progress)?,
        None => Kept::default(),
    };
    let frame = match Frame::new(&image, target.bytes(), &kept.files) {
        Ok(frame) => frame,
        Err(error) => {
            // Nothing was written, and nobody else could write: the reports are where they were.
            kept.discard();
            return Err(error);
        }
    };
    let done = carry_out(&mut disk, &frame, progress).map_err(|failed| {
        let mut hint = failed.hint.to_owned();
        if let Some(folder) = &kept.folder {
            hint = format!("{hint}. The reports that were on it are in {}", folder.display());
        }
        hinted(format!("writing {}: {}", device.display(), one_line(&failed.error)), hint)
    })?;
    let report_bytes = frame.report_bytes;
    let (runs, not_carried) = (kept.runs, kept.not_carried.clone());
    drop(frame);
    kept.carried();
    Ok(Written { report_bytes, kept: runs, not_carried, ..done })
}

/// A stick holds a disk as it is, and its own report partition.
fn require_raw(image: &Image) -> Result<()> {
    let what = match image.kind() {
        Kind::Raw => return Ok(()),
        Kind::Qcow2 => "a qcow2 file, which hypervisors read and firmware does not",
        Kind::Iso => "an ISO for CD-ROM drives, which has no room for reports",
    };
    Err(usage(
        format!("{} is {what}", image.path().display()),
        "build the disk image and write that: gdsboot build --format raw",
    ))
}

/// Has the user named the disk, knowing what is lost? Nobody is asked for a file: what it holds is left as it is.
fn consent(
    target: &Target,
    device: &Path,
    options: &Options,
    ask: Ask<'_>,
    progress: &Progress,
) -> Result<()> {
    let shown = device.display();
    let runs = File::open(device)
        .with_context(|| format!("opening {shown}"))
        .status(Status::Usage)
        .hint("disks are read and written by root")
        .map(|file| frame::runs_on(&file))?;
    let keeps = options.keep_reports.is_some();
    let lost =
        match runs {
            Ok(runs) if runs.is_empty() || keeps => None,
            Ok(runs) => Some(format!("{} of gdsboot, which --keep-reports carries over", count(runs.len()))),
            Err(error) if keeps => {
                return Err(error)
                .with_context(|| format!("reading the reports that are on {shown}"))
                .status(Status::Usage)
                .hint("copy what can still be read by other means; without --keep-reports all of it is lost");
            }
            Err(error) => Some(format!("what gdsboot cannot read ({})", one_line(&error))),
        };
    let Some(word) = target.word() else {
        return match lost {
            Some(lost) => Err(usage(format!("not writing to {shown}: it holds {lost}"), "name a new file")),
            None => Ok(()),
        };
    };
    let lost = match (lost, keeps) {
        (Some(lost), _) => format!("All that is on it is lost, and with it {lost}."),
        (None, true) => "All that is on it is lost but for its reports and settings.".into(),
        (None, false) => "All that is on it is lost.".into(),
    };
    let said = match &options.yes_serial {
        Some(said) => {
            progress.note(format!("{target}. {lost}"));
            said.clone()
        }
        None => ask(&format!("{target}\n{lost} To go on, type {word}: "))?,
    };
    interrupt::check()?;
    target.is_meant(said.trim())
}

fn count(runs: usize) -> String {
    format!("{runs} {}", if runs == 1 { "run" } else { "runs" })
}

/// Why a stick is not what it should be, and what it is instead.
#[derive(Debug)]
struct Failed {
    error: anyhow::Error,
    hint: &'static str,
}

/// Writes everything in the order that keeps a stick that was not finished from booting.
fn carry_out(medium: &mut dyn Medium, frame: &Frame<'_>, progress: &Progress) -> Result<Written, Failed> {
    let (most, head) = frame.pieces();
    let blank = frame.blank();
    let bytes = most.iter().chain(&head).map(|piece| piece.bytes).sum();
    let mut written = Written {
        bytes,
        writing_seconds: 0.0,
        comparing_seconds: 0.0,
        report_bytes: 0,
        kept: 0,
        not_carried: Vec::new(),
    };
    let mut timed = |pieces: &[Piece<'_>], medium: &mut dyn Medium, name: [&str; 2]| -> Result<()> {
        let begun = Instant::now();
        write(medium, pieces, &copy::stage(progress, name[0], pieces), true)?;
        written.writing_seconds += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        compare(medium, pieces, &copy::stage(progress, name[1], pieces))?;
        written.comparing_seconds += begun.elapsed().as_secs_f64();
        Ok(())
    };
    let take_away = |medium: &mut dyn Medium| {
        write(medium, &blank, &copy::stage(&Progress::none(), "", &blank), false)
            .context("taking away what would boot")
    };
    take_away(medium).map_err(|error| Failed {
        error,
        hint: "it may be as it was, or have lost its partition table; nothing of the image is on it",
    })?;
    let part = "it holds a part of the image and does not boot: write a disk again, delete a file";
    timed(&most, medium, ["writing", "comparing"]).map_err(|error| Failed { error, hint: part })?;
    timed(&head, medium, ["writing what boots", "comparing it"]).map_err(|error| {
        // Some of it may have arrived.
        let hint = match take_away(medium) {
            Ok(()) => part,
            Err(_) => {
                "all of the image is on it but its first MiB, which may be there or not: do not trust it"
            }
        };
        Failed { error, hint }
    })?;
    Ok(written)
}

#[cfg(test)]
mod tests;
