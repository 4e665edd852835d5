//! Level 1: a filesystem that the operator named by its UUID, mounted for the run. Nothing on it is touched but a temporary
//! file without a name.
//!
//! Mounting it replays its journal where the machine that wrote it was not shut down: what the operator asked for includes
//! that, and its own system would do the same.

use super::mounts;
use super::scratch_disk::{FLAGS, USUAL_SIZE, repeat};
use crate::bench::scratch::Machine;
use crate::bench::scratch::candidate::{Disk, number};
use crate::bench::scratch::signatures::{ext4_uuid, xfs_uuid};
use crate::error::{Advise as _, usage};
use anyhow::Context as _;
use nix::mount::{MntFlags, umount2};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A mounted filesystem of the operator's.
#[derive(Debug)]
pub struct ScratchFilesystem {
    /// Where it is mounted.
    pub folder: PathBuf,
    /// The disk or partition that it is on.
    pub name: String,
    /// That disk.
    pub disk: String,
    /// How large the temporary file is to be.
    pub file_bytes: u64,
}

/// A filesystem that was found.
#[derive(Debug)]
struct Found<'a> {
    disk: &'a Disk,
    name: &'a str,
    kind: &'static str,
}

impl ScratchFilesystem {
    /// Mounts the filesystem with the identifier `uuid` at `folder`. `size` is that of the temporary file; without it 4 GiB
    /// or a third of what is free, whichever is less.
    ///
    /// # Errors
    /// There is none or more than one, it is of another kind than ext4 or XFS, on a disk that is in use or kept, or cannot be
    /// mounted.
    pub fn mount(
        machine: &dyn Machine,
        uuid: &str,
        keep: &[String],
        size: Option<u64>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let wanted = Uuid::parse_str(uuid).map_err(|_| {
            usage(format!("{uuid:?} is no UUID of an ext4 or XFS"), "`blkid` and `lsblk -f` show the UUID")
        })?;
        let disks = machine.disks()?;
        let found = find(machine, &disks, &wanted);
        let Found { disk, name, kind } = choose(&found, &wanted, keep)?;
        let node = machine.node(name)?;
        let device =
            std::fs::metadata(&node).with_context(|| format!("looking at {}", node.display()))?.rdev();
        // What cuFile asks for on ext4; XFS has no such choice.
        let options = (*kind == "ext4").then_some("data=ordered");
        mounts::device(&node, folder, kind, FLAGS, options)
            .hint("see the kernel's log; a damaged filesystem is mended by the system that it belongs to")?;
        let mounted = Self {
            folder: folder.to_owned(),
            name: (*name).to_owned(),
            disk: disk.name.clone(),
            file_bytes: 0,
        };
        match mounted.room(device) {
            Ok(room) => Ok(Self { file_bytes: size.unwrap_or(USUAL_SIZE.min(room / 3)), ..mounted }),
            Err(error) => {
                mounted.close(machine)?;
                Err(error)
            }
        }
    }

    /// The free bytes, where it is the device that was meant.
    fn room(&self, device: u64) -> anyhow::Result<u64> {
        let mounted = fs_err::metadata(&self.folder)?.dev();
        if mounted != device {
            let (mounted, device) = (number(mounted), number(device));
            return Err(usage(
                format!("{} is device {mounted} by now, not {device}", self.name),
                "begin again",
            ));
        }
        let free = nix::sys::statvfs::statvfs(&self.folder)?;
        Ok(free.blocks_available().saturating_mul(free.fragment_size()))
    }

    /// Unmounts it; what came of that, in a sentence.
    ///
    /// # Errors
    /// Something still uses it. It is made read-only then, so that it is whole when the machine goes off.
    pub fn close(&self, machine: &dyn Machine) -> anyhow::Result<String> {
        let name = &self.name;
        if repeat(machine, || Ok(umount2(&self.folder, MntFlags::empty())?)).is_err() {
            mounts::unmount(&self.folder)
                .with_context(|| format!("giving the filesystem on {name} back"))
                .hint("it may need a check by the system that it belongs to")?;
            anyhow::bail!("the filesystem on {name} is still in use; it was made read-only");
        }
        Ok(format!("the filesystem on {name} is unmounted, and holds what it held before"))
    }
}

/// All filesystems with this identifier, on disks and partitions. What cannot be read holds none.
fn find<'a>(machine: &dyn Machine, disks: &'a [Disk], wanted: &Uuid) -> Vec<Found<'a>> {
    let places = disks
        .iter()
        .flat_map(|disk| std::iter::once(&disk.name).chain(&disk.partitions).map(move |name| (disk, name)));
    places
        .filter_map(|(disk, name)| {
            let node = machine.node(name).ok()?;
            if !std::fs::metadata(&node).ok()?.file_type().is_block_device() {
                return None;
            }
            let mut first = vec![0; 4096];
            File::open(node).ok()?.read_exact(&mut first).ok()?;
            let kind = kind(&first, wanted)?;
            Some(Found { disk, name, kind })
        })
        .collect()
}

/// The kind of filesystem that begins so, where its identifier is the wanted one.
fn kind(first: &[u8], wanted: &Uuid) -> Option<&'static str> {
    let is = |uuid: Option<&[u8; 16]>| uuid == Some(wanted.as_bytes());
    if is(xfs_uuid(first)) {
        return Some("xfs");
    }
    is(ext4_uuid(first)).then_some("ext4")
}

/// The one that is meant and may be mounted.
fn choose<'a, 'b>(found: &'b [Found<'a>], wanted: &Uuid, keep: &[String]) -> anyhow::Result<&'b Found<'a>> {
    let [one] = found else {
        let names: Vec<&str> = found.iter().map(|found| found.name).collect();
        return Err(if names.is_empty() {
            usage(
                format!("no disk or partition holds an ext4 or XFS with the UUID {wanted}"),
                "`blkid` and `lsblk -f` show the UUID; a volume of LVM, RAID or LUKS is not opened",
            )
        } else {
            usage(
                format!("{} have the UUID {wanted}", names.join(" and ")),
                "take the copy out of the machine, or give it another UUID",
            )
        });
    };
    let Found { disk, name, .. } = one;
    let refuse = |what: String| Err(usage(format!("not mounting {name}: {what}"), "use another filesystem"));
    if let Some(kept) = keep.iter().find(|kept| disk.name == **kept || disk.partitions.contains(kept)) {
        return refuse(format!("{kept} is what this machine booted from, or takes its report"));
    }
    if !disk.users.is_empty() {
        return refuse(format!("in use: {}", disk.users.join(", ")));
    }
    if disk.read_only {
        return refuse(format!("{} cannot be written to", disk.name));
    }
    Ok(one)
}

#[cfg(test)]
mod tests;
