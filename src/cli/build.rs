//! `gdsboot build`: a profile becomes an image.

use super::common::{Global, Resolved, Source};
use anyhow::Result;
use gdsboot::builder::format::Format;
use gdsboot::builder::image::{self, Built, Inputs, Place};
use gdsboot::builder::output::Output;
use gdsboot::builder::overlay::Overlays;
use gdsboot::builder::programs;
use gdsboot::error::Status;
use gdsboot::progress::{Progress, bytes};
use std::path::PathBuf;

/// Build a bootable image
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub source: Source,
    /// What to build
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: Format,
    /// Where the image goes [default: gdsboot-PROFILE.img, .qcow2]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Add a group of packages, such as debug, or the files of a folder, such as ./mine/ (may be repeated)
    #[arg(long, value_name = "OVERLAY")]
    pub with: Vec<String>,
    /// Take gdsboot-validator and gdsboot-dma from here instead of building them
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Build twice from nothing and name what differs
    #[arg(long)]
    pub check_reproducible: bool,
}

pub fn run(args: &BuildArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let (_, output, built) = build(args, global, &progress)?;
    report(&output, &built)?;
    Ok(Status::Pass)
}

/// Builds and says nothing; for `try` as well.
pub fn build(args: &BuildArgs, global: &Global, progress: &Progress) -> Result<(Resolved, Output, Built)> {
    let profile = args.source.profile(progress)?;
    let overlays = Overlays::new(&args.with)?;
    profile.check_overlays(&overlays.names)?;
    let default = || PathBuf::from(format!("gdsboot-{}.{}", profile.name, args.format.extension()));
    let output = Output::new(&args.output.clone().unwrap_or_else(default))?;
    // Mistakes first: this one is found in a moment, and what comes next takes minutes.
    let named = args.programs.as_deref().map(programs::named).transpose()?;
    let resolved = args.source.packages.resolve(profile, global, progress)?;
    let programs = match named {
        Some(programs) => programs,
        None => programs::find(progress)?,
    };
    let inputs = Inputs {
        profile: &resolved.profile,
        lock: &resolved.lock,
        overlays: &overlays,
        programs: &programs,
        format: args.format,
    };
    let place = Place { pool: &resolved.pool, mirrors: &resolved.mirrors, cache: &resolved.cache, progress };
    if args.check_reproducible {
        gdsboot::builder::reproducible::check(&inputs, &place)?;
    }
    let built = image::build(&inputs, &place, &output)?;
    Ok((resolved, output, built))
}

/// Says what was built.
pub fn report(output: &Output, built: &Built) -> Result<()> {
    let size = fs_err::metadata(output.path())?.len();
    let state = if built.was_current { " (already current)" } else { "" };
    println!("{}: {}, image {}{state}", output.path().display(), bytes(size), built.manifest.image_id);
    Ok(())
}
