//! gdsboot: parse, dispatch, print the error and its hint.

mod cli;

use clap::Parser;
use gdsboot::error::{Status, hint_of, one_line, status_of};
use gdsboot::progress::{Mode, Progress};
use std::process::ExitCode;

/// Build and boot an image that proves whether a machine moves data between NVMe and GPU memory by DMA
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How progress is shown, on standard error
    #[arg(long, global = true, default_value = "auto")]
    progress: Mode,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Smoke(cli::smoke::SmokeArgs),
    Inspect(cli::inspect::InspectArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|e| {
        let _ = e.print();
        std::process::exit(if e.use_stderr() { Status::Usage as i32 } else { 0 })
    });
    gdsboot::interrupt::install();
    let progress = Progress::new(arguments.progress);
    let result = match arguments.command {
        Command::Smoke(args) => cli::smoke::run(args, &progress),
        Command::Inspect(args) => cli::inspect::run(args),
    };
    let status = result.unwrap_or_else(|e| {
        eprintln!("gdsboot: error: {}", one_line(&e));
        if let Some(hint) = hint_of(&e) {
            eprintln!("hint: {hint}");
        }
        status_of(&e)
    });
    ExitCode::from(status as u8)
}
