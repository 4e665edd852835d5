//! `gdsboot smoke`: boots an image in QEMU and shows what it reported.

use super::common::{Global, Packages, Resolved};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gdsboot::builder::image::{Place, unpacked_root};
use gdsboot::builder::lock;
use gdsboot::builder::profile::Profile;
use gdsboot::error::{Advise as _, Status};
use gdsboot::output_stream::stdout;
use gdsboot::progress::Progress;
use gdsboot::report::source::Image;
use gdsboot::smoke::accel::Wanted;
use gdsboot::smoke::emulator::Emulator;
use gdsboot::smoke::machine::{self, Disk, Machine};
use gdsboot::smoke::media::ReportDisk;
use gdsboot::smoke::{self, Request, render, sandboxed};
use std::io::Write as _;
use std::path::PathBuf;

/// Boot an image in QEMU and show what it reported
///
/// The image is copied and never changed. It is booted once per firmware; the exit status is that of the worst boot:
/// 0 PASS, 2 INCOMPLETE (what an image reports where there is no GPU), 1 FAIL or no complete report, 69 QEMU failed.
#[derive(Debug, clap::Args)]
pub struct SmokeArgs {
    /// The image to boot
    pub image: PathBuf,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub packages: Packages,
}

/// How to boot; shared with `try`.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// Machine to boot it in: a built-in name or a machine file
    #[arg(long, default_value = machine::DEFAULT)]
    pub machine: String,
    /// Firmware to boot it with [default: as the machine says]
    #[arg(long)]
    pub firmware: Option<Firmware>,
    /// How to attach it [default: as the machine says]
    #[arg(long)]
    pub disk: Option<Disk>,
    /// Attach it so that nothing can write to it
    #[arg(long)]
    pub read_only: bool,
    /// Attach a report disk too: a file of `gdsboot split-report`, new, or none [default: new for an ISO]
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub report_disk: ReportDisk,
    /// What executes the guest; auto takes KVM only where a guest boots under it
    #[arg(long, default_value = "auto")]
    pub accel: Wanted,
    /// Multiply every deadline by this
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub timeout_scale: f64,
    /// Keep every boot's log, report and disk in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Ask the run for a capture of its machine, and keep that too
    #[arg(long, requires = "keep")]
    pub capture: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// QEMU to use [default: the one that the image's profile pins]
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Folder that holds OVMF_CODE_4M.fd and OVMF_VARS_4M.fd (.ms.fd for Secure Boot)
    #[arg(long, value_name = "DIR")]
    pub firmware_dir: Option<PathBuf>,
}

/// Which firmwares to boot with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Firmware {
    /// OVMF
    Uefi,
    /// SeaBIOS
    Bios,
    /// One after the other
    Both,
}

impl Firmware {
    fn list(self) -> Vec<machine::Firmware> {
        match self {
            Self::Uefi => vec![machine::Firmware::Uefi],
            Self::Bios => vec![machine::Firmware::Bios],
            Self::Both => vec![machine::Firmware::Uefi, machine::Firmware::Bios],
        }
    }
}

/// Runs the command.
pub fn run(args: &SmokeArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let emulator = match &args.how.qemu {
        Some(_) => args.how.host_emulator(),
        None => {
            let manifest = gdsboot::inspect::manifest(&Image::open(&args.image)?)
                .hint("name a QEMU of this host instead: --qemu qemu-system-x86_64")?;
            let profile =
                Profile::load(&manifest.profile).hint("name a QEMU of this host: --qemu PROGRAM")?;
            pinned_emulator(&args.packages.resolve(profile, global, &progress)?, &progress)?
        }
    };
    args.how.boot(args.image.clone(), &emulator, &progress)
}

/// The emulator that a profile's lock pins.
pub fn pinned_emulator(resolved: &Resolved, progress: &Progress) -> Result<Emulator> {
    let place = Place { pool: &resolved.pool, mirrors: &resolved.mirrors, cache: &resolved.cache, progress };
    sandboxed::emulator(&unpacked_root(&resolved.lock, lock::SET_EMULATOR, &place)?)
}

impl How {
    /// A QEMU of this host.
    pub fn host_emulator(&self) -> Emulator {
        Emulator::of_host(self.qemu.as_deref(), self.firmware_dir.as_deref())
    }

    /// Boots an image and prints what came of it.
    pub fn boot(&self, image: PathBuf, emulator: &Emulator, progress: &Progress) -> Result<Status> {
        let request = Request {
            image,
            machine: Machine::load(&self.machine)?,
            firmware: self.firmware.map(Firmware::list),
            disk: self.disk,
            read_only: self.read_only,
            report: self.report_disk.clone(),
            accel: self.accel,
            timeout_scale: self.timeout_scale,
            capture: self.capture,
            keep: self.keep.clone(),
        };
        let summary = smoke::run(&request, emulator, progress)?;
        let mut out = stdout();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &summary).context("writing the result")?;
            writeln!(out).context("writing the result")?;
        } else {
            render::text(&summary, &mut out).context("writing the result")?;
        }
        Ok(summary.status)
    }
}
