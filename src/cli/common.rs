//! Options that several commands share.

use anyhow::{Context as _, Result};
use gdsboot::builder::cache::Cache;
use gdsboot::builder::lock::Lock;
use gdsboot::builder::pool::Pool;
use gdsboot::builder::profile::{self, Profile};
use gdsboot::builder::resolve::{self, Mirrors};
use gdsboot::error::{Advise as _, Status, hinted, usage};
use gdsboot::progress::{Mode, Progress};
use std::path::{Path, PathBuf};

/// Options of every command. Under a heading of their own: each command's help begins with what is its own.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Where downloads and intermediate results are kept
    #[arg(long, global = true, value_name = "DIR", env = "GDSBOOT_CACHE", help_heading = "General")]
    pub cache: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, global = true, value_name = "MODE", default_value = "auto", help_heading = "General")]
    pub progress: Mode,
}

impl Global {
    pub fn progress(&self) -> Progress {
        Progress::new(self.progress)
    }

    pub fn cache(&self) -> Result<Cache> {
        Cache::open(self.cache.as_deref())
    }
}

/// Which profile, and where its packages come from.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// ubuntu-24.04, ubuntu-22.04, debian-13, debian-12, or a .toml file of your own [default: this host's family]
    pub profile: Option<String>,
    #[command(flatten)]
    pub packages: Packages,
}

/// Where a profile's packages come from.
#[derive(Debug, Clone, clap::Args)]
pub struct Packages {
    /// The lock file [default: locks/PROFILE.toml]
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// A mirror for one of the profile's sources (may be repeated)
    #[arg(long, value_name = "[SOURCE=]URL")]
    pub mirror: Vec<String>,
    /// Take everything from the pool; never touch the network
    #[arg(long)]
    pub offline: bool,
}

/// A profile with all that is needed to get its packages.
pub struct Resolved {
    pub profile: Profile,
    pub lock: Lock,
    pub pool: Pool,
    pub mirrors: Mirrors,
    pub cache: Cache,
}

impl Source {
    pub fn profile(&self, progress: &Progress) -> Result<Profile> {
        let name = match &self.profile {
            Some(name) => name.clone(),
            None => {
                let host = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
                let name = profile::for_host(&host);
                progress.note(format!("no profile was named: taking {name}, this host's family"));
                name.to_owned()
            }
        };
        Profile::load(&name)
    }

    /// The profile and its lock. A lock that exists is used as it is; one that does not exist is made.
    pub fn resolve(&self, global: &Global, progress: &Progress) -> Result<Resolved> {
        self.packages.resolve(self.profile(progress)?, global, progress)
    }
}

impl Packages {
    pub fn lock_path(&self, profile: &Profile) -> PathBuf {
        self.lock.clone().unwrap_or_else(|| Path::new("locks").join(format!("{}.toml", profile.name)))
    }

    /// A profile with its lock, read or made.
    pub fn resolve(&self, profile: Profile, global: &Global, progress: &Progress) -> Result<Resolved> {
        let cache = global.cache()?;
        let pool = Pool::open(&cache.pool(), self.offline)?;
        let path = self.lock_path(&profile);
        let lock = if path.exists() {
            let lock = Lock::read(&path)?;
            check(&lock, &profile, &path)?;
            lock
        } else {
            let lock = self
                .resolve_anew(&profile, &cache, &pool, progress)
                .with_context(|| format!("there is no lock {} yet, and making one failed", path.display()))?;
            lock.write(&path)?;
            progress.note(format!("locked {} packages in {}", lock.package.len(), path.display()));
            lock
        };
        let mirrors = if self.offline { Mirrors::new() } else { self.mirrors(&profile)? };
        Ok(Resolved { profile, lock, pool, mirrors, cache })
    }

    pub fn mirrors(&self, profile: &Profile) -> Result<Mirrors> {
        resolve::mirrors(profile, &self.mirror, Path::new("/etc/apt"))
    }

    pub fn resolve_anew(
        &self,
        profile: &Profile,
        cache: &Cache,
        pool: &Pool,
        progress: &Progress,
    ) -> Result<Lock> {
        if self.offline {
            return Err(hinted(
                "--offline forbids resolving packages",
                format!("on a machine with a network: gdsboot lock {}", profile.name),
            ));
        }
        let work = cache.work()?;
        let folder = work.path().join("apt");
        fs_err::create_dir(&folder)?;
        resolve::resolve(profile, &self.mirrors(profile)?, pool, &folder, progress)
    }
}

/// Refuses a lock that was made for something else.
pub fn check(lock: &Lock, profile: &Profile, path: &Path) -> Result<()> {
    if lock.profile != profile.name {
        return Err(usage(
            format!(
                "the lock {} is of the profile {} and not of {}",
                path.display(),
                lock.profile,
                profile.name
            ),
            "name another with --lock FILE",
        ));
    }
    if lock.resolve_key != profile.resolve_key() {
        return Err(hinted(
            format!(
                "the lock {} was made from another version of the profile {}",
                path.display(),
                profile.name
            ),
            format!("gdsboot lock --update {}", profile.name),
        ))
        .status(Status::Unavailable);
    }
    Ok(())
}
