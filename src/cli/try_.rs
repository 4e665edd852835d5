//! `gdsboot try`: build an image and boot it, in one command.

use super::build::{self, BuildArgs};
use super::common::Global;
use super::smoke::{How, pinned_emulator};
use anyhow::Result;
use gdsboot::error::Status;
use gdsboot::smoke::{
    self,
    machine::{self, Machine},
};

/// Build an image, boot it in QEMU, show its report
///
/// The exit status is that of the report: 2 (INCOMPLETE) where there is no GPU.
#[derive(Debug, clap::Args)]
pub struct TryArgs {
    #[command(flatten)]
    build: BuildArgs,
    /// Machine to boot it in: a built-in name or a machine file
    #[arg(long, value_name = "NAME", default_value = machine::DEFAULT)]
    machine: String,
    #[command(flatten)]
    how: How,
}

pub fn run(args: &TryArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let machine = Machine::load(&args.machine)?;
    let (resolved, output, built) = build::build(&args.build, global, &progress)?;
    build::report(&output, &built)?;
    let emulator = match &args.how.qemu {
        Some(_) => args.how.host_emulator(),
        None => pinned_emulator(&resolved, &progress)?,
    };
    let request = args.how.request(output.path().to_owned(), vec![machine]);
    let summary = smoke::run(&request, &emulator, &progress)?;
    args.how.show(&summary)?;
    Ok(summary.status)
}
