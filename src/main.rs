//! gdsboot: parse, dispatch, print the error and its hint.

mod cli;

use clap::{CommandFactory as _, Parser};
use gdsboot::error;
use gdsboot::{interrupt, manual};
use std::process::ExitCode;

/// Build and boot an image that proves whether a machine moves data between NVMe and GPU memory by DMA
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 80,
    after_help = "Exit status: 0 PASS, 1 FAIL, 2 INCOMPLETE, 64 usage, \
    69 something needed is missing or failed, 70 a bug in gdsboot"
)]
struct Args {
    #[command(flatten)]
    global: cli::common::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Try(cli::try_::TryArgs),
    Build(cli::build::BuildArgs),
    Doctor(cli::doctor::DoctorArgs),
    Lock(cli::lock::LockArgs),
    Fetch(cli::fetch::FetchArgs),
    Smoke(cli::smoke::SmokeArgs),
    Flash(cli::flash::FlashArgs),
    SplitReport(cli::split_report::SplitReportArgs),
    Vm(cli::vm::VmArgs),
    Inspect(cli::inspect::InspectArgs),
    Report(cli::report::ReportArgs),
    Recompute(cli::recompute::RecomputeArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    interrupt::install();
    let args: Args = match error::arguments() {
        Ok(args) => args,
        Err(status) => return status,
    };
    let global = &args.global;
    let result = match &args.command {
        Command::Try(args) => cli::try_::run(args, global),
        Command::Build(args) => cli::build::run(args, global),
        Command::Doctor(args) => cli::doctor::run(args, global),
        Command::Lock(args) => cli::lock::run(args, global),
        Command::Fetch(args) => cli::fetch::run(args, global),
        Command::Smoke(args) => cli::smoke::run(args, global),
        Command::Flash(args) => cli::flash::run(args, global),
        Command::SplitReport(args) => cli::split_report::run(args, global),
        Command::Vm(args) => cli::vm::run(args),
        Command::Inspect(args) => cli::inspect::run(args),
        Command::Report(args) => cli::report::run(args, global),
        Command::Recompute(args) => cli::recompute::run(args),
        Command::Completions(args) => manual::completions(args, Args::command()),
        Command::Man(args) => manual::man(args, Args::command()),
    };
    if result.is_err() && interrupt::requested() {
        // A stick that was begun is the one thing that stays half-written, and its error says so.
        match &args.command {
            Command::Flash(_) => {
                error::exit("gdsboot", result);
            }
            _ => eprintln!("gdsboot: interrupted; nothing was left half-written"),
        }
        return ExitCode::from(130);
    }
    error::exit("gdsboot", result)
}
