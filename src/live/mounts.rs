//! File systems of the image: the kernel's own, the memory that programs write to, and the report partition.

use anyhow::Context as _;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;

/// Mounts the kernel's own file systems, in the initramfs. The first failure that matters is returned last, so that
/// everything else was tried.
pub fn kernel() -> anyhow::Result<()> {
    let nosuid = MsFlags::MS_NOSUID;
    let locked = nosuid | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let results = [
        at("/proc", "proc", "proc", locked, None),
        at("/sys", "sysfs", "sysfs", locked, None),
        at("/dev", "devtmpfs", "devtmpfs", nosuid, Some("mode=0755")),
        at("/run", "tmpfs", "tmpfs", nosuid | MsFlags::MS_NODEV, Some("mode=0755")),
    ];
    // What not every kernel or firmware has.
    let _ = at(
        "/dev/pts",
        "devpts",
        "devpts",
        nosuid | MsFlags::MS_NOEXEC,
        Some("gid=5,mode=0620,ptmxmode=0666"),
    );
    let _ = at("/dev/shm", "tmpfs", "tmpfs", nosuid | MsFlags::MS_NODEV, Some("mode=1777"));
    let _ = existing("/sys/kernel/security", "securityfs", locked, None);
    results.into_iter().collect()
}

/// Mounts the firmware's variables, where there is UEFI and the kernel's module for it.
pub fn firmware_variables() {
    let _ = existing("/sys/firmware/efi/efivars", "efivarfs", MsFlags::MS_RDONLY | MsFlags::MS_NOSUID, None);
}

/// Puts memory where programs of a read-only root must write. Folders that the root lacks are none of its programs'.
pub fn scratch() -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let folders = [
        ("/tmp", "mode=1777"),
        ("/var/tmp", "mode=1777"),
        ("/var/log", "mode=0755"),
        ("/root", "mode=0700"),
        ("/var/lib/nvidia", "mode=0755"),
        ("/mnt", "mode=0755"),
    ];
    folders
        .into_iter()
        .filter(|(folder, _)| is_real_folder(folder))
        .try_for_each(|(folder, mode)| existing(folder, "tmpfs", flags, Some(mode)))
}

/// `/var/tmp` may be a link to `/tmp`, which has its memory already.
fn is_real_folder(folder: &str) -> bool {
    fs_err::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir())
}

/// Mounts a block device.
pub fn device(
    device: &Path,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    data: Option<&str>,
) -> anyhow::Result<()> {
    fs_err::create_dir_all(target)?;
    mount(Some(device), target, Some(kind), flags, data)
        .with_context(|| format!("mounting {} as {kind} on {}", device.display(), target.display()))
}

/// Unmounts; what is busy is made read-only at least, so that it is whole when the power goes.
pub fn unmount(target: &Path) -> anyhow::Result<()> {
    match umount2(target, MntFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
                .with_context(|| format!("making the busy {} read-only", target.display()))
        }
        Err(error) => Err(error).with_context(|| format!("unmounting {}", target.display())),
    }
}

/// Mounts on a folder that is made where it is missing. What is mounted already stays.
fn at(target: &str, source: &str, kind: &str, flags: MsFlags, data: Option<&str>) -> anyhow::Result<()> {
    fs_err::create_dir_all(target)?;
    match mount(Some(source), target, Some(kind), flags, data) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("mounting {kind} on {target}")),
    }
}

/// Mounts on a folder that must be there.
fn existing(target: &str, kind: &str, flags: MsFlags, data: Option<&str>) -> anyhow::Result<()> {
    mount(Some(kind), target, Some(kind), flags, data).with_context(|| format!("mounting {kind} on {target}"))
}
