//! The image's root: found, verified, entered.

use super::Run;
use crate::live::journal::Journal;
use crate::live::params::{Params, RootPlace};
use crate::live::partition::{self, Partition};
use crate::live::scratch::with_hint;
use crate::live::{iso_root, mounts, network_root, switch_root, verify};
use crate::redact;
use crate::report::events::What;
use anyhow::{Context as _, anyhow, bail};
use std::io::Read as _;
use std::time::{Duration, Instant};

/// How long the disk may take to appear: USB sticks behind hubs are the slowest.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

impl Run {
    pub(super) fn find_root(&mut self) -> Option<Partition> {
        if let Some(RootPlace::Url(url)) = self.params.root.clone() {
            return self.fetch_root(&url);
        }
        let (root, params) = (self.root.clone(), self.params.clone());
        let found = self.journal.stage("find-root", |journal| {
            let place =
                params.root.context("reading the kernel command line: it names no root (gdsboot.root)")?;
            journal.consoles.say(&format!("looking for the root: {place}"));
            let found = match &place {
                RootPlace::Partition(uuid) => partition::wait_for(&root, uuid, DISK_PATIENCE),
                RootPlace::Iso(volume) => iso_root::wait_for(&root, volume, DISK_PATIENCE),
                RootPlace::Url(_) => Vec::new(),
            };
            if let [first, second, ..] = found.as_slice() {
                let both =
                    format!("{} and {} both have the {place}; taking the first", first.name, second.name);
                journal.problem("find-root", both);
            }
            let first = found.into_iter().next();
            let seconds = DISK_PATIENCE.as_secs();
            let first = first
                .with_context(|| format!("waiting for the root: no disk has a {place} after {seconds} s"))?;
            journal.consoles.event(What::RootFound { device: first.device().display().to_string() });
            match place {
                RootPlace::Partition(_) | RootPlace::Url(_) => Ok(first),
                RootPlace::Iso(_) => iso_root::attach(&first),
            }
        });
        self.because_of_root(found)
    }

    fn fetch_root(&mut self, url: &str) -> Option<Partition> {
        let (root, size, net) = (self.root.clone(), self.params.root_size, self.net.clone());
        let fetched = self.journal.stage("fetch-root", |journal| {
            let size =
                size.context("reading the kernel command line: it names no size (gdsboot.root-size)")?;
            journal.consoles.say(&format!("fetching the root from {}", redact::url(url)));
            let mut say = |text: &str| journal.consoles.say(text);
            // The journal keeps the error alone, and what to do belongs to it.
            let fetched = network_root::fetch(&root, url, size, &net, &mut say);
            let disk = fetched.map_err(|error| anyhow!(with_hint(&error)))?;
            journal.consoles.event(What::RootFound { device: disk.device().display().to_string() });
            Ok(disk)
        });
        self.because_of_root(fetched)
    }

    /// Verifies the root and makes it `/`.
    pub(super) fn enter_root(&mut self, disk: &Partition) -> bool {
        let params = self.params.clone();
        let verified = self.journal.stage("verify-root", |journal| verify_root(journal, &params, disk));
        let entered = verified.and_then(|()| {
            self.journal.stage("enter-root", |_| {
                switch_root::enter(&disk.device())?;
                mounts::scratch()
            })
        });
        self.because_of_root(entered).is_some()
    }

    /// Remembers the last problem as the reason why there is no root, where `value` is missing.
    fn because_of_root<T>(&mut self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let what = self.journal.last_problem().map_or("unknown", |problem| problem.what.as_str());
            self.no_root = Some(format!("the image's root cannot be used: {what}"));
        }
        value
    }
}

fn verify_root(journal: &mut Journal, params: &Params, disk: &Partition) -> anyhow::Result<()> {
    let context = "reading the kernel command line";
    let size =
        params.root_size.with_context(|| format!("{context}: it names no size (gdsboot.root-size)"))?;
    let expected = params
        .root_sha256
        .as_deref()
        .with_context(|| format!("{context}: it names no hash (gdsboot.root-sha256)"))?;
    if size > disk.bytes {
        bail!("verifying {}: it has {} bytes, the image's root has {size}", disk.name, disk.bytes);
    }
    let file = partition::open(disk).with_context(|| format!("opening {}", disk.device().display()))?;
    let start = Instant::now();
    let mut shown = 0;
    let found = verify::sha256(file.take(size), size, |done| {
        let percent = done.saturating_mul(100) / size;
        if percent >= shown + 20 {
            shown = percent;
            journal.consoles.say(&format!("verifying the root: {percent} %"));
        }
    })?;
    if found != expected {
        let source = match &params.root {
            Some(RootPlace::Url(url)) => format!(
                "what {} gave has the SHA-256 {found}, the command line says {expected}; whoever set up netboot: copy \
                 the build's whole folder to the server again (sha256sum -c SHA256SUMS)",
                redact::url(url)
            ),
            _ => {
                format!("verifying {}: its SHA-256 is {found}, the command line says {expected}", disk.name)
            }
        };
        bail!(source);
    }
    let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    journal.consoles.event(What::RootVerified { bytes: size, ms, sha256: found });
    Ok(())
}
