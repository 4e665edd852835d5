//! `gdsboot flash`: writes an image to a stick.

use super::common::Global;
use anyhow::{Context as _, Result};
use gdsboot::error::{Status, usage};
use gdsboot::facts::Root;
use gdsboot::flash::{Options, flash};
use gdsboot::output_stream::stdout;
use gdsboot::progress::bytes;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// Write an image to a stick, read it back, and make its report partition as large as the stick
#[derive(Debug, clap::Args)]
pub struct FlashArgs {
    /// The image
    pub image: PathBuf,
    /// The whole disk, such as /dev/sdb; or a file that exists: it gets a stick's content
    pub device: PathBuf,
    /// Write also to a disk that cannot be pulled out
    #[arg(long)]
    pub allow_fixed: bool,
    /// Do not ask: this is the serial number of the disk, or its size in bytes where it has none
    #[arg(long, value_name = "SERIAL")]
    pub yes_serial: Option<String>,
    /// Carry over the reports and settings that are on it
    #[arg(long)]
    pub keep_reports: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &FlashArgs, global: &Global) -> Result<Status> {
    let options = Options {
        allow_fixed: args.allow_fixed,
        yes_serial: args.yes_serial.clone(),
        // Beside the user, not in memory: they outlive a machine that loses its power.
        keep_reports: args.keep_reports.then(|| PathBuf::from(".")),
    };
    let written = flash(&Root::live(), &args.image, &args.device, &options, &mut ask, &global.progress())?;
    let mut out = stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &written).context("writing the result")?;
        writeln!(out).context("writing the result")?;
        return Ok(Status::Pass);
    }
    let rate = |seconds: f64| {
        format!("{seconds:.1} s, {}/s", bytes((written.bytes as f64 / seconds.max(1e-9)) as u64))
    };
    let mut say = |line: String| writeln!(out, "{line}").context("writing the result");
    say(format!(
        "wrote {} ({}) and read them back ({})",
        bytes(written.bytes),
        rate(written.writing_seconds),
        rate(written.comparing_seconds)
    ))?;
    for path in &written.not_carried {
        say(format!("not carried over, because FAT cannot have that name: {}", path.display()))?;
    }
    if written.kept > 0 {
        say(format!("carried over {} of the runs that were on it", written.kept))?;
    }
    say(format!(
        "{} boots now; its partition GDSREPORT has {} for reports",
        args.device.display(),
        bytes(written.report_bytes)
    ))?;
    Ok(Status::Pass)
}

fn ask(said: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        let question = said.trim_end_matches(|letter| letter != '\n').trim_end();
        return Err(usage(
            format!("{question}\nnobody is there to be asked"),
            "name the disk beforehand: --yes-serial SERIAL",
        ));
    }
    eprint!("{said}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(answer)
}
