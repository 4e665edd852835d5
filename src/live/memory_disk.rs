//! A disk in memory: an anonymous file behind a loop device (loop(4)). What is written to the file before the device is
//! made can be mounted from it.

use super::partition::Partition;
use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};

/// `LOOP_CTL_GET_FREE` and `LOOP_SET_FD` of linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_SET_FD: libc::Ioctl = 0x4c00;

/// An empty file in memory.
pub fn file() -> Result<File> {
    let file = memfd_create(c"gdsboot-root", MFdFlags::MFD_CLOEXEC).context("making a file in memory")?;
    Ok(file.into())
}

/// Makes a disk of it that can only be read. It stays after the file is closed here.
pub fn attach(file: &File) -> Result<Partition> {
    let bytes = file.metadata().context("attaching a file in memory")?.len();
    let control = File::open("/dev/loop-control").context("opening /dev/loop-control")?;
    let number = ask(control.as_raw_fd(), LOOP_CTL_GET_FREE, 0).context("asking for a loop device")?;
    let name = format!("loop{number}");
    let partition = Partition { disk: name.clone(), name, bytes };
    // Opened for reading alone, so that the device is read-only.
    let device = super::partition::open(&partition)
        .with_context(|| format!("opening {}", partition.device().display()))?;
    ask(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd())
        .with_context(|| format!("attaching a file in memory to {}", partition.name))?;
    Ok(partition)
}

#[allow(unsafe_code, reason = "nix has no loop devices")]
fn ask(device: RawFd, request: libc::Ioctl, argument: RawFd) -> std::io::Result<i32> {
    // SAFETY: both requests take a plain number and touch no memory of this process (loop(4)).
    let answer = unsafe { libc::ioctl(device, request, argument) };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}
