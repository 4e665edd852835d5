//! Storage: the filesystem and the block devices between cuFile and the drive, and the drive's health.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, complete};
use super::said::{Line, find, heard_cufile, silence, with_lines};
use crate::facts::Fact;
use crate::facts::block::BlockDevice;
use crate::facts::mounts::Mount;
use crate::facts::nvme::NvmeController;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "storage.health",
        title: "the NVMe drives answer",
        sides: ANYWHERE,
        requires: &["host.iommu-faults"],
        severity: Severity::Major,
        rationale: "A drive that times out or reports errors is broken, badly linked, or was refused its transfers by an IOMMU.",
        references: &["drivers/nvme/host/pci.c: nvme_timeout", "block/blk-core.c"],
        covers: &["guide: namespace health", "signature 30", "gds-diag: nvme health"],
        run: health,
    },
    Check {
        id: "storage.read-only",
        title: "no filesystem was made read-only",
        sides: ANYWHERE,
        requires: &["storage.health"],
        severity: Severity::Major,
        rationale: "A filesystem that met an error takes no more writes.",
        references: &["fs/ext4/super.c", "fs/xfs/xfs_fsops.c"],
        covers: &["signature 31"],
        run: read_only,
    },
    Check {
        id: "storage.device-mapper",
        title: "no device-mapper above the drive",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "cuFile does not go through device-mapper: LVM, dm-crypt and dm-multipath are copied by the CPU.",
        references: &["GDS troubleshooting guide", "gds-nvidia-fs issue 62"],
        covers: &["guide: no LVM, crypt or other device-mapper", "signature 26", "gds-diag: device-mapper"],
        run: device_mapper,
    },
    Check {
        id: "storage.raid",
        title: "the RAID level has a direct route",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "nvidia-fs takes RAID 0 (the newest also 1 and 10); P2PDMA takes none on x86 before kernel 7.1.",
        references: &["GDS release notes, known limitations"],
        covers: &["guide: RAID", "gds-diag: raid"],
        run: raid,
    },
    Check {
        id: "storage.filesystem",
        title: "the filesystem has a direct route",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.device-mapper"],
        severity: Severity::Major,
        rationale: "Direct routes go to raw drives, XFS, and ext4 that is mounted with data=ordered in words; cuFile reads the \
                    mount table to be sure.",
        references: &["GDS troubleshooting guide", "GDS best practices guide"],
        covers: &["guide: filesystem", "signature 25", "gds-diag: filesystem"],
        run: filesystem,
    },
    Check {
        id: "storage.state",
        title: "the NVMe controllers are live",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Major,
        rationale: "Only a controller in the state live takes commands.",
        references: &["drivers/nvme/host/sysfs.c: state"],
        covers: &["guide: namespace health"],
        run: state,
    },
    Check {
        id: "storage.transport",
        title: "the drives are local",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Minor,
        rationale: "NVMe over a network is moved by the network card, which is another route than the one tested here.",
        references: &["drivers/nvme/host/sysfs.c: transport", "nixl issue 1063"],
        covers: &["guide: local NVMe", "signature 28"],
        run: transport,
    },
    Check {
        id: "storage.network-filesystem",
        title: "the data does not lie on a network filesystem",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.filesystem"],
        severity: Severity::Minor,
        rationale: "Files on NFS, Lustre and their like never pass the local drives; cuFile reaches some of them by RDMA alone.",
        references: &["GDS overview guide: supported filesystems"],
        covers: &["guide: no network filesystem"],
        run: network_filesystem,
    },
    Check {
        id: "storage.o-direct",
        title: "files are opened with O_DIRECT",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.filesystem"],
        severity: Severity::Major,
        rationale: "Without O_DIRECT cuFile reads through the page cache and copies by the CPU.",
        references: &["cufile.h: CU_FILE_INVALID_FILE_OPEN_FLAG (5020)"],
        covers: &["guide: O_DIRECT"],
        run: o_direct,
    },
    Check {
        id: "storage.alignment",
        title: "partitions begin at whole blocks of 4 KiB",
        sides: WHERE_GDS_RUNS,
        requires: &["nvme.present"],
        severity: Severity::Minor,
        rationale: "What does not begin at a multiple of 4 KiB goes through a buffer in part, and is counted as unaligned.",
        references: &["GDS design guide: alignment", "cufile.h: n_unaligned_reads"],
        covers: &["guide: alignment"],
        run: alignment,
    },
];

/// Is a complaint about a disk that is no NVMe drive: for discs, for USB, of an image, of memory?
fn is_of_another_disk(text: &str) -> bool {
    const OTHERS: [&str; 9] = ["sr", "fd", "loop", "sd", "vd", "mmcblk", "nbd", "zram", "ram"];
    let mut names =
        text.match_indices("dev ").chain(text.match_indices('(')).map(|(at, mark)| &text[at + mark.len()..]);
    names.any(|name| OTHERS.iter().any(|other| name.starts_with(other)))
}

fn health(context: &Context<'_>) -> Outcome {
    let said: Vec<Line<'_>> = find(
        context,
        &[
            "nvme*timeout, reset controller",
            "nvme*timeout, disable controller",
            "nvme*Disabling device after reset failure",
            "nvme*Removing after probe failure",
            "nvme*controller is down; will reset",
            "nvme*Device not ready; aborting",
            "nvme*globally duplicate IDs",
            "nvme*Identify Controller failed",
            "Buffer I/O error on dev",
            "I/O error, dev nvme",
            "critical target error",
            "critical medium error",
            "no available path - failing I/O",
        ],
    )
    .into_iter()
    .filter(|line| !is_of_another_disk(line.text))
    .collect();
    if said.is_empty() {
        return silence(context, "no drive timed out or reported errors");
    }
    let outcome = Outcome::fail("an NVMe drive timed out or reported errors")
        .remedy(
            Remedy::new(Who::Guest, "stop transfers, and see whether the drive fails without the GPU too")
                .command("nvme smart-log /dev/nvme0")
                .command("gdsio -x 1 -I 0 -d 0 -w 4 -s 1G -i 1M -f /path/to/file"),
        )
        .remedy(
            Remedy::new(Who::Hypervisor, "if it fails only with the GPU: look for IOMMU faults on the host")
                .command("dmesg | grep -e 'DMAR:.*fault' -e IO_PAGE_FAULT"),
        )
        .remedy(Remedy::new(
            Who::Hardware,
            "if it fails without the GPU: check slot and link, then exchange the drive",
        ));
    with_lines(outcome, &said)
}

fn read_only(context: &Context<'_>) -> Outcome {
    let said: Vec<Line<'_>> = find(
        context,
        &[
            "EXT4-fs*Remounting filesystem read-only",
            "XFS*Filesystem has been shut down",
            "XFS*Shutting down filesystem",
        ],
    )
    .into_iter()
    .filter(|line| !is_of_another_disk(line.text))
    .collect();
    if said.is_empty() {
        return silence(context, "no filesystem was made read-only");
    }
    let outcome = Outcome::fail("a filesystem met an error and takes no more writes").remedy(
        Remedy::new(Who::Guest, "save what it holds, check it, and make it anew if that does not help")
            .command("umount /mnt/data && fsck /dev/nvme0n1p1"),
    );
    with_lines(outcome, &said)
}

/// A mount whose files lie on NVMe drives.
pub(super) struct OnNvme<'a> {
    pub(super) mount: &'a Mount,
    pub(super) device: &'a BlockDevice,
    pub(super) is_system: bool,
}

/// Mounts that lie on NVMe, directly or through other devices; `None` where mounts or block devices cannot be seen.
pub(super) fn on_nvme<'a>(context: &Context<'a>) -> Option<Vec<OnNvme<'a>>> {
    let block = context.facts.block.value()?;
    let mounts = context.facts.mounts.value()?;
    let on = mounts.iter().filter_map(|mount| {
        let source = mount.source.strip_prefix("/dev/").unwrap_or_default();
        let source = source.strip_prefix("mapper/").unwrap_or(source);
        let device = block.iter().find(|device| device.is(mount.device.as_deref(), source))?;
        lies_on_nvme(device, block, 0).then(|| OnNvme { mount, device, is_system: is_system(mount) })
    });
    Some(on.collect())
}

/// Is it an NVMe drive, or made of them? Stacks are not deeper than a few devices.
fn lies_on_nvme(device: &BlockDevice, block: &[BlockDevice], depth: u32) -> bool {
    depth < 8
        && (device.name.starts_with("nvme")
            || device.slaves.iter().any(|slave| {
                slave.starts_with("nvme")
                    || block
                        .iter()
                        .any(|other| other.is(None, slave) && lies_on_nvme(other, block, depth + 1))
            }))
}

/// Does the system itself live there? Nobody transfers such files to a GPU.
fn is_system(mount: &Mount) -> bool {
    let at = mount.at.as_str();
    at == "/"
        || ["/boot", "/usr", "/var", "/efi", "/snap", "/run", "/etc", "/recovery"].iter().any(|system| {
            at.strip_prefix(system).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        || matches!(mount.kind.as_str(), "squashfs" | "vfat" | "swap" | "overlay")
}

fn unseen(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    Outcome::unknown(format!(
        "what lies on the NVMe drives cannot be seen: mounts {}, block devices {}",
        facts.mounts.as_ref().map(|_| "seen"),
        facts.block.as_ref().map(|_| "seen")
    ))
    .remedy(
        Remedy::new(Who::Guest, "list it")
            .command("lsblk -o NAME,TYPE,FSTYPE,MOUNTPOINTS; findmnt -t ext4,xfs"),
    )
}

/// Is it made of drives, and not by md? bcache and DRBD are as opaque to cuFile as device-mapper.
fn is_dm(device: &BlockDevice) -> bool {
    !device.name.starts_with("nvme") && !device.name.starts_with("md")
}

fn device_mapper(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "Unsupported block device: /dev/dm-",
            "Unsupported block device: dm",
            "Unsupported block device dm",
        ],
    );
    let remedy = || {
        Remedy::new(Who::Guest, "put the data on a plain partition or a whole drive, with XFS or ext4")
            .command(
                "mkfs.xfs /dev/nvme1n1 && mount /dev/nvme1n1 /mnt/data   # destroys what the drive holds",
            )
    };
    if !said.is_empty() {
        let outcome = Outcome::fail(
            "the data lies on a device-mapper device, through which cuFile has no direct route",
        );
        return with_lines(outcome.remedy(remedy()), &said);
    }
    let Some(mounts) = on_nvme(context) else { return unseen(context) };
    let (dm, plain): (Vec<_>, Vec<_>) =
        mounts.iter().filter(|on| !on.is_system).partition(|on| is_dm(on.device));
    let Some(first) = dm.first() else {
        return Outcome::pass("no data on NVMe drives lies on device-mapper");
    };
    let kind = first
        .device
        .dm_uuid
        .value()
        .and_then(|uuid| uuid.split('-').next())
        .unwrap_or(if first.device.name.starts_with("dm-") { "device-mapper" } else { "another layer" });
    let why = format!("{} lies on {kind} ({})", first.mount.at, first.device.name);
    if !plain.is_empty() {
        return Outcome::note(format!("{why}; other data on NVMe drives does not"));
    }
    Outcome::fail(format!("{why}, through which cuFile has no direct route"))
        .expected("a partition or a whole drive")
        .actual(format!("{} ({kind})", first.device.name))
        .evidence(format!("/sys/block/{}/dm/uuid", first.device.name), first.device.dm_uuid.to_string())
        .remedy(remedy())
}

/// Is an array what the system lies on, such as a mirror of two small drives, and nothing else?
fn holds_only_the_system(array: &BlockDevice, block: &[BlockDevice], mounts: &[OnNvme<'_>]) -> bool {
    let mut on_array = mounts.iter().filter(|on| made_of(on.device, array, block, 0)).peekable();
    on_array.peek().is_some() && on_array.all(|on| on.is_system)
}

/// Is a device another one, or made of it?
fn made_of(device: &BlockDevice, of: &BlockDevice, block: &[BlockDevice], depth: u32) -> bool {
    device.name == of.name
        || depth < 8
            && device.slaves.iter().any(|slave| {
                of.is(None, slave)
                    || block.iter().any(|other| other.is(None, slave) && made_of(other, of, block, depth + 1))
            })
}

fn raid(context: &Context<'_>) -> Outcome {
    let Some(block) = context.facts.block.value() else { return unseen(context) };
    let mounts = on_nvme(context).unwrap_or_default();
    let arrays: Vec<_> = block
        .iter()
        .filter(|device| device.name.starts_with("md") && lies_on_nvme(device, block, 0))
        .filter(|array| !holds_only_the_system(array, block, &mounts))
        .filter_map(|device| Some((device, device.md_level.value()?)))
        .collect();
    let Some((device, level)) = arrays.first() else {
        return Outcome::not_applicable("no array for data lies on NVMe drives");
    };
    let place = format!("/sys/block/{}/md/level", device.name);
    let nvfs = complete(context, Direct::Nvfs);
    match (level.as_str(), nvfs) {
        ("raid0", Some(true)) => Outcome::pass(format!("{} is RAID 0, which nvidia-fs takes", device.name)),
        ("raid1" | "raid10", Some(true)) => {
            Outcome::note(format!("{} is {level}, which only the newest nvidia-fs takes", device.name))
        }
        ("raid0" | "raid1" | "raid10", None) => Outcome::unknown(format!(
            "{} is {level}, which nvidia-fs may take and P2PDMA does not; which route is here cannot be seen",
            device.name
        )),
        _ => Outcome::fail(format!("{} is {level}, which has no direct route here", device.name))
            .expected("drives without an array, or RAID 0 with nvidia-fs")
            .actual(level.to_string())
            .evidence(place, level.to_string())
            .remedy(Remedy::new(
                Who::Guest,
                "use the drives one by one; cuFile can have files on all of them at once",
            ))
            .remedy(
                Remedy::new(Who::Guest, "or, for RAID 0, use nvidia-fs")
                    .command("apt install linux-nvidia linux-modules-nvidia-fs-nvidia"),
            ),
    }
}

/// Has a mount a direct route? `Err` says why not.
fn suits(mount: &Mount) -> Result<(), String> {
    match mount.kind.as_str() {
        "xfs" => Ok(()),
        "ext4" if mount.has("data=ordered") => Ok(()),
        "ext4" => Err(format!("{} is ext4 without data=ordered in its options", mount.at)),
        kind => Err(format!("{} is {kind}", mount.at)),
    }
}

/// Data on ZFS, whose drives the kernel does not show as mounted: where no NVMe drive is left that could be used raw, it
/// lies on them.
fn pool(context: &Context<'_>) -> Option<Outcome> {
    const NOT_DATA: [&str; 4] = ["/home", "/root", "/srv", "/opt"];
    let facts = context.facts;
    let is_data = |mount: &&Mount| {
        mount.kind == "zfs" && !is_system(mount) && !NOT_DATA.iter().any(|at| mount.at.starts_with(at))
    };
    let mount = facts.mounts.value()?.iter().find(is_data)?;
    let mut drives = facts.block.value()?.iter().filter(|device| device.name.starts_with("nvme")).peekable();
    drives.peek()?;
    // `nvme0c0n1` is one path to `nvme0n1`.
    let is_path = |name: &str| name.trim_start_matches("nvme").contains('c');
    let is_raw = |drive: &BlockDevice| {
        drive.partitions.is_empty() && drive.holders.is_empty() && !is_path(&drive.name)
    };
    (!drives.any(is_raw)).then(|| {
        Outcome::fail(format!("{} is zfs, which has no direct route", mount.at))
            .expected("XFS, or ext4 with data=ordered")
            .actual(mount.kind.clone())
            .evidence("/proc/mounts", format!("{} {} {}", mount.source, mount.at, mount.kind))
            .remedy(Remedy::new(Who::Guest, "put the data on a drive of its own").command(
                "mkfs.xfs /dev/nvme1n1 && mount /dev/nvme1n1 /mnt/data   # destroys what the drive holds",
            ))
    })
}

fn filesystem(context: &Context<'_>) -> Outcome {
    let said =
        find(context, &["EXT4 journal options not found in mount table", "can't verify data=ordered mode"]);
    let remedy = |at: &str| {
        Remedy::new(Who::Guest, "mount ext4 with data=ordered in words, also in /etc/fstab, or use XFS")
            .command(format!("umount {at} && mount -o data=ordered /dev/nvme0n1p1 {at}"))
    };
    if !said.is_empty() {
        let outcome = Outcome::fail(
            "cuFile does not find data=ordered in the mount table, so it does not use the direct route",
        )
        .expected("ext4 with data=ordered, or XFS");
        return with_lines(outcome.remedy(remedy("/mnt/data")), &said);
    }
    let Some(mounts) = on_nvme(context) else { return unseen(context) };
    let data: Vec<_> = mounts.iter().filter(|on| !on.is_system).collect();
    let Some(first) = data.first() else {
        return pool(context).unwrap_or_else(|| {
            Outcome::note("no filesystem for data is mounted from an NVMe drive; raw drives need none")
        });
    };
    if let Some(good) = data.iter().find(|on| suits(on.mount).is_ok()) {
        return Outcome::pass(format!("{} is {}, which suits", good.mount.at, good.mount.kind));
    }
    let why = suits(first.mount).err().unwrap_or_default();
    Outcome::fail(format!("{why}, which has no direct route"))
        .expected("XFS, or ext4 with data=ordered")
        .actual(format!("{} {}", first.mount.kind, first.mount.options.join(",")))
        .evidence(
            "/proc/self/mountinfo",
            format!("{} {} {}", first.mount.source, first.mount.at, first.mount.kind),
        )
        .remedy(remedy(&first.mount.at))
}

fn state(context: &Context<'_>) -> Outcome {
    let Some(controllers) = context.facts.nvme.value() else {
        return Outcome::unknown(format!(
            "NVMe controllers cannot be seen: {}",
            context.facts.nvme.as_ref().map(|_| "")
        ));
    };
    let bad: Vec<_> = controllers
        .iter()
        .filter_map(|c| Some((c, c.controller_state.value()?)))
        .filter(|(_, state)| *state != "live")
        .collect();
    match bad.first() {
        Some((controller, state)) => {
            Outcome::fail(format!("{} is {state} and takes no commands", controller.name))
                .expected("live")
                .actual((*state).clone())
                .evidence(format!("/sys/class/nvme/{}/state", controller.name), (*state).clone())
                .remedy(
                    Remedy::new(Who::Guest, "reset it")
                        .command(format!("nvme reset /dev/{}", controller.name)),
                )
                .remedy(Remedy::new(Who::Hardware, "if that does not help, check the drive and its slot"))
        }
        None if controllers.is_empty() => Outcome::not_applicable("no NVMe controller has a driver"),
        None => Outcome::pass("every controller is live"),
    }
}

fn transport(context: &Context<'_>) -> Outcome {
    let Some(controllers) = context.facts.nvme.value() else {
        return Outcome::unknown(format!(
            "NVMe controllers cannot be seen: {}",
            context.facts.nvme.as_ref().map(|_| "")
        ));
    };
    let word = |c: &NvmeController| c.transport.value().cloned();
    let remote: Vec<_> = controllers.iter().filter(|c| word(c).is_some_and(|word| word != "pcie")).collect();
    match remote.first() {
        _ if controllers.is_empty() => Outcome::not_applicable("no NVMe controller has a driver"),
        Some(first) => Outcome::note(format!(
            "{} is reached by {} and not on PCI Express; {} of {} drives are local",
            first.name,
            first.transport,
            controllers.len() - remote.len(),
            controllers.len()
        ))
        .evidence(format!("/sys/class/nvme/{}/transport", first.name), first.transport.to_string()),
        None if controllers.iter().all(|c| word(c).is_some()) => {
            Outcome::pass("every drive is on PCI Express")
        }
        None => Outcome::unknown("how the drives are reached cannot be seen"),
    }
}

/// Filesystems whose files lie on other machines.
const REMOTE: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "beegfs",
    "wekafs",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "9p",
    "virtiofs",
];

fn network_filesystem(context: &Context<'_>) -> Outcome {
    let Some(mounts) = context.facts.mounts.value() else { return unseen(context) };
    let data = |mount: &&Mount| !is_system(mount) && !mount.at.starts_with("/home");
    let remote: Vec<_> =
        mounts.iter().filter(data).filter(|mount| REMOTE.contains(&mount.kind.as_str())).collect();
    let Some(first) = remote.first() else {
        return Outcome::pass("no data lies on a network filesystem");
    };
    let why = format!("{} is {}, whose files do not lie on this machine's drives", first.at, first.kind);
    if on_nvme(context).is_none_or(|local| local.iter().any(|on| !on.is_system)) {
        return Outcome::note(why);
    }
    Outcome::fail(why)
        .expected("XFS, or ext4 with data=ordered, on a local NVMe drive")
        .actual(first.kind.clone())
        .evidence("/proc/self/mountinfo", format!("{} {} {}", first.source, first.at, first.kind))
        .remedy(Remedy::new(Who::Guest, "put the data on a local NVMe drive").command(
            "mkfs.xfs /dev/nvme1n1 && mount /dev/nvme1n1 /mnt/data   # destroys what the drive holds",
        ))
}

fn o_direct(context: &Context<'_>) -> Outcome {
    let said =
        find(context, &["fd direct IO not set", "open flags*5020", "err*5020", "invalid file open flag"]);
    if said.is_empty() {
        return if !heard_cufile(context) {
            Outcome::unknown("cuFile's own log was not seen")
        } else if find(context, &["cuFile initialization failed"]).is_empty() {
            Outcome::pass("cuFile did not miss O_DIRECT")
        } else {
            Outcome::unknown("cuFile did not start, so that it opened no file")
        };
    }
    let outcome =
        Outcome::fail("a file was not opened with O_DIRECT, so its transfers are copied by the CPU")
            .expected("O_DIRECT")
            .remedy(Remedy::new(Who::Guest, "open the file with O_DIRECT, on a filesystem that takes it"));
    with_lines(outcome, &said)
}

/// What GPUDirect Storage asks of offsets, in bytes.
const ALIGNMENT: u64 = 4096;

fn alignment(context: &Context<'_>) -> Outcome {
    let Fact::Known { value: block, .. } = &context.facts.block else { return unseen(context) };
    let drives: Vec<_> = block.iter().filter(|device| device.name.starts_with("nvme")).collect();
    let parts = drives.iter().flat_map(|drive| drive.partitions.iter().map(move |part| (*drive, part)));
    let starts: Vec<_> =
        parts.filter_map(|(drive, part)| Some((drive, part, *part.start.value()?))).collect();
    let partitions: usize = drives.iter().map(|drive| drive.partitions.len()).sum();
    match starts.iter().find(|(_, _, start)| start % ALIGNMENT != 0) {
        Some((drive, part, start)) => Outcome::fail(format!(
            "{} begins at byte {start}, which is no multiple of {ALIGNMENT}; every transfer is unaligned",
            part.name
        ))
        .expected("a multiple of 4 KiB; partitioning programs take 1 MiB")
        .actual(format!("{start} bytes"))
        .evidence(
            format!("/sys/block/{}/{}/start", drive.name, part.name),
            format!("{} sectors", start / 512),
        )
        .remedy(
            Remedy::new(Who::Guest, "partition the drive anew, or use it whole")
                .command(format!("parted /dev/{} unit B print", drive.name)),
        ),
        None if drives.is_empty() => Outcome::not_applicable("there is no NVMe drive"),
        None if starts.len() < partitions => Outcome::unknown("where the partitions begin cannot be seen"),
        None if partitions == 0 => Outcome::pass("the drives have no partitions"),
        None => Outcome::pass(format!("{partitions} of {partitions} partitions begin at whole blocks")),
    }
}
