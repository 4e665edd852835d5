//! `gdsboot inspect`: what an image is and what is on it.

use anyhow::{Context as _, Result};
use gdsboot::error::Status;
use gdsboot::inspect;
use gdsboot::output_stream::stdout;
use gdsboot::report::source::Image;
use std::io::Write as _;
use std::path::PathBuf;

/// Show an image's partitions, what it was built from, and its runs
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The image
    pub image: PathBuf,
    /// List every package with its version
    #[arg(long)]
    pub packages: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<Status> {
    let inspection = inspect::inspect(&Image::open(&args.image)?);
    let mut out = stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &inspection).context("writing the result")?;
        writeln!(out).context("writing the result")?;
    } else {
        inspect::text(&inspection, args.packages, &mut out).context("writing the result")?;
    }
    Ok(Status::Pass)
}
