//! The disks that the hypervisor makes up: one of them is gdsboot's image with its report partition.

use super::{Rule, fix, some};
use crate::checks::check::{Outcome, Severity};
use crate::hypervisor::context::Context;

/// The rules of this file.
pub const RULES: &[Rule] = &[Rule {
    id: "vm.report-disk",
    title: "there is a disk for gdsboot's image and its report",
    requires: &[],
    severity: Severity::Minor,
    rationale: "gdsboot boots from a disk and leaves its report on a partition of it; a CD-ROM cannot be written to, and an NVMe \
                controller that is passed through is what is measured.",
    references: &["docs/vm.md"],
    run: report_disk,
}];

fn report_disk(context: &Context<'_>) -> Outcome {
    let disks: Vec<&str> =
        context.machine.disks.iter().filter(|disk| !disk.cdrom).map(|disk| disk.name.as_str()).collect();
    if !disks.is_empty() {
        return Outcome::pass(format!("virtual disks: {}", some(disks)));
    }
    Outcome::fail("the machine has no virtual disk that gdsboot's image could be")
        .expected("a disk with gdsboot's image")
        .remedy(fix(
            context,
            "add the image as a disk",
            "qm set VMID -scsihw virtio-scsi-single -scsi0 STORAGE:0,import-from=/path/gdsboot.img -boot order=scsi0",
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/path/gdsboot.img'/><target dev='vda' bus='virtio'/></disk>",
            "-drive if=none,id=image,format=raw,file=/path/gdsboot.img -device virtio-blk-pci,drive=image,bootindex=0",
        ))
}
