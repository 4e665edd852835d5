//! A disk in memory: an anonymous file behind a loop device. What is written to the file before the device is made can be
//! mounted from it.

use super::iso_root::loop_device;
use super::partition::Partition;
use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;

/// An empty file in memory.
pub fn file() -> Result<File> {
    let file = memfd_create(c"gdsboot-root", MFdFlags::MFD_CLOEXEC).context("making a file in memory")?;
    Ok(file.into())
}

/// Makes a disk of it that can only be read. It stays after the file is closed here.
pub fn attach(file: &File) -> Result<Partition> {
    let bytes = file.metadata().context("attaching a file in memory")?.len();
    let name = loop_device(file).context("making a disk of a file in memory")?;
    Ok(Partition { disk: name.clone(), name, bytes })
}
