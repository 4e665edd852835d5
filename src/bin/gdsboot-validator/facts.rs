//! `facts`: what can be read of a machine.

use super::machine::Machine;
use gdsboot::error::Status;
use gdsboot::report::text;

/// Print what can be read of a machine, without judging it
#[derive(Debug, clap::Args)]
pub struct FactsArgs {
    #[command(flatten)]
    machine: Machine,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &FactsArgs) -> anyhow::Result<Status> {
    let facts = args.machine.facts()?;
    if args.json {
        super::print_json(&facts)?;
    } else {
        let mut out = Vec::new();
        text::write_facts(&facts, &mut out)?;
        super::print(&out)?;
    }
    Ok(Status::Pass)
}
