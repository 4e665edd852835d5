//! gdsboot-validator: static; PID 1 in the image, and a plain command anywhere else.

mod bench;
mod capture;
mod check;
mod explain;
mod facts;
mod machine;

#[cfg(feature = "builder")]
use clap::CommandFactory as _;
use clap::{Parser, Subcommand};
use gdsboot::error;
#[cfg(feature = "builder")]
use gdsboot::manual;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Says whether a machine can move data between NVMe and GPU memory by DMA, and if not, who must change what
///
/// It changes nothing. As a plain user it says what it could not read; root sees all of it.
#[derive(Debug, Parser)]
#[command(
    name = "gdsboot-validator",
    version,
    max_term_width = 80,
    after_help = "Exit status: 0 PASS, 1 FAIL, 2 INCOMPLETE, 64 usage, \
    69 something needed is missing or failed, 70 a bug in gdsboot"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Judge(check::JudgeArgs),
    Facts(facts::FactsArgs),
    Capture(capture::CaptureArgs),
    Bench(bench::BenchArgs),
    List(explain::ListArgs),
    Explain(explain::ExplainArgs),
    // Not on the image, which has neither manuals nor completion.
    #[cfg(feature = "builder")]
    Completions(manual::CompletionsArgs),
    #[cfg(feature = "builder")]
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    if is_init() {
        gdsboot::live::init();
    }
    let args: Args = match error::arguments() {
        Ok(args) => args,
        Err(status) => return status,
    };
    let result = match &args.command {
        Command::Check(args) => check::check(args),
        Command::Judge(args) => check::judge(args),
        Command::Facts(args) => facts::run(args),
        Command::Capture(args) => capture::run(args),
        Command::Bench(args) => bench::run(args),
        Command::List(args) => explain::list(args),
        Command::Explain(args) => explain::explain(args),
        #[cfg(feature = "builder")]
        Command::Completions(args) => manual::completions(args, Args::command()),
        #[cfg(feature = "builder")]
        Command::Man(args) => manual::man(args, Args::command()),
    };
    error::exit("gdsboot-validator", result)
}

/// Only what the kernel started as its init may act as one: in a container this program may be PID 1 too.
fn is_init() -> bool {
    let name = std::env::args_os().next();
    std::process::id() == 1
        && name.is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("init")))
}

/// Prints a result.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    Ok(gdsboot::output_stream::stdout().write_all(bytes)?)
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&gdsboot::report::json::pretty(value)?)
}
