//! What lies between cuFile and the drive: filesystem, device-mapper, RAID, the drive's health.

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::said::{find, heard_cufile, silence, with_lines};
use crate::facts::Fact;
use crate::facts::block::BlockDevice;
use crate::facts::mounts::Mount;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "storage.health",
        title: "the drives answer",
        sides: WHERE_GDS_RUNS,
        requires: &["gpu.fell-off"],
        severity: Severity::Major,
        rationale: "A drive that times out or is reset may be broken, or may be unable to reach the GPU's memory.",
        references: &["drivers/nvme/host/pci.c: nvme_timeout"],
        covers: &["guide: namespace health", "signature 30", "gds-diag: nvme errors"],
        run: health,
    },
    Check {
        id: "storage.read-only",
        title: "no filesystem was made read-only",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.health"],
        severity: Severity::Major,
        rationale: "Linux makes a filesystem read-only after I/O errors; nothing can be written to it then.",
        references: &["fs/ext4/super.c: ext4_handle_error"],
        covers: &["signature 31"],
        run: read_only,
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
        rationale: "NVMe over a network takes another route (RDMA), and P2PDMA fails on it.",
        references: &["nixl issue 1063", "GDS release notes"],
        covers: &["guide: local NVMe", "signature 28"],
        run: transport,
    },
    Check {
        id: "storage.device-mapper",
        title: "no device-mapper lies on the drives",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "cuFile refuses LVM, dm-crypt and multipath: `Unsupported block device: /dev/dm-0`.",
        references: &["gds-nvidia-fs issue 62", "GDS troubleshooting guide"],
        covers: &["guide: no dm/LVM/crypt", "signature 26", "gds-diag: device-mapper"],
        run: device_mapper,
    },
    Check {
        id: "storage.raid",
        title: "RAID is of a kind that GPUDirect Storage takes",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Major,
        rationale: "The nvfs route takes md RAID 0 (newest releases 1 and 10); P2PDMA takes none before Linux 7.1.",
        references: &["GDS release notes: known limitations"],
        covers: &["guide: RAID rules", "gds-diag: RAID"],
        run: raid,
    },
    Check {
        id: "storage.filesystem",
        title: "the filesystem is one that GPUDirect Storage takes",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.device-mapper"],
        severity: Severity::Major,
        rationale: "Direct transfers work on raw drives, on XFS, and on ext4 that was mounted with data=ordered in so many words.",
        references: &["docs.nvidia.com/gpudirect-storage: troubleshooting, EXT4"],
        covers: &[
            "guide: ext4 data=ordered or XFS",
            "guide: no network filesystem",
            "signature 25",
            "gds-diag: mount-check",
        ],
        run: filesystem,
    },
    Check {
        id: "storage.o-direct",
        title: "the files can be opened with O_DIRECT",
        sides: WHERE_GDS_RUNS,
        requires: &["storage.filesystem"],
        severity: Severity::Major,
        rationale: "Direct transfers need O_DIRECT, and offsets and sizes in whole blocks of 4 KiB.",
        references: &["cufile.h: CU_FILE_INVALID_FILE_OPEN_FLAG (5020)"],
        covers: &["guide: O_DIRECT", "guide: alignment"],
        run: o_direct,
    },
];

fn health(context: &Context<'_>) -> Outcome {
    let said: Vec<_> = find(
        context,
        &[
            "nvme*timeout, reset controller",
            "nvme*timeout, disable controller",
            "nvme*timeout, aborting",
            "nvme*Disabling device after reset failure",
            "nvme*controller is down",
            "nvme*Device not ready",
            "Buffer I/O error on dev*nvme",
            "blk_update_request*error*nvme",
            "I/O error, dev nvme",
            "critical target error, dev nvme",
            "critical medium error, dev nvme",
            "no available path - failing I/O",
        ],
    );
    if said.is_empty() {
        return silence(context, "no drive failed since the kernel started");
    }
    let outcome = Outcome::fail("an NVMe drive stopped answering or failed transfers")
        .expected("no errors of the nvme driver")
        .remedy(
            Remedy::new(
                Who::Guest,
                "stop using it for GPUDirect; see whether it fails without the GPU, and read its health log",
            )
            .command("nvme smart-log /dev/nvme0")
            .command("gdsio -f FILE -d 0 -w 1 -s 1G -i 1M -x 1 -I 0"),
        )
        .remedy(Remedy::new(
            Who::Hypervisor,
            "if it fails only with the GPU: look for IOMMU faults on the host, which end such transfers",
        ))
        .remedy(Remedy::new(Who::Hardware, "else check the drive, its slot and its firmware"));
    with_lines(outcome, &said)
}

fn read_only(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "Remounting filesystem read-only",
            "XFS*Corruption of in-memory data",
            "XFS*shutting down filesystem",
            "XFS*Filesystem has been shut down",
        ],
    );
    if said.is_empty() {
        return silence(context, "no filesystem was made read-only");
    }
    let outcome = Outcome::fail("a filesystem was made read-only after I/O errors").remedy(
        Remedy::new(
            Who::Guest,
            "find the drive's errors first, then check the filesystem while it is not mounted",
        )
        .command("fsck -f /dev/nvme0n1p1"),
    );
    with_lines(outcome, &said)
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
    let said = find(context, &["write failed : Input/output error"]);
    let controllers = context.facts.nvme.value().map_or(&[][..], Vec::as_slice);
    let remote: Vec<_> = controllers
        .iter()
        .filter(|c| c.transport.value().is_some_and(|transport| transport != "pcie"))
        .collect();
    let Some(first) = remote.first() else {
        return match &context.facts.nvme {
            Fact::Known { .. } => Outcome::pass("every drive is on PCI Express"),
            other => {
                Outcome::unknown(format!("NVMe controllers cannot be seen: {}", other.as_ref().map(|_| "")))
            }
        };
    };
    let why = format!("{} is reached by {} and not on PCI Express", first.name, first.transport);
    let p2pdma = context.facts.cufile.value().is_some_and(|config| config.use_pci_p2pdma == Some(true));
    if p2pdma || !said.is_empty() {
        let outcome = Outcome::fail(format!("{why}: with P2PDMA its transfers fail")).remedy(Remedy::new(
            Who::Guest,
            "set use_pci_p2pdma for local drives only: block.nvme, not properties",
        ));
        return with_lines(outcome, &said);
    }
    Outcome::note(format!("{why}; this check is of local drives"))
}

/// What device-mapper or md made of a local NVMe drive, directly or over several floors.
fn made_of_nvme<'a>(devices: &'a [BlockDevice], prefix: &str) -> Vec<&'a BlockDevice> {
    let of_nvme = |device: &BlockDevice| {
        let mut todo: Vec<&str> = device.slaves.iter().map(String::as_str).collect();
        // No stack has more floors than there are devices.
        for _ in 0..devices.len().saturating_mul(4) + 4 {
            let Some(name) = todo.pop() else { return false };
            if name.starts_with("nvme") {
                return true;
            }
            todo.extend(
                devices.iter().filter(|d| d.name == name).flat_map(|d| d.slaves.iter().map(String::as_str)),
            );
        }
        false
    };
    devices.iter().filter(|device| device.name.starts_with(prefix) && of_nvme(device)).collect()
}

/// The filesystems that programs would put data on: not the system's own, and on a device.
fn data_mounts<'a>(context: &Context<'a>) -> Vec<&'a Mount> {
    const SYSTEM: [&str; 8] = ["/", "/boot", "/usr", "/var", "/home", "/boot/efi", "/nix", "/snap"];
    let all = context.facts.mounts.value().into_iter().flatten();
    all.filter(|mount| !SYSTEM.contains(&mount.at.as_str()) && !mount.at.starts_with("/snap/"))
        .filter(|mount| {
            !["/run", "/sys", "/proc", "/dev", "/etc", "/tmp"].iter().any(|own| mount.at.starts_with(own))
        })
        .collect()
}

fn device_mapper(context: &Context<'_>) -> Outcome {
    let said = find(context, &["Unsupported block device: /dev/dm-", "Unsupported block device*dm-"]);
    let devices = context.facts.block.value().map_or(&[][..], Vec::as_slice);
    let stacked = made_of_nvme(devices, "dm-");
    let used = |device: &&&BlockDevice| {
        data_mounts(context).iter().any(|mount| {
            let name = mount.source.rsplit('/').next().unwrap_or_default();
            device.is(mount.device.as_deref(), name)
        })
    };
    let data = stacked.iter().find(used);
    if said.is_empty() && data.is_none() {
        return match (&context.facts.block, stacked.first()) {
            (Fact::Known { .. }, Some(device)) => Outcome::note(format!(
                "{} lies on an NVMe drive; data on it takes no direct route",
                device.dm_name.value().unwrap_or(&device.name)
            )),
            (Fact::Known { .. }, None) => Outcome::pass("no device-mapper device lies on an NVMe drive"),
            (other, _) => {
                Outcome::unknown(format!("block devices cannot be seen: {}", other.as_ref().map(|_| "")))
            }
        };
    }
    let name = data.map_or("/dev/dm-*", |device| device.dm_name.value().unwrap_or(&device.name));
    let kind =
        data.and_then(|device| device.dm_uuid.value()).map_or("", |uuid| match uuid.split('-').next() {
            Some("LVM") => " (LVM)",
            Some("CRYPT") => " (dm-crypt)",
            Some("mpath") => " (multipath)",
            _ => "",
        });
    let outcome = Outcome::fail(format!(
        "the data lies on device-mapper {name}{kind}, which cuFile refuses: it needs the drive itself"
    ))
    .expected("a partition of the drive, or the drive itself")
    .remedy(
        Remedy::new(Who::Guest, "put the data on a plain partition of the drive")
            .command("mkfs.xfs /dev/nvme1n1p1   # destroys what is on it"),
    );
    with_lines(outcome, &said)
}

fn raid(context: &Context<'_>) -> Outcome {
    let Some(devices) = context.facts.block.value() else {
        return Outcome::unknown(format!(
            "block devices cannot be seen: {}",
            context.facts.block.as_ref().map(|_| "")
        ));
    };
    let arrays = made_of_nvme(devices, "md");
    let Some(array) = arrays.first() else { return Outcome::not_applicable("no RAID lies on an NVMe drive") };
    let level = array.md_level.value().map_or("of an unknown level", String::as_str);
    match level {
        "raid0" => Outcome::note(format!(
            "{} is RAID 0: the nvfs route takes it, P2PDMA does not before Linux 7.1",
            array.name
        )),
        "raid1" | "raid10" => {
            Outcome::note(format!("{} is {level}: only the newest nvidia-fs takes it", array.name))
        }
        _ => Outcome::fail(format!("{} is {level}, which GPUDirect Storage does not take", array.name))
            .expected("raid0, or drives without RAID")
            .actual(level)
            .evidence(format!("/sys/block/{}/md/level", array.name), level)
            .remedy(Remedy::new(Who::Guest, "use the drives singly, or as RAID 0")),
    }
}

fn filesystem(context: &Context<'_>) -> Outcome {
    let said = find(context, &["EXT4 journal options not found in mount table"]);
    let ordered = || {
        Remedy::new(Who::Guest, "mount it with the option spelled out")
            .command("mount -o remount,data=ordered MOUNTPOINT   # and in /etc/fstab")
    };
    if !said.is_empty() {
        let outcome = Outcome::fail(
            "the ext4 filesystem was not mounted with data=ordered in so many words, so cuFile refuses it",
        )
        .expected("data=ordered among the mount's options")
        .remedy(ordered());
        return with_lines(outcome, &said);
    }
    let Some(_) = context.facts.mounts.value() else {
        return Outcome::unknown(format!(
            "mounts cannot be seen: {}",
            context.facts.mounts.as_ref().map(|_| "")
        ));
    };
    let devices = context.facts.block.value().map_or(&[][..], Vec::as_slice);
    let on_nvme = |mount: &&&Mount| {
        mount.source.starts_with("/dev/nvme")
            || devices.iter().any(|d| {
                d.name.starts_with("nvme") && mount.device.is_some() && d.is(mount.device.as_deref(), "")
            })
            || made_of_nvme(devices, "md")
                .iter()
                .any(|d| d.is(mount.device.as_deref(), mount.source.rsplit('/').next().unwrap_or_default()))
    };
    let mounts = data_mounts(context);
    let local: Vec<_> = mounts.iter().filter(on_nvme).collect();
    for mount in &local {
        let at = &mount.at;
        let evidence = |outcome: Outcome| {
            outcome
                .evidence("/proc/self/mountinfo", format!("{at} {} {}", mount.kind, mount.options.join(",")))
        };
        match mount.kind.as_str() {
            "ext4" if mount.options.iter().any(|o| o == "data=journal" || o == "data=writeback") => {
                return evidence(Outcome::fail(format!(
                    "{at} is ext4 with another journal mode than data=ordered"
                )))
                .remedy(ordered());
            }
            "ext4" if !mount.has("data=ordered") => {
                let why = format!(
                    "{at} is ext4 without data=ordered in its mount options, so cuFile cannot verify it and refuses"
                );
                return evidence(Outcome::fail(why).expected("data=ordered")).remedy(ordered());
            }
            "ext4" | "xfs" | "vfat" => {}
            kind => {
                return evidence(Outcome::fail(format!("{at} is {kind}, on which cuFile copies by the CPU")))
                    .expected("xfs, ext4 with data=ordered, or the raw drive")
                    .remedy(Remedy::new(Who::Guest, "put the data on XFS or ext4, or on the raw drive"));
            }
        }
    }
    match local.first() {
        Some(first) => Outcome::pass(format!("{} is {}", first.at, first.kind)),
        None => Outcome::not_applicable("no filesystem for data lies on an NVMe drive; raw drives need none"),
    }
}

fn o_direct(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &["fd direct IO not set", "open flags not supported*5020", "err=5020", "invalid file open flag"],
    );
    if said.is_empty() {
        return if heard_cufile(context) {
            Outcome::pass("cuFile did not complain about O_DIRECT")
        } else {
            Outcome::unknown("cuFile's own log was not seen")
        };
    }
    let outcome =
        Outcome::fail("a file was not opened with O_DIRECT, so its transfers are copied by the CPU")
            .expected("O_DIRECT")
            .remedy(Remedy::new(Who::Guest, "open the file with O_DIRECT, on a filesystem that takes it"));
    with_lines(outcome, &said)
}
