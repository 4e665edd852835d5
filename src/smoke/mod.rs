//! Boots an image in QEMU and reads back what it reported.
//!
//! An image is copied, never written to. It is booted once per machine and firmware; each boot is judged by [`outcome`], and
//! the worst of them is the result. A QEMU that failed, or could not be started, is [`Status::Unavailable`], so that broken
//! infrastructure is never taken for a verdict.
//!
//! | file | what it is about |
//! |---|---|
//! | [`machine`], [`pci`], [`expectation`] | machine files: the guest, its buses and devices, what its report must say |
//! | [`gpus`] | the simulated GPUs of a boot |
//! | [`jobs`] | several boots at a time |
//! | [`update`] | makes what was reported what a machine file expects |
//! | [`argv`], [`argv_disks`] | QEMU's arguments |
//! | [`emulator`] | where QEMU comes from |
//! | [`accel`] | KVM, where a guest really boots under it |
//! | [`media`], [`copy`], [`data_drive`] | the image's copy, the report disks beside it, the machine's other drives |
//! | [`fault`], [`damage`] | what a machine file lets go wrong, and when |
//! | [`monitor`] | what is asked of a running QEMU |
//! | [`guest`], [`serial`], [`log`] | a running QEMU, its console as lines, the log of it |
//! | [`wait`], [`follow`] | the one waiting loop, and what is done meanwhile |
//! | [`console`], [`phases`] | what the lines mean, and the times between them |
//! | [`write_log`], [`replay`] | all writes of a boot, and what a power cut after any of them leaves |
//! | [`boot`], [`power_cut`], [`runs`], [`outcome`] | one boot, or one after each power cut, what it left, the judgement on it |
//! | [`render`], [`junit`] | the result for people, and for CI systems |

pub mod accel;
pub mod argv;
pub mod argv_disks;
pub mod boot;
pub mod console;
pub mod copy;
pub mod damage;
pub mod data_drive;
pub mod emulator;
pub mod expectation;
pub mod fault;
pub mod follow;
pub mod gpus;
pub mod guest;
pub mod jobs;
pub mod junit;
pub mod log;
pub mod machine;
pub mod media;
pub mod monitor;
pub mod outcome;
pub mod pci;
pub mod phases;
pub mod power_cut;
pub mod render;
pub mod replay;
pub mod runs;
pub mod sandboxed;
pub mod serial;
pub mod update;
pub mod wait;
pub mod write_log;

use crate::error::{Advise as _, Status, status_of, usage};
use crate::interrupt;
use crate::progress::Progress;
use crate::report::kind::Kind;
use crate::report::source::Image;
use anyhow::{Context as _, Result};
use boot::Boot;
use emulator::Emulator;
use machine::{Disk, Firmware, Machine};
use media::ReportDisk;
use outcome::Outcome;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is asked of a smoke test.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: PathBuf,
    /// The guests.
    pub machines: Vec<Machine>,
    /// Are the reports compared with what the machine files expect?
    pub compare: bool,
    /// How many guests may run at a time; `None` as many as cores and memory are there for.
    pub jobs: Option<usize>,
    /// Firmwares other than the machine file's, one boot each; none: that file's.
    pub firmware: Vec<Firmware>,
    /// Attachments other than the machine file's, one boot each; none: that file's.
    pub disks: Vec<Disk>,
    /// Attach the image so that nothing can write to it.
    pub read_only: bool,
    /// The report disk beside it.
    pub report: ReportDisk,
    /// The accelerator.
    pub accel: accel::Wanted,
    /// Multiplies all deadlines; more than 0.
    pub timeout_scale: f64,
    /// Is the run asked for a capture of its machine?
    pub capture: bool,
    /// Where to keep every boot's folder. Without it only failed boots are kept, among the temporary files.
    pub keep: Option<PathBuf>,
}

/// The result of a smoke test.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The exit status: that of the worst boot, see [`outcome::worst`].
    #[serde(serialize_with = "outcome::status_number")]
    pub status: Status,
    /// QEMU's version, as it says it.
    pub qemu: String,
    /// The accelerator, and why this one.
    pub accel: accel::Choice,
    /// The boots, in the order in which they ran.
    pub boots: Vec<Outcome>,
}

/// Boots the image as asked.
pub fn run(request: &Request, emulator: &Emulator, progress: &Progress) -> Result<Summary> {
    if !(request.timeout_scale > 0.0 && request.timeout_scale.is_finite()) {
        return Err(usage("--timeout-scale must be more than 0", "2 doubles every deadline"));
    }
    let image = Image::open(&request.image)?;
    if image.kind() != Kind::Iso {
        image.report_partition()?;
    }
    image.esp()?;
    let boots = boots(request, &image)?;
    let folders = Folders::new(request.keep.as_deref())?;
    let (qemu, accel) = folders.temporary(|folder| {
        let qemu = emulator.version(folder)?;
        Ok((qemu, accel::choose(request.accel, emulator, || image.kernel(), folder)?))
    })?;
    if request.machines.iter().any(|machine| !machine.gpus.is_empty()) {
        emulator::has_vfio_user(&qemu)?;
    }
    progress.note(format!("{qemu}; accelerator {}: {}", accel.accel, accel.why));
    let boots: Vec<Boot<'_>> = boots.into_iter().map(|boot| Boot { accel: accel.accel, ..boot }).collect();
    let needs: Vec<jobs::Need> = boots.iter().map(|boot| jobs::Need::of(boot.machine)).collect();
    let outcomes = jobs::run(&needs, request.jobs, |n| {
        let boot = &boots[n];
        let name = format!("{}-{}-{}", boot.machine.name, boot.firmware, boot.disk);
        let tried = folders.boot(&name, |folder| boot.run(emulator, folder, progress));
        match tried {
            // The others still say something.
            Err(error)
                if boots.len() > 1 && !interrupt::requested() && status_of(&error) != Status::Usage =>
            {
                Ok(boot.not_tried(&error))
            }
            tried => tried,
        }
    })?;
    let status = outcome::worst(outcomes.iter().map(Outcome::status));
    Ok(Summary { status, qemu, accel, boots: outcomes })
}

/// All boots that are asked for. Their accelerator is not chosen yet.
fn boots<'a>(request: &'a Request, image: &'a Image) -> Result<Vec<Boot<'a>>> {
    let mut boots = Vec::new();
    for machine in &request.machines {
        let firmwares = if request.firmware.is_empty() { &machine.firmware } else { &request.firmware };
        if machine.secure_boot && firmwares.iter().any(|firmware| *firmware != Firmware::Uefi) {
            return Err(usage(
                format!("the machine {} has Secure Boot, which UEFI alone has", machine.name),
                "leave --firmware out, or name another machine",
            ));
        }
        let damages = !machine.power_cuts.is_empty() || machine.report_partition.is_some();
        if damages && image.kind() != Kind::Raw {
            return Err(usage(
                format!(
                    "{} is no raw disk image, and no other is damaged as the machine {} says",
                    image.path().display(),
                    machine.name
                ),
                "build one: leave --format out",
            ));
        }
        let usual = if image.kind() == Kind::Iso { Disk::UsbCdrom } else { machine.disk };
        let disks = if request.disks.is_empty() { vec![usual] } else { request.disks.clone() };
        for (disk, firmware) in disks.iter().flat_map(|disk| firmwares.iter().map(move |f| (*disk, *f))) {
            media::check(image, disk)?;
            let is_as_written = disk == machine.disk
                && !request.read_only
                && request.report == ReportDisk::AsNeeded
                && image.kind() != Kind::Iso;
            boots.push(Boot {
                image,
                machine,
                firmware,
                disk,
                read_only: request.read_only,
                report: &request.report,
                accel: argv::Accel::Tcg,
                timeout_scale: request.timeout_scale,
                capture: request.capture,
                compare: request.compare && is_as_written && machine.firmware.contains(&firmware),
            });
        }
    }
    Ok(boots)
}

/// Where boots happen.
#[derive(Debug)]
struct Folders<'a> {
    keep: Option<&'a Path>,
}

impl<'a> Folders<'a> {
    fn new(keep: Option<&'a Path>) -> Result<Self> {
        if let Some(keep) = keep {
            fs_err::create_dir_all(keep)
                .context("making the folder for --keep")
                .hint("name a folder that can be written to")
                .status(Status::Usage)?;
        }
        Ok(Self { keep })
    }

    /// A folder that is gone afterwards.
    fn temporary<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let folder = Self::new_temporary()?;
        let result = work(folder.path());
        folder.close().context("removing a temporary folder")?;
        result
    }

    /// A folder that stays if the user wants to keep it, or if the boot failed.
    fn boot(&self, name: &str, work: impl FnOnce(&Path) -> Result<Outcome>) -> Result<Outcome> {
        if let Some(keep) = self.keep {
            let folder = std::path::absolute(keep.join(name)).context("finding the folder for --keep")?;
            fs_err::create_dir(&folder)
                .context("making a boot's folder")
                .hint("--keep never overwrites: name a folder that holds no boots yet")
                .status(Status::Usage)?;
            return work(&folder).map(|outcome| Outcome { kept: Some(folder), ..outcome });
        }
        let folder = Self::new_temporary()?;
        let outcome = work(folder.path())?;
        if outcome.result.is_err() {
            return Ok(Outcome { kept: Some(folder.keep()), ..outcome });
        }
        folder.close().context("removing a temporary folder")?;
        Ok(outcome)
    }

    fn new_temporary() -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("gdsboot-smoke-")
            .tempdir()
            .context("making a temporary folder")
            .hint("set TMPDIR to a folder that can be written to")
    }
}
