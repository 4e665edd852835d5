//! From the initramfs to the root: mounted read-only, entered, and never left. The process goes on, so that its report
//! has no gap.

use super::mounts;
use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};
use std::path::Path;

/// Where the root stands before it becomes `/`.
const SYSROOT: &str = "/sysroot";

/// Mounts the squashfs on `device` and makes it `/`, with `/proc`, `/sys`, `/dev` and `/run` moved along.
pub fn enter(device: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mounts::device(device, Path::new(SYSROOT), "squashfs", flags, None)?;
    for name in ["dev", "proc", "sys", "run"] {
        let (from, to) = (format!("/{name}"), format!("{SYSROOT}/{name}"));
        moved(&from, &to).with_context(|| format!("moving {from} to {to}"))?;
    }
    // As switch_root(8) does: pivot_root(2) refuses an initramfs.
    chdir(SYSROOT).with_context(|| format!("entering {SYSROOT}"))?;
    moved(".", "/").with_context(|| format!("moving {SYSROOT} to /"))?;
    chroot(".").context("making the root /")?;
    chdir("/").context("entering /")
}

fn moved(from: &str, to: &str) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
}
