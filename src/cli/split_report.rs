//! `gdsboot split-report`: a disk for reports alone.

use super::common::Global;
use anyhow::{Context as _, Result};
use gdsboot::bench::transfer::job;
use gdsboot::builder::format::qcow2;
use gdsboot::builder::output::Output;
use gdsboot::builder::split_report::{self, Request};
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::live;
use gdsboot::progress::bytes;
use std::path::{Path, PathBuf};

/// Make a small disk for reports alone, beside an image that is attached read-only or an ISO
///
/// It has one partition, GDSREPORT, which a run finds by that name on any disk; it wins over the image's own. A file that
/// exists is never overwritten: it may hold reports.
#[derive(Debug, clap::Args)]
pub struct SplitReportArgs {
    /// Where it goes [default: gdsboot-report.img, .qcow2]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How large it is, such as 64M or 1G
    #[arg(long, default_value = "64M", value_parser = size)]
    pub size: u64,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: DiskFormat,
    /// Settings to put on it [default: a gdsboot.toml with everything commented out]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// The formats of a disk that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DiskFormat {
    /// A disk image
    Raw,
    /// For QEMU, Proxmox and libvirt
    Qcow2,
}

fn size(text: &str) -> Result<u64, String> {
    job::size(text).ok_or_else(|| "it is no size such as 64M or 1G".to_owned())
}

/// Runs the command.
pub fn run(args: &SplitReportArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let name = match args.format {
        DiskFormat::Raw => "gdsboot-report.img",
        DiskFormat::Qcow2 => "gdsboot-report.qcow2",
    };
    let output = Output::new(&args.output.clone().unwrap_or_else(|| name.into()))?;
    let settings = args.settings.as_deref().map(read_settings).transpose()?;
    let request = Request { size: args.size, settings };
    output.create(|file| match args.format {
        DiskFormat::Raw => split_report::write(&request, file, &progress),
        DiskFormat::Qcow2 => {
            let raw = output.scratch()?;
            split_report::write(&request, &raw, &progress)?;
            qcow2::write(&raw, file, &progress)
        }
    })?;
    println!("{}: a report disk of {}", output.path().display(), bytes(args.size));
    Ok(Status::Pass)
}

/// Refuses settings that a run would complain about.
fn read_settings(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs_err::read(path)
        .context("reading the settings")
        .hint("name a gdsboot.toml")
        .status(Status::Usage)?;
    let complaints = live::complaints(&bytes);
    if complaints.is_empty() {
        return Ok(bytes);
    }
    Err(usage(
        format!("the settings {} are not understood: {}", path.display(), complaints.join("; ")),
        "the gdsboot.toml that a new report disk has shows every key",
    ))
}
