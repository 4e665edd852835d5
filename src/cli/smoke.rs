//! `gdsboot smoke`: boots an image in QEMU and shows what it reported.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use gdsboot::error::Status;
use gdsboot::progress::Progress;
use gdsboot::smoke::accel::Wanted;
use gdsboot::smoke::emulator::Emulator;
use gdsboot::smoke::machine::{self, Disk, Machine};
use gdsboot::smoke::{self, Request, render};
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
    /// Machine to boot it in: a built-in name or a machine file
    #[arg(long, default_value = machine::DEFAULT)]
    pub machine: String,
    /// Firmware to boot it with [default: as the machine says]
    #[arg(long)]
    pub firmware: Option<Firmware>,
    /// How to attach it [default: as the machine says]
    #[arg(long)]
    pub disk: Option<Disk>,
    /// What executes the guest; auto takes KVM only where a guest boots under it
    #[arg(long, default_value = "auto")]
    pub accel: Wanted,
    /// Multiply every deadline by this
    #[arg(long, default_value_t = 1.0)]
    pub timeout_scale: f64,
    /// Keep every boot's log, report and disk in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// QEMU to use [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Folder that holds OVMF_CODE_4M.fd and OVMF_VARS_4M.fd
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
pub fn run(args: SmokeArgs, progress: &Progress) -> Result<Status> {
    let request = Request {
        image: args.image,
        machine: Machine::load(&args.machine)?,
        firmware: args.firmware.map(Firmware::list),
        disk: args.disk,
        accel: args.accel,
        timeout_scale: args.timeout_scale,
        keep: args.keep,
    };
    let emulator = Emulator::of_host(args.qemu.as_deref(), args.firmware_dir.as_deref());
    let summary = smoke::run(&request, &emulator, progress)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &summary).context("writing the result")?;
        writeln!(out).context("writing the result")?;
    } else {
        render::text(&summary, &mut out).context("writing the result")?;
    }
    Ok(summary.status)
}
