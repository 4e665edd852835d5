//! `gdsboot lock`: resolve a profile, renew its lock, or say whether it is current.

use super::common::{Global, Source};
use anyhow::Result;
use gdsboot::builder::lock::Lock;
use gdsboot::builder::pool::Pool;
use gdsboot::error::{Status, usage};

/// Resolve a profile into exact packages
#[derive(Debug, clap::Args)]
pub struct LockArgs {
    #[command(flatten)]
    source: Source,
    /// Renew a lock that exists, and say what changes
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Say what would change, and change nothing; exit status 1 if anything would
    #[arg(long)]
    check: bool,
}

pub fn run(args: &LockArgs, global: &Global) -> Result<Status> {
    let progress = global.progress();
    let profile = args.source.profile(&progress)?;
    let path = args.source.packages.lock_path(&profile);
    if path.exists() && !args.update && !args.check {
        return Err(usage(
            format!("the lock {} exists", path.display()),
            "--update renews it, --check says what that would change",
        ));
    }
    // A lock that cannot be read is what --update is for.
    let old = if path.exists() { Lock::read(&path).ok() } else { None };
    let cache = global.cache()?;
    let pool = Pool::open(&cache.pool(), args.source.packages.offline)?;
    let new = args.source.packages.resolve_anew(&profile, &cache, &pool, &progress)?;
    let changes = old.as_ref().map(|old| old.changes(&new));
    for line in changes.iter().flatten() {
        println!("{line}");
    }
    if args.check {
        let current = changes.as_ref().is_some_and(Vec::is_empty);
        println!("{}", if current { "the lock is current" } else { "the lock is not current" });
        return Ok(if current { Status::Pass } else { Status::Fail });
    }
    new.write(&path)?;
    println!("{}: {} packages, kernel {}", path.display(), new.package.len(), new.kernel);
    Ok(Status::Pass)
}
