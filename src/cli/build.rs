//! `gdsboot build`: a profile becomes an image.

use super::common::{Global, Resolved, Source};
use anyhow::Result;
use gdsboot::builder::format::{Format, netboot};
use gdsboot::builder::image::{self, Built, Inputs, Place};
use gdsboot::builder::output::Output;
use gdsboot::builder::output_folder::OutputFolder;
use gdsboot::builder::overlay::Overlays;
use gdsboot::builder::programs::{self, Programs};
use gdsboot::error::{Status, usage};
use gdsboot::progress::{Progress, bytes};
use std::path::{Path, PathBuf};

/// Build a bootable image
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub source: Source,
    /// What to build
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: Format,
    /// Where the image goes [default: gdsboot-PROFILE.img, .qcow2, .iso, .netboot]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Of netboot: where reports are sent by PUT
    #[arg(long, value_name = "URL")]
    pub report_url: Option<String>,
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
    if args.format == Format::Netboot {
        return netboot(args, global, &progress);
    }
    let (_, output, built) = build(args, global, &progress)?;
    report(&output, &built)?;
    Ok(Status::Pass)
}

/// What a build is made of, found before anything that takes minutes.
struct Prepared {
    resolved: Resolved,
    overlays: Overlays,
    programs: Programs,
    format: Format,
}

impl Prepared {
    /// Mistakes first: they are found in a moment, what comes next takes minutes. `output` takes the place of what is built.
    fn new<O>(
        args: &BuildArgs,
        global: &Global,
        progress: &Progress,
        output: impl FnOnce(&Path) -> Result<O>,
    ) -> Result<(Self, O)> {
        let profile = args.source.profile(progress)?;
        let overlays = Overlays::new(&args.with)?;
        profile.check_overlays(&overlays.names)?;
        let default = || PathBuf::from(format!("gdsboot-{}.{}", profile.name, args.format.extension()));
        let output = output(&args.output.clone().unwrap_or_else(default))?;
        let named = args.programs.as_deref().map(programs::named).transpose()?;
        let resolved = args.source.packages.resolve(profile, global, progress)?;
        let programs = named.map_or_else(|| programs::find(progress), Ok)?;
        Ok((Self { resolved, overlays, programs, format: args.format }, output))
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            profile: &self.resolved.profile,
            lock: &self.resolved.lock,
            overlays: &self.overlays,
            programs: &self.programs,
            format: self.format,
        }
    }

    fn place<'a>(&'a self, progress: &'a Progress) -> Place<'a> {
        let Resolved { pool, mirrors, cache, .. } = &self.resolved;
        Place { pool, mirrors, cache, progress }
    }
}

/// Builds the folder for a web server.
fn netboot(args: &BuildArgs, global: &Global, progress: &Progress) -> Result<Status> {
    if args.check_reproducible {
        return Err(usage("--check-reproducible is for images", "leave it or --format netboot out"));
    }
    args.report_url.as_deref().map_or(Ok(()), netboot::check_report_url)?;
    let folder = |path: &Path| OutputFolder::new(path, netboot::MADE);
    let (prepared, output) = Prepared::new(args, global, progress, folder)?;
    let report_url = args.report_url.as_deref();
    let manifest = image::build_netboot(&prepared.inputs(), &prepared.place(progress), &output, report_url)?;
    println!(
        "{}: image {}; README.txt there says how to serve it",
        output.path().display(),
        manifest.image_id
    );
    Ok(Status::Pass)
}

/// Builds and says nothing; for `try` as well.
pub fn build(args: &BuildArgs, global: &Global, progress: &Progress) -> Result<(Resolved, Output, Built)> {
    if args.format == Format::Netboot {
        return Err(usage("a netboot folder is no disk image, and this boots one", "leave --format out"));
    }
    if args.report_url.is_some() {
        return Err(usage(
            "--report-url is for --format netboot",
            "on an image it is the setting report_url in gdsboot.toml (docs/network.md)",
        ));
    }
    let (prepared, output) = Prepared::new(args, global, progress, Output::new)?;
    let (inputs, place) = (prepared.inputs(), prepared.place(progress));
    if args.check_reproducible {
        gdsboot::builder::reproducible::check(&inputs, &place)?;
    }
    let built = image::build(&inputs, &place, &output)?;
    Ok((prepared.resolved, output, built))
}

/// Says what was built.
pub fn report(output: &Output, built: &Built) -> Result<()> {
    let size = fs_err::metadata(output.path())?.len();
    let state = if built.was_current { " (already current)" } else { "" };
    println!("{}: {}, image {}{state}", output.path().display(), bytes(size), built.manifest.image_id);
    Ok(())
}
