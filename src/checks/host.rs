//! What only a hypervisor's host can say. In a guest these stay unknown, with the command that its administrator can run; a
//! log with the words is believed on any side, because a capture may hold nothing else.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use super::each::to_vfio;
use super::said::{Line, find, silence, with_lines};
use crate::facts::pci::PciDevice;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "host.group-viable",
        title: "the GPU's IOMMU group can be given away",
        sides: ANYWHERE,
        requires: &["gpu.driver", "iommu.groups"],
        severity: Severity::Blocker,
        rationale: "VFIO gives a device away only if no host driver holds any device of its IOMMU group.",
        references: &["Documentation/driver-api/vfio.rst"],
        covers: &["guide: IOMMU groups", "guide: messages of the hypervisor", "signature 7"],
        run: group_viable,
    },
    Check {
        id: "host.reserved-memory",
        title: "the firmware leaves the devices' addresses free",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A device for which the firmware demands a fixed mapping of memory (RMRR, IVMD) cannot get a guest's \
                    addresses, and the kernel refuses to give it away.",
        references: &[
            "drivers/iommu/intel/iommu.c: device_rmrr_is_relaxable",
            "drivers/iommu/iommu.c: require_direct",
        ],
        covers: &["guide: messages of the hypervisor"],
        run: reserved_memory,
    },
    Check {
        id: "host.interrupt-remapping",
        title: "the IOMMU remaps interrupts",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "Without interrupt remapping a guest could raise any interrupt of the host, and VFIO refuses to give it \
                    devices.",
        references: &["drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_attach_group"],
        covers: &["guide: messages of the hypervisor"],
        run: interrupt_remapping,
    },
    Check {
        id: "host.framebuffer",
        title: "the host's console is not on the GPU",
        sides: ANYWHERE,
        requires: &[],
        severity: Severity::Blocker,
        rationale: "A console that the firmware left on the GPU (efifb, simplefb) keeps its windows, and the guest gets a GPU \
                    that it cannot reach.",
        references: &["drivers/video/fbdev/efifb.c", "Proxmox VE: PCI Passthrough, BAR can't reserve"],
        covers: &["guide: messages of the hypervisor"],
        run: framebuffer,
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
        requires: &["iommu.translation", "host.bar-mapping"],
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
    let said = find(
        context,
        &[
            "vfio*group*is not viable",
            "group*is not viable*vfio",
            "failed to open /dev/vfio/*Device or resource busy",
            "vfio*error getting device from group",
        ],
    );
    if said.is_empty() {
        return silent(
            context,
            "no group was refused",
            "grep -r 'not viable' /var/log/libvirt/qemu; journalctl -u pvedaemon",
        );
    }
    let outcome =
        Outcome::fail("a host driver or another guest holds a device of the group that is to be given away")
            .expected("every device of the group bound to vfio-pci")
            .remedy(to_vfio(
                context,
                "bind every device of the group to vfio-pci from the start, and restart the host",
            ));
    with_lines(outcome, &said)
}

fn reserved_memory(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "ineligible for IOMMU domain attach due to platform RMRR",
            "requested this device have a 1:1 IOMMU mapping",
        ],
    );
    if said.is_empty() && context.side == Side::Guest {
        return Outcome::not_applicable("a guest that runs was given its devices");
    }
    if said.is_empty() {
        return silent(
            context,
            "no device was refused for the firmware's sake",
            "dmesg | grep -e RMRR -e '1:1 IOMMU'",
        );
    }
    let outcome = Outcome::fail("the firmware demands fixed memory for a device, which cannot be given away so")
        .remedy(Remedy::new(
            Who::Bios,
            "switch off what shares memory with the slot (HPE: \"Shared Memory\" of the slot, with conrep or the BMC), \
             or update the firmware",
        ))
        .remedy(Remedy::new(Who::Hardware, "or use a slot for which the firmware reserves nothing"));
    with_lines(outcome, &said)
}

fn framebuffer(context: &Context<'_>) -> Outcome {
    let said = find(context, &["vfio-pci*BAR*can't reserve"]);
    if said.is_empty() && context.side == Side::Guest {
        return Outcome::not_applicable("only a host's log would say so");
    }
    if said.is_empty() {
        return silent(context, "VFIO got every window", "dmesg | grep \"can't reserve\"");
    }
    let outcome = Outcome::fail("something on the host, usually its console, holds the GPU's windows")
        .remedy(
            Remedy::new(
                Who::Hypervisor,
                "keep the console off the GPU: add this to the kernel's command line, and reboot",
            )
            .command("initcall_blacklist=sysfb_init")
            .command("grep -iE 'efifb|simplefb|BOOTFB|vesafb' /proc/iomem   # who holds them"),
        )
        .remedy(Remedy::new(Who::Bios, "make another display, such as the BMC's, the first one"));
    with_lines(outcome, &said)
}

fn interrupt_remapping(context: &Context<'_>) -> Outcome {
    let said = find(context, &["vfio*No interrupt remapping"]);
    if said.is_empty() && context.side == Side::Guest {
        return Outcome::not_applicable("a guest that runs was given its devices");
    }
    if said.is_empty() {
        return silent(context, "VFIO did not miss interrupt remapping", "dmesg | grep -i remapping");
    }
    let outcome = Outcome::fail("the IOMMU does not remap interrupts, so VFIO gives no device away")
        .remedy(Remedy::new(Who::Bios, "switch on interrupt remapping (with VT-d or AMD-Vi) and x2APIC"))
        .remedy(
            Remedy::new(
                Who::Hypervisor,
                "remove what switches it off from the kernel's command line, and reboot",
            )
            .command("grep -o 'intremap=off\\|nointremap\\|iommu=.*nointremap' /proc/cmdline"),
        )
        .remedy(
            Remedy::new(Who::Hypervisor, "or, where every guest is trusted, let VFIO go on without it")
                .command(
                    "echo 'options vfio_iommu_type1 allow_unsafe_interrupts=1' > /etc/modprobe.d/unsafe.conf",
                ),
        );
    with_lines(outcome, &said)
}

fn vfio_reset(context: &Context<'_>) -> Outcome {
    let said = find(
        context,
        &[
            "not ready*after FLR; giving up",
            "not ready*after bus reset; giving up",
            "not ready*after PM D3*giving up",
            "vfio-pci*Failed to return from FLR",
        ],
    );
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
            // The container's limit on mappings, not on memory: dma_entry_limit.
            "VFIO_MAP_DMA failed: No space left",
            "vfio*dma_map(*= -28",
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
    let is_limit = said.iter().any(|line| line.text.contains("No space left") || line.text.contains("= -28"));
    let outcome = if is_limit {
        Outcome::fail("VFIO has no room for more mappings (error -28)").remedy(
            Remedy::new(
                Who::Hypervisor,
                "back the guest's memory with huge pages, or raise the limit on mappings",
            )
            .command(
                "echo 'options vfio_iommu_type1 dma_entry_limit=4194304' > /etc/modprobe.d/vfio-limit.conf",
            ),
        )
    } else {
        Outcome::fail("VFIO could not pin the guest's memory (error -12)")
    };
    let outcome = outcome
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
            "IOMMU_IOAS_MAP failed: Bad address",
            "Failed to map VFIO MMIO region",
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

/// The PCI addresses in a line, without their domain: `07:00.0`.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.'));
    words.filter_map(|word| {
        let word = word.trim_matches(|c| c == ':' || c == '.');
        let start = word.len().checked_sub("07:00.0".len())?;
        let short = word.get(start..)?;
        let is_address = short.char_indices().all(|(n, c)| match n {
            2 => c == ':',
            5 => c == '.',
            _ => c.is_ascii_hexdigit(),
        });
        is_address.then_some(short)
    })
}

/// Does a line name only devices that have no part in transfers? Functions of a GPU's card and bridges, which may stand
/// for what is below them, have one.
pub(super) fn is_a_strangers(context: &Context<'_>, text: &str) -> bool {
    let is_part = |device: &PciDevice| {
        let class = device.class.value().copied();
        class.is_none_or(|class| class.is_display() || class.is_nvme() || class.0 >> 16 == 0x06)
            || context.gpus().iter().any(|gpu| gpu.slot() == device.slot())
    };
    let mut named = addresses(text).peekable();
    named.peek().is_some()
        && named.all(|short| {
            let device = context.pci().iter().find(|device| device.address.ends_with(short));
            device.is_some_and(|device| !is_part(device))
        })
}

fn iommu_faults(context: &Context<'_>) -> Outcome {
    let all = find(context, &["DMAR:*fault addr", "AMD-Vi:*IO_PAGE_FAULT", "arm-smmu*event*fault"]);
    let said: Vec<Line<'_>> =
        all.iter().copied().filter(|line| !is_a_strangers(context, line.text)).collect();
    if said.is_empty() && !all.is_empty() {
        let outcome = Outcome::note(
            "the IOMMU refused transfers of devices that are neither GPUs nor NVMe controllers",
        );
        return with_lines(outcome, &all);
    }
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

#[cfg(test)]
mod tests {
    use super::super::check::Answer::{self, Fail, NotApplicable, Pass, Unknown};
    use super::super::testing::*;
    use super::*;
    use crate::facts::Fact;
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;

    fn said(id: &str, side: Side, line: &str) -> Answer {
        let mut facts = good(side);
        let log = LogLines { lines: vec![line.to_owned()], ..LogLines::default() };
        facts.kernel_log = Fact::known("/dev/kmsg", KernelLog { sources: vec![log] });
        answer(id, &facts, side)
    }

    #[test]
    fn faults_by_device() {
        let fault = |device: &str| {
            let line = format!(
                "DMAR: [DMA Read NO_PASID] Request device [{device}] fault addr 0x7c000000 [fault reason 0x06]"
            );
            said("host.iommu-faults", Side::Host, &line)
        };
        assert_eq!((fault("06:00.0"), fault("07:00.0"), fault("3f:1f.7")), (Fail, Fail, Fail));
        let mut facts = good(Side::Host);
        add(&mut facts, 0x0c_0330, "8086:1bcd", "0000:00:14.0");
        let line = "xhci_hcd 0000:00:14.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x80000040 flags=0x0020]";
        let log = LogLines { lines: vec![line.to_owned()], ..LogLines::default() };
        facts.kernel_log = Fact::known("/dev/kmsg", KernelLog { sources: vec![log] });
        assert_eq!(answer("host.iommu-faults", &facts, Side::Host), Answer::Note);
        assert_eq!(addresses("device=0000:07:00.0 flags 0x0020 x:y").collect::<Vec<_>>(), ["07:00.0"]);
    }

    #[test]
    fn what_the_host_says() {
        for (id, line) in [
            (
                "host.reserved-memory",
                "vfio-pci 0000:01:00.0: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.",
            ),
            (
                "host.reserved-memory",
                "vfio-pci 0000:01:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting",
            ),
            (
                "host.framebuffer",
                "vfio-pci 0000:01:00.0: BAR 1: can't reserve [mem 0xc0000000-0xcfffffff 64bit pref]",
            ),
            ("host.interrupt-remapping", "vfio_iommu_type1_attach_group: No interrupt remapping support."),
            ("host.vfio-reset", "vfio-pci 0000:01:00.0: Failed to return from FLR"),
            ("host.bar-mapping", "qemu-system-x86_64: IOMMU_IOAS_MAP failed: Bad address, PCI BAR?"),
        ] {
            assert_eq!(said(id, Side::Host, line), Fail, "{id}");
            assert_eq!(said(id, Side::Host, "vfio-pci 0000:01:00.0: ready 1023ms after FLR"), Pass, "{id}");
            assert_eq!(said(id, Side::BareMetal, ""), NotApplicable, "{id}");
        }
        assert_eq!(said("host.reserved-memory", Side::Guest, ""), NotApplicable);
        assert_eq!(said("host.interrupt-remapping", Side::Guest, ""), NotApplicable);
        assert_eq!(said("host.vfio-reset", Side::Guest, ""), Unknown);
    }
}
