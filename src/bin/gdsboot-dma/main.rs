//! gdsboot-dma: the dynamic worker, the only program that loads libcuda, libcufile and NVML. It is a program of its own
//! because the validator is static, and because a library that crashes or hangs must not take the validator with it.
//!
//! `gdsboot-dma probe` answers with one line of JSON, a [`gdsboot::facts::dma::DmaProbe`]. A library or a function that is
//! missing is a fact and no error: the exit status is 0 whenever the line was printed.
//!
//! `gdsboot-dma run` makes transfers for the benchmark, as [`gdsboot::bench::worker`] says.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod cuda;
mod cufile;
mod library;
mod mover;
mod nvml;
mod probe;
mod run;
mod transfers;
mod watch;

/// Talks to NVIDIA's user-space libraries for the validator.
#[derive(Debug, Parser)]
#[command(name = "gdsboot-dma", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says which libraries can be loaded and which versions they are, as one line of JSON.
    Probe {
        /// Call cuInit too: it opens the GPU, which can take many seconds on a broken one.
        #[arg(long)]
        init: bool,
    },
    /// Makes transfers between a drive and a GPU: requests on standard input, answers on standard output.
    Run,
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Probe { init } => probe::main(init),
        Command::Run => run::main(),
    }
}
