//! A root that is a file on an ISO: the disk with the volume is found, mounted, and the file becomes a block device.
//!
//! The volume is known by its identifier (ECMA-119, 8.4.7), which follows from the image. It is looked for on whole disks: an
//! ISO is a CD-ROM, and stays one where it was copied onto a stick.

use super::mounts;
use super::partition::{self, Partition, wait};
use crate::boot_contract::ISO_ROOT;
use crate::facts::Root;
use anyhow::{Context as _, Result};
use nix::mount::MsFlags;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the ISO is mounted, and stays.
const MOUNTED: &str = "/run/gdsboot/medium";
/// Where the first volume descriptor stands, and how long it is.
const DESCRIPTOR: (u64, usize) = (32_768, 2048);

// include/uapi/linux/loop.h
nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
nix::ioctl_write_int_bad!(loop_set_fd, 0x4c00);

/// All disks with this volume, as soon as there is one; none after `patience`.
pub fn wait_for(root: &Root, volume: &str, patience: Duration) -> Vec<Partition> {
    wait(patience, || {
        let mut disks = partition::disks(root);
        disks.retain(|disk| identifier(root, disk).as_deref() == Some(volume));
        disks
    })
}

/// The volume's identifier, where the disk has one.
fn identifier(root: &Root, disk: &Partition) -> Option<String> {
    // Opened so that a drive looks for its medium, which it does not where nobody would wait for it.
    let file = File::open(root.locate(&format!("/dev/{}", disk.name)).ok()?).ok()?;
    let mut descriptor = [0; DESCRIPTOR.1];
    file.read_exact_at(&mut descriptor, DESCRIPTOR.0).ok()?;
    parse(&descriptor)
}

/// The identifier in a primary volume descriptor.
fn parse(descriptor: &[u8; DESCRIPTOR.1]) -> Option<String> {
    let is_primary = descriptor[..6] == *b"\x01CD001";
    let text = std::str::from_utf8(&descriptor[40..72]).ok().filter(|_| is_primary)?;
    Some(text.trim_end_matches(' ').to_owned())
}

/// Makes the root on `disk` a block device of its own.
///
/// # Errors
/// The disk cannot be mounted, has no such file, or the kernel has no loop devices.
pub fn attach(disk: &Partition) -> Result<Partition> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mounts::device(&disk.device(), Path::new(MOUNTED), "iso9660", flags, None)?;
    let path = Path::new(MOUNTED).join(ISO_ROOT);
    let file = fs_err::File::open(&path)?.into_file();
    let bytes = file.metadata().with_context(|| format!("measuring {}", path.display()))?.len();
    let name = loop_device(&file).with_context(|| format!("making a block device of {}", path.display()))?;
    Ok(Partition { name, disk: disk.name.clone(), bytes })
}

/// A loop device over a file. It can only be read, whatever the file is open for, because it is opened for reading alone here
/// (drivers/block/loop.c, `loop_configure`). It lasts as long as the machine.
#[allow(unsafe_code, reason = "nix makes an unsafe function of every ioctl")]
pub fn loop_device(file: &File) -> Result<String> {
    let control = partition::open_node(Path::new("/dev/loop-control"))?;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument, and the descriptor is open as long as `control`.
    let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }.context("asking for a loop device")?;
    let name = format!("loop{number}");
    let device = partition::open_node(&PathBuf::from("/dev").join(&name))?;
    // SAFETY: LOOP_SET_FD takes a descriptor; both are open as long as their files. The kernel keeps the file itself.
    unsafe { loop_set_fd(device.as_raw_fd(), file.as_raw_fd()) }
        .with_context(|| format!("setting up {name}"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_known_by_its_identifier() {
        let mut descriptor = [0; 2048];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[40..72].copy_from_slice(b"GDSBOOT_0123456789ABCDEF        ");
        assert_eq!(parse(&descriptor).as_deref(), Some("GDSBOOT_0123456789ABCDEF"));
        descriptor[40] = 0xff;
        assert_eq!(parse(&descriptor), None);
        descriptor[40] = b'G';
        descriptor[0] = 2;
        assert_eq!(parse(&descriptor), None);
        assert_eq!(parse(&[0; 2048]), None);
    }
}
