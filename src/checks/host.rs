//! What only a hypervisor's host can say. In a guest these stay unknown, with the command that its administrator can run; a
//! log with the words is believed on any side, because a capture may hold nothing else.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use super::each::to_vfio;
use super::said::{find, silence, with_lines};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "host.group-viable",
        title: "the GPU's IOMMU group can be given away",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "VFIO gives a device away only if no host driver holds any device of its IOMMU group.",
        references: &["Documentation/driver-api/vfio.rst"],
        covers: &["guide: IOMMU groups", "guide: messages of the hypervisor", "signature 7"],
        run: group_viable,
    },
    Check {
        id: "host.vfio-reset",
        title: "devices that are given away can be reset",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A GPU that does not come back from a function-level reset is hung until the host is switched off.",
        references: &["drivers/pci/pci.c: pci_dev_wait"],
        covers: &["guide: messages of the hypervisor", "signature 33"],
        run: vfio_reset,
    },
    Check {
        id: "host.memory-lock",
        title: "the guest's memory can be locked",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "VFIO pins all of a guest's memory; a limit on locked memory or a balloon stops it.",
        references: &["drivers/vfio/vfio_iommu_type1.c: vfio_pin_pages_remote"],
        covers: &["guide: messages of the hypervisor", "signature 34"],
        run: memory_lock,
    },
    Check {
        id: "host.bar-mapping",
        title: "QEMU maps the devices' windows for each other",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A window that QEMU could not map in the IOMMU cannot be reached by the guest's other devices.",
        references: &["QEMU: hw/vfio/container.c"],
        covers: &["guide: messages of the hypervisor", "signature 29"],
        run: bar_mapping,
    },
    Check {
        id: "host.iommu-faults",
        title: "the IOMMU refuses no transfers",
        sides: ANYWHERE,
        requires: &["host.bar-mapping"],
        severity: Severity::Blocker,
        rationale: "An IOMMU fault is a transfer to an address that is not mapped: with NVMe and GPU, the GPU's window.",
        references: &["drivers/iommu/intel/dmar.c", "drivers/iommu/amd/iommu.c"],
        covers: &["guide: messages of the hypervisor", "signature 29"],
        run: iommu_faults,
    },
];

/// What silence means: in a guest nothing at all, because the words would stand on its host.
fn silent(context: &Context<'_>, silent: &str, command: &str) -> Outcome {
    match context.side {
        Side::Guest => Outcome::unknown("only the host's log would say so")
            .remedy(Remedy::new(Who::Hypervisor, "look on the host").command(command)),
        Side::Host => silence(context, silent),
        Side::BareMetal => Outcome::not_applicable("no virtual machine is seen here"),
    }
}

fn group_viable(context: &Context<'_>) -> Outcome {
    let said = find(context, &["vfio*group*is not viable", "group*is not viable*vfio"]);
    if said.is_empty() {
        return silent(
            context,
            "no group was refused",
            "grep -r 'not viable' /var/log/libvirt/qemu; journalctl -u pvedaemon",
        );
    }
    let outcome = Outcome::fail("a host driver holds a device of the group that is to be given away")
        .expected("every device of the group bound to vfio-pci")
        .remedy(to_vfio(
            context,
            "bind every device of the group to vfio-pci from the start, and restart the host",
        ));
    with_lines(outcome, &said)
}

fn vfio_reset(context: &Context<'_>) -> Outcome {
    let said = find(context, &["not ready*after FLR; giving up", "not ready*after bus reset; giving up"]);
    if said.is_empty() {
        return silent(context, "no device failed to come back from a reset", "dmesg | grep 'after FLR'");
    }
    let outcome = Outcome::fail("a device did not come back from its reset and is hung")
        .remedy(Remedy::new(Who::Hardware, "switch the host off and on; a restart is not enough"));
    with_lines(outcome, &said)
}

fn memory_lock(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "VFIO_MAP_DMA*-12",
            "VFIO_MAP_DMA*Cannot allocate memory",
            "VFIO_MAP_DMA*ENOMEM",
            "vfio*dma_map(*= -12",
            "RLIMIT_MEMLOCK (*exceeded",
        ],
    );
    if said.is_empty() {
        return silent(
            context,
            "all memory could be locked",
            "dmesg | grep RLIMIT_MEMLOCK; grep -r VFIO_MAP_DMA /var/log",
        );
    }
    let outcome = Outcome::fail("VFIO could not pin the guest's memory (error -12)")
        .remedy(
            Remedy::new(Who::VmConfiguration, "give the machine fixed memory without a balloon")
                .command("qm set VMID -balloon 0"),
        )
        .remedy(
            Remedy::new(
                Who::Hypervisor,
                "raise the limit on locked memory for QEMU, and see that the host has the memory free",
            )
            .command("systemctl edit libvirtd   # [Service] LimitMEMLOCK=infinity"),
        );
    with_lines(outcome, &said)
}

fn bar_mapping(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "PCI peer-to-peer transactions on BARs are not supported",
            "vfio*dma_map(*= -22",
            "vfio*dma_map(*= -14",
        ],
    );
    if said.is_empty() {
        return silent(
            context,
            "QEMU mapped every window",
            "grep -r 'peer-to-peer transactions' /var/log; journalctl | grep vfio_",
        );
    }
    let outcome = Outcome::fail(
        "QEMU could not map a device's window in the IOMMU, so no other device of the guest reaches it",
    )
    .remedy(
        Remedy::new(
            Who::VmConfiguration,
            "place the windows where the IOMMU can map them, and use VFIO's own container, not iommufd",
        )
        .command("qm set VMID -args '-cpu host,phys-bits=39'"),
    )
    .remedy(Remedy::new(
        Who::Hypervisor,
        "run a kernel of 6.19 or later with a QEMU that maps windows through iommufd",
    ));
    with_lines(outcome, &said)
}

fn iommu_faults(context: &Context<'_>) -> Outcome {
    let said = find(context, &["DMAR:*fault addr", "AMD-Vi:*IO_PAGE_FAULT", "arm-smmu*event*fault"]);
    if said.is_empty() {
        return match context.side {
            Side::Guest => silent(context, "", "dmesg | grep -e 'DMAR:.*fault' -e IO_PAGE_FAULT"),
            _ => silence(context, "the IOMMU refused no transfer"),
        };
    }
    let outcome =
        Outcome::fail("the IOMMU refused a device's transfer: the address that it went to is not mapped");
    let outcome = match context.side {
        Side::BareMetal => outcome.remedy(
            Remedy::new(Who::Guest, "start the kernel with the IOMMU off, or passing through")
                .command("intel_iommu=off   # or amd_iommu=off, or iommu=pt"),
        ),
        _ => outcome
            .remedy(
                Remedy::new(
                    Who::VmConfiguration,
                    "show the guest the host's address width, so that windows stay where the IOMMU reaches",
                )
                .command("qm set VMID -cpu host"),
            )
            .remedy(
                Remedy::new(
                    Who::Hypervisor,
                    "use VFIO's own container rather than iommufd, and look for QEMU's words about windows",
                )
                .command("grep -r 'peer-to-peer transactions on BARs' /var/log"),
            ),
    };
    with_lines(outcome, &said)
}
