//! `gdsboot fetch`: fill the pool, so that everything else works without a network.

use super::common::{Global, Source};
use anyhow::Result;
use gdsboot::error::Status;
use std::collections::BTreeSet;

/// Download everything that a profile needs
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    #[command(flatten)]
    source: Source,
}

pub fn run(args: &FetchArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let resolved = args.source.resolve(global, &progress)?;
    let sets: BTreeSet<_> = resolved.lock.package.iter().flat_map(|p| p.sets.iter().cloned()).collect();
    let sets: Vec<_> = sets.into_iter().collect();
    resolved.pool.fetch(&resolved.lock, &sets, &resolved.mirrors, &progress)?;
    println!("{} packages are in {}", resolved.lock.package.len(), resolved.cache.pool().display());
    Ok(Status::Pass)
}
