//! `gdsboot recompute`: a benchmark's figures once more, from its raw samples.

use anyhow::{Context as _, Result};
use gdsboot::bench::recompute;
use gdsboot::error::Status;
use gdsboot::output_stream::stdout;
use std::io::Write as _;
use std::path::PathBuf;

/// Compute a benchmark's figures once more from the raw samples saved next to them, and say what differs
#[derive(Debug, clap::Args)]
pub struct RecomputeArgs {
    /// A run's folder from a report partition, or what gdsboot-validator bench --json printed
    pub path: PathBuf,
}

/// Runs the command.
pub fn run(args: &RecomputeArgs) -> Result<Status> {
    let (results, raw) = recompute::read(&args.path)?;
    let differences = recompute::differences(&results, &raw);
    let mut out = stdout();
    let mut say = |line: &str| writeln!(out, "{line}").context("writing the result");
    for difference in &differences {
        say(difference)?;
    }
    let count = results.measurements.len();
    say(&match differences.len() {
        0 => format!("{count} measurements are what their raw samples give"),
        wrong => format!("{wrong} things in {count} measurements are not what their raw samples give"),
    })?;
    Ok(if differences.is_empty() { Status::Pass } else { Status::Fail })
}
