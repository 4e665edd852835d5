//! gdsboot-validator: static; PID 1 in the image, and a plain command anywhere else.

use clap::{Parser, Subcommand};
use gdsboot::error;
use gdsboot::facts::{Facts, Root};
use gdsboot::report::text;
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Says whether a machine can move data between NVMe and GPU memory by DMA.
#[derive(Debug, Parser)]
#[command(name = "gdsboot-validator", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what can be read of a machine, without judging it.
    Facts {
        /// Read a folder that mirrors a machine's absolute paths, instead of this machine.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    if is_init() {
        gdsboot::live::init();
    }
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gdsboot-validator: error: {}", error::one_line(&error));
            if let Some(hint) = error::hint_of(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error::status_of(&error) as u8)
        }
    }
}

/// Only what the kernel started as its init may act as one: in a container this program may be PID 1 too.
fn is_init() -> bool {
    let name = std::env::args_os().next();
    std::process::id() == 1
        && name.is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("init")))
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Facts { root, json } => {
            if !root.is_dir() {
                let hint = "name a folder that mirrors a machine, or leave --root away";
                return Err(error::usage(format!("reading {}: not a folder", root.display()), hint));
            }
            print(&Facts::read(&Root::at(root)), json)
        }
    }
}

fn print(facts: &Facts, json: bool) -> anyhow::Result<()> {
    let mut out = Vec::new();
    if json {
        serde_json::to_writer_pretty(&mut out, facts)?;
        out.push(b'\n');
    } else {
        text::write_facts(facts, &mut out)?;
    }
    match std::io::stdout().write_all(&out) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
